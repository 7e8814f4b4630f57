"""The form that turns a pool into a ``RunConfig``: reference model, mode and main settings."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.components.data.heads import head_form, projection_form
from app.components.data.machine import options_form
from app.components.data.reference import reference_field
from app.components.shared.controls import config_field
from app.components.shared.errors import Missing, missing_hint
from app.text import count
from mimic_core.base.config import (
    Mode,
    ProbeConfig,
    RunConfig,
    SnapshotConfig,
    SourceConfig,
    Task,
)
from mimic_core.base.specification import OWN_FEATURES, default_temperature
from mimic_core.jobs.options import JobOptions

PAIR_WEIGHTINGS = ("mimic", "uniform")  # of mimic_core.scoring.probe (torch)
NAMED_PREPROCESSING = (
    "openai",
    "imagenet",
    "siglip",
)  # of mimic_core.models.preprocessing (torch)
_MODES: dict[Mode, str] = {
    "probe": "**Probe**: one forward pass, then seconds; can be tuned live",
    "snapshot": "**Snapshot**: any model against any reference, at fixed weights",
}


def settings_form(
    source: SourceConfig, counted: int | None, task: Task
) -> tuple[RunConfig | None, JobOptions]:
    """Everything but the pool; None, and a hint, while something is not filled in yet.

    Args:
        source: The pool.
        counted: How many samples it holds; None where it was too large to be counted.
        task: What its images go with.

    Raises:
        ConfigError: The settings cannot be run as they are.
    """
    missing: Missing = []
    left, right = st.columns(2, gap="large")
    with left:
        reference = reference_field(missing, features=True)
        own = reference.startswith(OWN_FEATURES)
        sample = config_field(SourceConfig, "sample", key="set_sample")
        options = options_form(task)
        model = {"reference": reference, **model_settings()}
    with right:
        mode: Mode = "probe"
        if task == "labels":
            model["head"] = head_form(missing, from_model=not own)
        elif own:
            model["head"] = projection_form(missing)
        else:
            mode = _mode()
        scorer = _probe(task, reference) if mode == "probe" else _snapshot()
    _one_batch(scorer["batch_size"], sample, counted)
    if missing:
        missing_hint(missing)
        return None, options
    pool = source.model_copy(update={"sample": sample, "sample_seed": scorer["seed"]})
    chosen = (ProbeConfig if mode == "probe" else SnapshotConfig).parse(scorer)
    config: RunConfig = RunConfig.parse({"source": pool, **model, mode: chosen})
    config.require_epochs(options.epochs_used)
    return config, options


def _one_batch(batch_size: int, sample: int | None, counted: int | None) -> None:
    """Say so where the pool has fewer samples than a batch (``fitting_batch_size``)."""
    known = [size for size in (sample, counted) if size is not None]
    if known and batch_size > min(known):
        st.caption(
            f":material/info: The batch size is larger than the number of samples: all "
            f"{count(min(known))} are scored as one batch."
        )


def _mode() -> Mode:
    mode: Mode = st.radio(
        "Mode",
        list(_MODES),
        format_func=lambda mode: _MODES[mode],
        key="set_mode",
        persist_state="session",
    )
    return mode


def model_settings() -> dict[str, Any]:
    """How the reference model is run; the defaults are right for almost everyone."""
    with st.expander("Model settings", icon=":material/settings:"):
        preprocess = config_field(
            RunConfig, "preprocess", key="set_preprocess", options=[None, *NAMED_PREPROCESSING]
        )
        precision = config_field(RunConfig, "precision", key="set_precision")
    return {"preprocess": preprocess, "precision": precision}


def _probe(task: Task, reference: str) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    if task == "pairs":
        chosen["side"] = config_field(ProbeConfig, "side", key="set_side", segmented=True)
    one, two = st.columns(2)
    chosen["epochs"] = config_field(ProbeConfig, "epochs", key="set_epochs", place=one)
    chosen["batch_size"] = config_field(ProbeConfig, "batch_size", key="set_batch", place=two)
    return chosen | _common(default_temperature(reference)) | _training(task)


def _training(task: Task) -> dict[str, Any]:
    """How the fresh projection or head learns."""
    offered: dict[str, Any] = {"options": PAIR_WEIGHTINGS} if task == "pairs" else {}
    keys = {"weighting": f"weighting_{task}", "learning_rate": "rate", "weight_decay": "decay"}
    with st.expander("Training settings", icon=":material/settings:"):
        one, two = st.columns(2)
        return {
            name: config_field(
                ProbeConfig, name, key=f"set_{keys.get(name, name)}", place=place, **own
            )
            for place, name, own in [
                (one, "weighting", offered),
                (two, "method", {}),
                (one, "learning_rate", {}),
                (two, "weight_decay", {}),
            ]
        }


def _snapshot() -> dict[str, Any]:
    chosen = {
        "model": config_field(SnapshotConfig, "model", key="set_model"),
        "mimic_layers": config_field(SnapshotConfig, "mimic_layers", key="set_layers"),
    }
    one, two = st.columns(2)
    chosen["repeats"] = config_field(SnapshotConfig, "repeats", key="set_repeats", place=one)
    chosen["batch_size"] = config_field(SnapshotConfig, "batch_size", key="set_batch", place=two)
    return chosen | _common(0.05)


def _common(temperature: float) -> dict[str, Any]:
    one, two = st.columns(2)
    usual = ProbeConfig().temperature
    key = "set_temperature" if temperature == usual else "set_temperature_timm"
    return {
        "temperature": config_field(
            ProbeConfig, "temperature", key=key, place=one, value=temperature
        ),
        "seed": config_field(ProbeConfig, "seed", key="set_seed", place=two),
    }
