"""Choosing the reference model."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from app.components.shared.errors import Missing
from app.library import DEMO_REFERENCE, tidy_path
from mimic_core.base.config import RunConfig
from mimic_core.base.errors import ConfigError
from mimic_core.base.fields import setting

_Reference = Literal[
    "Demo reference", "open_clip", "Folder or checkpoint", "timm (labels only)", "Random weights"
]
_REFERENCES: tuple[_Reference, ...] = (
    "Demo reference",
    "open_clip",
    "Folder or checkpoint",
    "timm (labels only)",
    "Random weights",
)


def reference_field(missing: Missing) -> str:
    """The specification of the chosen model; empty, and in ``missing``, while none is named."""
    one = setting(RunConfig, "reference")
    kind = st.selectbox(
        one.title,
        _REFERENCES,
        key="set_reference",
        help=one.description,
        persist_state="session",
    )
    if kind == "Demo reference":
        return tidy_path(DEMO_REFERENCE)
    labels = {
        "open_clip": ("Architecture and weights", "ViT-B-32:laion2b_s34b_b79k"),
        "Folder or checkpoint": ("Model folder, or ARCH:FILE", "ViT-B-32:/weights/epoch_32.pt"),
        "timm (labels only)": ("timm:ARCH:TAG or timm:ARCH:FILE", "timm:resnet18:a1_in1k"),
        "Random weights": ("Architecture and seed", "ViT-B-32:random:0"),
    }
    label, example = labels[kind]
    text = st.text_input(
        label, key=f"set_{kind}", placeholder=example, persist_state="session"
    ).strip()
    if not text:
        missing.append(
            ConfigError(
                "no reference model is named yet", next_step=f"type it, for example {example}"
            )
        )
    return text
