"""The form that turns a pool into a ``RunConfig``: reference model, mode and main settings."""

from __future__ import annotations

from typing import Any, get_args

import streamlit as st

from app.components.data.heads import head_form
from app.components.data.machine import options_form
from app.components.data.reference import reference_field
from app.components.shared.errors import Missing, missing_hint
from app.text import count
from mimic_core.base.config import (
    Method,
    Mode,
    Precision,
    ProbeConfig,
    RunConfig,
    SnapshotConfig,
    SourceConfig,
    Task,
    WeightingName,
    default_temperature,
)
from mimic_core.jobs.record import JobOptions

SEED_HELP = "Decides the batches and the fresh weights: the same seed gives the same scores."
TEMPERATURE_HELP = (
    "Divides the mimic scores before the softmax that weighs a batch. Lower trusts the best "
    "samples more; higher treats all alike. 0.05 did best on DataComp."
)
BATCH_HELP = (
    "Each sample is scored against the others of its batch, so larger batches separate better; "
    "256 and more is good. A pool with fewer samples is one batch."
)
EPOCHS_HELP = "Passes over the cached features. The score is the mean over them."
SIDE_HELP = (
    "Whose last projection starts fresh and learns. The image side is the default; the text side "
    "is an alternative view."
)
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
        reference = reference_field(missing)
        sample = st.number_input(
            "Sample size",
            min_value=1,
            value=None,
            placeholder="all samples",
            key="set_sample",
            help="Score only this many, drawn at random by the seed. Empty scores the whole pool.",
            persist_state="session",
        )
        options = options_form(task)
        model = {"reference": reference, **model_settings()}
    with right:
        mode: Mode = "probe"
        if task == "labels":
            model["head"] = head_form(missing)
        else:
            mode = _mode()
        scorer = _probe(task, reference) if mode == "probe" else _snapshot()
    _one_batch(scorer["batch_size"], int(sample) if sample else None, counted)
    if missing:
        missing_hint(missing)
        return None, options
    seed = scorer["seed"]
    pool = source.model_copy(update={"sample": sample, "sample_seed": seed if sample else 0})
    chosen = (ProbeConfig if mode == "probe" else SnapshotConfig).parse(scorer)
    config: RunConfig = RunConfig.parse({"source": pool, **model, mode: chosen})
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
        preprocess = st.selectbox(
            "Image preprocessing",
            [None, *NAMED_PREPROCESSING],
            format_func=lambda name: name or "the checkpoint's own",
            key="set_preprocess",
            help="A checkpoint that does not say how its images were prepared needs this.",
            persist_state="session",
        )
        precision = st.selectbox(
            "Precision",
            get_args(Precision),
            key="set_precision",
            help="Of the forward pass. bf16 is faster on accelerators; scores differ by some 3 %.",
            persist_state="session",
        )
    return {"preprocess": preprocess, "precision": precision}


def _number(label: str, key: str, default: Any, **options: Any) -> Any:
    options.setdefault("min_value", 1)
    return st.number_input(
        label, value=default, key=f"set_{key}", persist_state="session", **options
    )


def _probe(task: Task, reference: str) -> dict[str, Any]:
    plain = ProbeConfig()
    side = plain.side
    if task == "pairs":
        side = st.segmented_control(
            "Projection side",
            ["image", "text"],
            default=plain.side,
            required=True,
            key="set_side",
            help=SIDE_HELP,
            persist_state="session",
        )
    one, two = st.columns(2)
    with one:
        epochs = _number("Epochs", "epochs", plain.epochs, max_value=1000, help=EPOCHS_HELP)
    with two:
        batch = _number(
            "Batch size", "batch", plain.batch_size, min_value=2, max_value=65_536, help=BATCH_HELP
        )
    basic = {"side": side, "epochs": int(epochs), "batch_size": int(batch)}
    return basic | _common(default_temperature(reference)) | _training(task)


def _training(task: Task) -> dict[str, Any]:
    """How the fresh projection or head learns."""
    plain = ProbeConfig()
    with st.expander("Training settings", icon=":material/settings:"):
        one, two = st.columns(2)
        weighting = one.selectbox(
            "Weighting",
            PAIR_WEIGHTINGS if task == "pairs" else get_args(WeightingName),
            index=0 if task == "pairs" else 1,
            key=f"set_weighting_{task}",
            help="Mimic weights are Grad-Mimic; uniform is ordinary training, for comparison.",
            persist_state="session",
        )
        method = two.selectbox(
            "Score",
            get_args(Method),
            key="set_method",
            format_func=lambda name: {"proj": "projection", "cos": "cosine"}[name],
            help="The projection of the gradient on the task vector, or the cosine between them.",
            persist_state="session",
        )
        rate = one.number_input(
            "Learning rate",
            min_value=1e-8,
            value=plain.learning_rate,
            step=1e-4,
            format="%.3g",
            key="set_rate",
            help="AdamW's.",
            persist_state="session",
        )
        decay = two.number_input(
            "Weight decay",
            min_value=0.0,
            value=plain.weight_decay,
            step=1e-5,
            format="%.3g",
            key="set_decay",
            help="AdamW's.",
            persist_state="session",
        )
    return {
        "weighting": weighting,
        "method": method,
        "learning_rate": float(rate),
        "weight_decay": float(decay),
    }


def _snapshot() -> dict[str, Any]:
    plain = SnapshotConfig()
    model = st.text_input(
        "Model to score",
        key="set_model",
        placeholder="empty: the reference with its mimic layers started afresh",
        help="Same forms as the reference, and the same architecture.",
        persist_state="session",
    ).strip()
    layers = st.text_input(
        "Mimic layers",
        key="set_layers",
        placeholder="empty: last MLP projection of the image tower",
        help="Exact parameter names, separated by commas. The geometry is measured on these.",
        persist_state="session",
    )
    one, two = st.columns(2)
    with one:
        repeats = _number(
            "Repeats",
            "repeats",
            plain.repeats,
            max_value=10_000,
            help="Draw the batches this often; more than one gives each score a standard error.",
        )
    with two:
        batch = _number(
            "Batch size", "batch", plain.batch_size, min_value=2, max_value=65_536, help=BATCH_HELP
        )
    return {
        "model": model or None,
        "mimic_layers": tuple(name.strip() for name in layers.split(",") if name.strip()),
        "repeats": int(repeats),
        "batch_size": int(batch),
        **_common(0.05),
    }


def _common(temperature: float) -> dict[str, Any]:
    one, two = st.columns(2)
    with one:
        chosen = _number(
            "Temperature",
            "temperature" if temperature == 0.05 else "temperature_timm",
            temperature,
            min_value=0.0001,
            step=0.01,
            format="%.4g",
            help=TEMPERATURE_HELP,
        )
    with two:
        seed = _number("Seed", "seed", 0, min_value=0, help=SEED_HELP)
    return {"temperature": float(chosen), "seed": int(seed)}
