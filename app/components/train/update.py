"""The part of the training form about passes, held-out samples, the optimiser and the machine."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.components.data.machine import device_field, epochs_used_field
from app.components.shared.controls import config_field
from app.components.shared.errors import Missing
from app.components.train.fields import Columns, condition_field, training_field
from mimic_core.base.config import SourceConfig, TrainConfig
from mimic_core.jobs.options import JobOptions

HELD_OUT, BATCH = 0.2, 64


def passes_form(
    columns: Columns, missing: Missing, *, rate: float | None, labelled: bool
) -> dict[str, Any]:
    """Epochs, batches, learning rate, seed, and what is held out.

    Args:
        columns: The pool's columns.
        missing: Takes what is not complete yet.
        rate: The learning rate that is proposed; None is the training's own default.
        labelled: Whether the pool has labels instead of captions.
    """
    return _passes(rate) | _held_out(columns, missing, labelled=labelled)


def _passes(rate: float | None) -> dict[str, Any]:
    one, two = st.columns(2)
    # The learning rate has its own field for each kind of start, so that each keeps what was typed.
    key = "rate_fresh" if rate else "rate"
    usual = rate or TrainConfig(model="").learning_rate
    return {
        "epochs": training_field("epochs", place=one),
        "learning_rate": training_field("learning_rate", key=key, place=one, value=usual),
        "batch_size": training_field("batch_size", key="batch", place=two, value=BATCH),
        "seed": training_field("seed", place=two),
        "flip": training_field("flip"),
    }


def _held_out(columns: Columns, missing: Missing, *, labelled: bool) -> dict[str, Any]:
    share = training_field("held_out", value=HELD_OUT)
    column = condition_field("held_out_column", "held", columns, missing)
    if not share and column is None:
        st.caption("Nothing is held out: only the training loss can be shown.")
    held: dict[str, Any] = {"held_out": share, "held_out_column": column}
    if labelled and (share or column):
        held["held_out_label_column"] = training_field("held_out_label_column", key="held_labels")
    return held


def optimiser_form() -> dict[str, Any]:
    """How gradients become updates."""
    one, two = st.columns(2)
    settings: dict[str, Any] = {
        "optimiser": training_field("optimiser", place=one),
        "schedule": training_field("schedule", place=two),
        "warmup_steps": training_field("warmup_steps", key="warmup", place=one),
        "clip_norm": training_field("clip_norm", key="clip", place=one),
        "weight_decay": training_field("weight_decay", key="decay", place=two),
        "accumulate": training_field("accumulate", place=two),
        "evaluate_every": training_field("evaluate_every", key="evaluate", place=two),
    }
    if settings["optimiser"] == "sgd":
        settings["momentum"] = training_field("momentum", place=one)
    return settings


def machine_form() -> tuple[JobOptions, int | None, bool]:
    """How the job is carried out, how many samples are drawn (None: all), whether to compile."""
    one, two = st.columns(2)
    size = config_field(SourceConfig, "sample", key="train_sample", place=one, min_value=2)
    with two:
        device = device_field("train_device")
    with_map = config_field(JobOptions, "map", key="train_map", place=one)
    compiled = training_field("compile", place=two)
    used = epochs_used_field("train_epochs_used")
    return JobOptions(device=device, map=with_map, epochs_used=used), size, compiled
