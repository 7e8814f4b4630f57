"""The part of the training form about passes, held-out samples, the optimiser and the machine."""

from __future__ import annotations

from typing import Any, get_args

import streamlit as st

from app.components.data.machine import device_field
from app.components.shared.errors import Missing
from app.components.train.fields import Columns, condition_field, number, switch, text
from mimic_core.base.config import Optimiser, Schedule, TrainConfig
from mimic_core.jobs.record import JobOptions

_PLAIN = TrainConfig(model="")
HELD_OUT, BATCH = 0.2, 64
_OPTIMISERS: dict[Optimiser, str] = {"adamw": "AdamW", "sgd": "SGD with momentum"}
_SCHEDULES: dict[Schedule, str] = {"constant": "constant", "cosine": "cosine, to zero"}


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
    with one:
        epochs = number(
            "Epochs", "epochs", _PLAIN.epochs, least=1, most=10_000, help_text="Visits of a sample."
        )
        # Its own field for each kind of start, so that each keeps what was typed.
        learning = number(
            "Learning rate",
            "rate_fresh" if rate else "rate",
            rate or _PLAIN.learning_rate,
            least=1e-8,
            step=1e-4,
            form="%.3g",
            help_text="At its peak. Given weights want less than fresh ones.",
        )
    with two:
        batch = number(
            "Batch size",
            "batch",
            BATCH,
            least=2,
            most=65_536,
            help_text="Pairs are compared within their batch, and weights sum to 1 over it.",
        )
        seed = number(
            "Seed",
            "seed",
            _PLAIN.seed,
            help_text="Decides sample, held-out share and batches. Compare runs of equal seeds.",
        )
    flip = switch(
        "Mirror half of the images",
        "flip",
        help_text="Which ones changes from epoch to epoch, by the seed. The only augmentation.",
    )
    return {
        "epochs": int(epochs),
        "batch_size": int(batch),
        "learning_rate": float(learning),
        "seed": int(seed),
        "flip": flip,
    }


def _held_out(columns: Columns, missing: Missing, *, labelled: bool) -> dict[str, Any]:
    share = number(
        "Held-out share",
        "held_out",
        HELD_OUT,
        least=0.0,
        most=0.95,
        step=0.05,
        form="%.2f",
        help_text="Never trained on, and measured after every epoch. Drawn by image and seed: all "
        "captions of an image are on one side.",
    )
    column = condition_field(
        "Held-out column",
        "held",
        columns,
        missing,
        help_text="Holds out the samples with a value in that column, beside the share.",
    )
    if not share and column is None:
        st.caption("Nothing is held out: only the training loss can be shown.")
    held: dict[str, Any] = {"held_out": float(share), "held_out_column": column}
    if labelled and (share or column):
        judges = text(
            "Held-out labels",
            "held_labels",
            placeholder="empty: the pool's label",
            help_text="The column whose labels judge held-out images, where the pool's are noisy.",
        )
        held["held_out_label_column"] = judges or None
    return held


def optimiser_form() -> dict[str, Any]:
    """How gradients become updates."""
    one, two = st.columns(2)
    optimiser = one.selectbox(
        "Optimiser",
        get_args(Optimiser),
        format_func=lambda name: _OPTIMISERS[name],
        key="train_optimiser",
        persist_state="session",
    )
    schedule = two.selectbox(
        "Schedule",
        get_args(Schedule),
        format_func=lambda name: _SCHEDULES[name],
        key="train_schedule",
        help="Of the learning rate, after the warm-up.",
        persist_state="session",
    )
    settings: dict[str, Any] = {"optimiser": optimiser, "schedule": schedule}
    with one:
        settings["warmup_steps"] = number(
            "Warm-up updates", "warmup", 0, help_text="The rate rises linearly over these."
        )
        settings["clip_norm"] = number(
            "Gradient norm at most",
            "clip",
            None,
            least=1e-6,
            step=0.5,
            form="%.3g",
            placeholder="no limit",
            help_text="Longer gradients are scaled down to this.",
        )
        if optimiser == "sgd":
            settings["momentum"] = number(
                "Momentum", "momentum", _PLAIN.momentum, least=0.0, most=0.999, step=0.05
            )
    with two:
        settings |= _decay_and_steps()
    return settings


def _decay_and_steps() -> dict[str, Any]:
    decay = number(
        "Weight decay",
        "decay",
        _PLAIN.weight_decay,
        least=0.0,
        step=1e-5,
        form="%.3g",
        help_text="Of matrices; vectors and scalars do not decay.",
    )
    accumulate = number(
        "Batches per update", "accumulate", 1, least=1, help_text="Gradients are averaged."
    )
    every = number(
        "Evaluate every",
        "evaluate",
        None,
        least=1,
        step=1,
        placeholder="epoch",
        help_text="Updates after which the held-out samples are measured too.",
    )
    return {"weight_decay": decay, "accumulate": accumulate, "evaluate_every": every}


def machine_form() -> tuple[JobOptions, int | None, bool]:
    """How the job is carried out, how many samples are drawn (None: all), whether to compile."""
    one, two = st.columns(2)
    with one:
        size = number(
            "Sample size",
            "sample",
            None,
            least=2,
            step=1,
            placeholder="all samples",
            help_text="Use only this many, drawn at random by the seed.",
        )
    with two:
        device = device_field("train_device")
    with one:
        with_map = st.toggle(
            "Make the map",
            key="train_map",
            help="A 2-D picture of the pool, after training. It can be made later, too.",
            persist_state="session",
        )
    with two:
        compiled = switch(
            "Use torch.compile",
            "compile",
            help_text="Takes minutes at the start; time an epoch with and without.",
        )
    options = JobOptions(device=device, map=with_map)
    return options, None if size is None else int(size), compiled
