"""The form that turns a pool into the configuration of a training run.

What does not apply to the other choices is not shown; what is shown has the training's own default,
except that fresh weights start with a higher learning rate than given ones.
"""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.cache.pools import Preview
from app.components.data.heads import head_form
from app.components.data.reference import reference_field
from app.components.data.settings import model_settings
from app.components.shared.errors import Missing
from app.components.train.fields import Columns, columns_of, condition_field, training_field
from app.components.train.update import machine_form, optimiser_form, passes_form
from mimic_core.base.config import (
    RunConfig,
    SourceConfig,
    TrainConfig,
    WeightingName,
)
from mimic_core.base.errors import ConfigError
from mimic_core.base.fields import setting
from mimic_core.base.specification import default_temperature, fresh_weights
from mimic_core.jobs.options import JobOptions

WEIGHTINGS: dict[WeightingName, tuple[str, str]] = {
    "mimic": ("Grad-Mimic", "softmax of the mimic score: who pulls towards the reference model"),
    "uniform": ("Uniform", "plain training, with the same logs: the baseline"),
    "grand": ("GraNd", "softmax of the gradient's norm: who moves the model most"),
    "agra": ("AGRA", "only those whose gradient goes with that of another batch"),
    "grad_match": ("Grad-Match", "the mix whose gradient comes closest to another batch's"),
    "grad_match_single": ("Grad-Match, one by one", "each gradient's best multiple for the mean"),
    "rho": ("Rho-loss", "softmax of loss minus reference loss: learnable, not yet learned"),
    "rho_attached": ("Rho-loss, attached", "the same with its weights differentiated as well"),
    "influence": ("Influence", "softmax of the score towards a few samples known to be clean"),
}
_WARM = frozenset[WeightingName](("mimic", "grand", "rho", "influence"))
_FRESH, _NAMED = "Fresh weights", "A model of your own"
FRESH_RATE = 1e-3


def training_form(source: SourceConfig, seen: Preview) -> tuple[RunConfig, JobOptions]:
    """Everything but the pool.

    Raises:
        ConfigError: The settings cannot be run as they are.
    """
    columns, labelled = columns_of(seen), seen.task == "labels"
    missing: Missing = []
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Models**")
        reference = reference_field(missing, features=False)
        model, fresh = _start(reference, missing)
        layers = _layers(labelled=labelled)
        head = head_form(missing) if labelled else None
        st.markdown("**Training**")
        update = passes_form(
            columns, missing, rate=FRESH_RATE if fresh else None, labelled=labelled
        )
    with right:
        st.markdown("**Weights of the samples**")
        trusted = head is not None and head.uses_trusted
        update |= _weights(columns, missing, reference, labelled=labelled, trusted=trusted)
        with st.expander("Optimiser", icon=":material/speed:"):
            update |= optimiser_form()
        with st.expander("Sample size, device and map", icon=":material/memory:"):
            options, size, compiled = machine_form()
        prepared = model_settings()
    if missing:
        raise missing[0]
    update |= {"model": model, "mimic_layers": layers, "compile": compiled}
    training = TrainConfig.parse(update)
    pool = source.model_copy(update={"sample": size, "sample_seed": training.seed})
    config: RunConfig = RunConfig.parse(
        {"source": pool, "reference": reference, "head": head, **prepared, "training": training}
    )
    config.require_epochs(options.epochs_used)
    return config, options


def _layers(*, labelled: bool) -> Any:
    where = "the classifier's head" if labelled else "last MLP projection of the image tower"
    return training_field("mimic_layers", key="layers", placeholder=f"empty: {where}")


def _start(reference: str, missing: Missing) -> tuple[str, bool]:
    """What training starts from, and whether its weights are fresh."""
    asked = setting(TrainConfig, "model")
    kind = st.segmented_control(
        asked.title,
        [_FRESH, _NAMED],
        default=_FRESH,
        required=True,
        key="train_start",
        help=asked.description,
        persist_state="session",
    )
    if kind == _NAMED:
        example = "ViT-B-32:datacomp_s_s13m_b4k"
        label = "Architecture and weights, or a folder"
        named = training_field("model", label=label, placeholder=example)
        if not named:
            missing.append(
                ConfigError(
                    "no model to train is named yet", next_step=f"type it, for example {example}"
                )
            )
        return named or "", False
    seed = st.number_input(
        "Seed of its weights",
        min_value=0,
        value=0,
        key="train_model_seed",
        help="Another seed, other weights.",
        persist_state="session",
    )
    model = fresh_weights(reference, seed)
    if model is None:
        missing.append(
            ConfigError(
                "the reference's name does not tell its architecture",
                got=reference,
                allowed="ARCH:WEIGHTS or a model folder, for fresh weights",
                next_step=f"choose {_NAMED} and name one, such as ViT-B-16-SigLIP:random:0",
            )
        )
        return "", True
    st.caption("The reference model's architecture, with random weights.")
    return model, True


def _weights(
    columns: Columns, missing: Missing, reference: str, *, labelled: bool, trusted: bool
) -> dict[str, Any]:
    weighting: WeightingName = st.radio(
        setting(TrainConfig, "weighting").title,
        list(WEIGHTINGS),
        format_func=lambda name: WEIGHTINGS[name][0],
        captions=[line for _, line in WEIGHTINGS.values()],
        key="train_weighting",
        persist_state="session",
    )
    chosen: dict[str, Any] = {"weighting": weighting}
    if weighting == "influence":
        chosen |= _clean(columns, missing, labelled=labelled, trusted=trusted)
    if weighting not in {"uniform", "rho_attached"}:  # those weigh all parameters
        chosen["reweight"] = training_field("reweight", segmented=True)
    one, two = st.columns(2)
    usual = f"{default_temperature(reference):g}"
    chosen["temperature"] = training_field("temperature", place=one, placeholder=usual)
    chosen["method"] = training_field("method", place=two)
    if weighting not in _WARM:
        st.caption("This weighting has no softmax; temperature and score shape the logs only.")
    return chosen


def _clean(columns: Columns, missing: Missing, *, labelled: bool, trusted: bool) -> dict[str, Any]:
    clean = condition_field("clean_column", "clean", columns, missing)
    if clean is None and trusted:
        st.caption("Without a column: the trusted samples of the reference head.")
    elif clean is None:
        missing.append(
            ConfigError(
                "influence needs samples known to be clean",
                allowed="a column of the pool and its value for clean samples"
                + (", or trusted samples for the reference head" if labelled else ""),
                next_step="choose the column, or another weighting",
            )
        )
    label = "Of each class" if labelled else "How many"
    each = training_field("clean_per_class", key="clean_count", label=label)
    return {"clean_column": clean, "clean_per_class": each}
