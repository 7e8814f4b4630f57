"""Choosing the reference model."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from app.components.shared.errors import Missing
from app.library import DEMO_REFERENCE, tidy_path
from mimic_core.base.config import RunConfig
from mimic_core.base.errors import ConfigError
from mimic_core.base.fields import setting
from mimic_core.base.specification import OWN_FEATURES, OWN_MODULE

_Reference = Literal[
    "Demo reference",
    "open_clip",
    "Folder or checkpoint",
    "timm (labels only)",
    "Random weights",
    "Features of your own",
]
_OWN: _Reference = "Features of your own"
_REFERENCES: tuple[_Reference, ...] = (
    "Demo reference",
    "open_clip",
    "Folder or checkpoint",
    "timm (labels only)",
    "Random weights",
    "Features of your own",
)
_MODULES = (
    "A torch module of your own runs its code, so only the command line and Python take it: "
    "--reference MODULE.py:FUNCTION."
)


def reference_field(missing: Missing, *, features: bool) -> str:
    """The specification of the chosen model; empty, and in ``missing``, while none is named.

    Args:
        missing: What is not filled in yet.
        features: Whether features of the user's own can stand in the place of a model.
    """
    one = setting(RunConfig, "reference")
    kind = st.selectbox(
        one.title,
        _REFERENCES,
        key="set_reference",
        help=f"{one.description} {_MODULES}",
        persist_state="session",
    )
    if kind == "Demo reference":
        return tidy_path(DEMO_REFERENCE)
    if kind == _OWN and not features:
        missing.append(
            ConfigError(
                "training runs a model on the images, whose place no features can take",
                next_step="choose a model here, or score with these features on the page Data",
            )
        )
        return ""
    labels = {
        "open_clip": ("Architecture and weights", "ViT-B-32:laion2b_s34b_b79k"),
        "Folder or checkpoint": ("Model folder, or ARCH:FILE", "ViT-B-32:/weights/epoch_32.pt"),
        "timm (labels only)": ("timm:ARCH:TAG or timm:ARCH:FILE", "timm:resnet18:a1_in1k"),
        "Random weights": ("Architecture and seed", "ViT-B-32:random:0"),
        _OWN: ("Parquet or npy file of features, by uid", "/data/features.parquet"),
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
    if kind == _OWN and text:
        return f"{OWN_FEATURES}{text}"
    if OWN_MODULE.fullmatch(text):
        missing.append(
            ConfigError(
                "a module of your own runs its code, which this page does not",
                next_step=f"score or train with --reference {text} on the command line",
            )
        )
    return text
