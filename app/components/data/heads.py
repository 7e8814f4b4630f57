"""The form that says where a labelled pool's reference head comes from."""

from __future__ import annotations

from typing import Any, Literal

import streamlit as st

from app.components.shared.errors import Missing
from mimic_core.base.config import HeadConfig
from mimic_core.base.errors import ConfigError

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


def _text(label: str, key: str, placeholder: str, help_text: str) -> str | None:
    text = st.text_input(
        label, key=key, placeholder=placeholder, help=help_text, persist_state="session"
    )
    return text.strip() or None if text else None


def _words(_: Missing) -> dict[str, Any]:
    prompts = st.text_area(
        "Prompts",
        key="head_prompts",
        placeholder="a photo of a {}",
        help="For CLIP models: words for a class, with {} for its name; one prompt a line, all "
        "are averaged.",
        height=80,
        persist_state="session",
    )
    given = tuple(line.strip() for line in (prompts or "").splitlines() if line.strip())
    return {"prompts": given} if given else {}


def _trusted(missing: Missing) -> dict[str, Any]:
    samples = _text(
        "Trusted samples",
        "head_trusted",
        "is_checked, split=train or 20%",
        "A column of true and false, COLUMN=VALUE, or a share drawn at random.",
    )
    labels = _text(
        "Column with their labels",
        "head_trusted_labels",
        "empty: the labels that are scored",
        "Where the trusted labels stand, if not in the label column.",
    )
    nothing = samples is None and labels is None
    if nothing:
        missing.append(
            ConfigError(
                "no samples are trusted yet", next_step="name them, for example split=train"
            )
        )
    also = st.toggle(
        "Use the trusted samples too",
        key="head_score_trusted",
        help="Without, they shape the reference head alone: they are neither scored nor trained "
        "on.",
        persist_state="session",
    )
    values = {"trusted": samples, "trusted_label_column": labels, "score_trusted": also or None}
    return {} if nothing else {name: v for name, v in values.items() if v is not None}


def _file(missing: Missing) -> dict[str, Any]:
    path = _text("File", "head_file", "/runs/…/reference_head.safetensors", "On this machine.")
    if path is None:
        missing.append(ConfigError("no file is named yet", next_step="type its path"))
        return {}
    return {"file": path}
