"""The form that says where a labelled pool's reference head comes from."""

from __future__ import annotations

from typing import Any, Literal

import streamlit as st

from app.components.shared.controls import config_field
from app.components.shared.errors import Missing
from mimic_core.base.config import HeadConfig
from mimic_core.base.errors import ConfigError
from mimic_core.base.fields import setting

_Kind = Literal["From the model", "Trusted samples", "File"]
_KINDS: dict[_Kind, str] = {
    "From the model": "A CLIP model needs no trusted label: it knows the classes by their names. "
    "A classifier's checkpoint brings its own head.",
    "Trusted samples": "A head is trained on the samples whose labels you trust, which "
    "are then left out.",
    "File": "Weights of a classifier's last layer, such as another run's reference_head."
    "safetensors.",
}


def head_form(missing: Missing, *, from_model: bool = True) -> HeadConfig | None:
    """The chosen reference head; None leaves it to the model, or stands in ``missing``.

    Args:
        missing: What is not filled in yet.
        from_model: Whether there is a model that could bring one.
    """
    offered = [kind for kind in _KINDS if from_model or kind != "From the model"]
    kind = st.segmented_control(
        "Reference head",
        offered,
        default=offered[0],
        required=True,
        key="head_kind" if from_model else "head_kind_own",
        help="The head on the model's features that samples should pull towards.",
        persist_state="session",
    )
    st.caption(_KINDS[kind])
    form = {"From the model": _words, "Trusted samples": _trusted, "File": _file}[kind]
    values = form(missing)
    config: HeadConfig | None = HeadConfig.parse(values) if values else None
    return config


def projection_form(missing: Missing) -> HeadConfig | None:
    """The file of the projection from image features of the user's own to the text features."""
    path: str | None = st.text_input(
        "Projection of the features",
        key="head_projection",
        placeholder="/data/projection.safetensors",
        help="safetensors with weight and logit_scale: from the image features to the space of the "
        "text features that the file of features also holds.",
        persist_state="session",
    )
    if not path:
        missing.append(ConfigError("no projection is named yet", next_step="type its path"))
        return None
    return HeadConfig(file=path)


def _words(_: Missing) -> dict[str, Any]:
    one = setting(HeadConfig, "prompts")
    prompts = st.text_area(
        one.title,
        key="head_prompts",
        placeholder=one.otherwise,
        help=f"{one.description} One prompt a line.",
        height=80,
        persist_state="session",
    )
    given = tuple(line.strip() for line in (prompts or "").splitlines() if line.strip())
    return {"prompts": given} if given else {}


def _trusted(missing: Missing) -> dict[str, Any]:
    values = {
        "trusted": config_field(
            HeadConfig,
            "trusted",
            key="head_trusted",
            placeholder="is_checked, split=train or 20%",
        ),
        "trusted_label_column": config_field(
            HeadConfig, "trusted_label_column", key="head_trusted_labels"
        ),
    }
    nothing = not any(values.values())
    if nothing:
        missing.append(
            ConfigError(
                "no samples are trusted yet", next_step="name them, for example split=train"
            )
        )
    also = config_field(HeadConfig, "score_trusted", key="head_score_trusted")
    values["score_trusted"] = also or None
    return {} if nothing else {name: v for name, v in values.items() if v is not None}


def _file(missing: Missing) -> dict[str, Any]:
    path = config_field(
        HeadConfig, "file", key="head_file", placeholder="/runs/…/reference_head.safetensors"
    )
    if path is None:
        missing.append(ConfigError("no file is named yet", next_step="type its path"))
        return {}
    return {"file": path}
