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


def head_form(missing: Missing) -> HeadConfig | None:
    """The chosen reference head; None leaves it to the model, or stands in ``missing``."""
    kind = st.segmented_control(
        "Reference head",
        list(_KINDS),
        default="From the model",
        required=True,
        key="head_kind",
        help="The head on the model's features that samples should pull towards.",
        persist_state="session",
    )
    st.caption(_KINDS[kind])
    form = {"From the model": _words, "Trusted samples": _trusted, "File": _file}[kind]
    values = form(missing)
    config: HeadConfig | None = HeadConfig.parse(values) if values else None
    return config


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
