"""The top of Explore: what is shown, how many are kept, whether the direction is sound."""

from __future__ import annotations

from typing import Literal

import polars as pl
import streamlit as st

from app.cache import tables
from app.components.shared.conditions import kept_metrics
from app.components.shared.shell import (
    model_title,
    pool_title,
    reference_title,
    sample_counts,
    theme,
)
from app.drawing import explore
from app.shown import Shown
from app.state import session
from app.text import count, number, plain
from mimic_core.base.config import Mode, ProbeConfig
from mimic_core.runs.record import CheckLevel, DirectionCheck
from mimic_core.runs.run import Run

_MODES: dict[Mode, str] = {
    "probe": ":material/bolt:",
    "snapshot": ":material/photo_camera:",
    "training": ":material/model_training:",
}
LARGER = 4  # a larger batch is so many times the run's, and at least the default
_REWEIGHTED = {"layers": "the mimic layers", "all": "all parameters"}
_LEVELS: dict[CheckLevel, tuple[str, Literal["green", "orange", "red", "gray"], str]] = {
    "good": (":material/check_circle:", "green", "Direction good"),
    "caution": (":material/warning:", "orange", "Direction: caution"),
    "bad": (":material/dangerous:", "red", "Direction bad"),
    "unknown": (":material/help:", "gray", "Direction not known"),
}


def header(shown: Shown) -> None:
    """Pool, size, mode and reference in two lines."""
    with st.container(key="heading"):
        _heading(shown)


def _heading(shown: Shown) -> None:
    record = shown.run.record
    config = record.config
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.title(plain(pool_title(shown.run)), anchor=False, width="content")
        st.badge(config.mode, icon=_MODES[config.mode])
        if shown.key.tuned is not None:  # the direction check was of other scores
            st.badge("tuned, not saved", icon=":material/tune:", color="orange")
        elif record.direction_check is not None:
            level = record.direction_check.level_of(record.epochs_used)
            icon, colour, label = _LEVELS[level]
            st.badge(label, icon=icon, color=colour)
    used = record.epochs_used
    parts = [
        *([] if used is None else [f"the first {used} of {record.epochs} epochs are used"]),
        *sample_counts(shown),
        f"{count(record.skipped)} skipped",
        *_training_facts(shown.run),
        f"reference model {plain(reference_title(shown.run))}",
        f"mimic layers {plain(', '.join(tables.mimic_layers(shown.key))) or '–'}",
    ]
    if record.reference_head is not None:
        parts.append(f"reference head {plain(record.reference_head.as_sentence())}")
    st.caption(" · ".join(parts))
    if record.reference_head is not None and record.reference_head.warning is not None:
        warning = record.reference_head.warning
        st.warning(plain(f"{warning[0].upper()}{warning[1:]}."), icon=":material/warning:")


def _training_facts(run: Run) -> list[str]:
    """What sets a training run apart: nothing of the others."""
    training = run.record.config.training
    if training is None:
        return []
    held = run.record.held_out
    weights = "" if training.weighting == "uniform" else f" on {_REWEIGHTED[training.reweight]}"
    return [
        *([f"{count(held)} held out"] if held else []),
        f"{count(run.record.epochs)} epochs",
        f"weighting {plain(training.weighting)}{weights}",
        f"from {plain(model_title(training.model))}",
    ]


def metrics(shown: Shown) -> None:
    """Counts of the selection, and how clean it is where the noisy samples are known."""
    with st.container(horizontal=True, gap="medium", horizontal_alignment="right", key="metrics"):
        kept_metrics(shown)
        if shown.truth is not None:
            _truth_metrics(shown, shown.truth)


def _truth_metrics(shown: Shown, truth: str) -> None:
    noisy = int(shown.table[truth].sum())
    left = int(shown.table[truth].filter(pl.Series(shown.selected)).sum())
    found = tables.auroc(shown.key, truth)
    st.metric(
        "Noisy kept",
        f"{count(left)} of {count(noisy)}",
        help=f"Known from the pool's column {plain(truth)}.",
        width="content",
    )
    st.metric(
        "AUROC",
        number(found),
        help="How well the mimic score alone tells noisy samples from clean ones: 0.5 is chance, "
        "1 is perfect.",
        width="content",
    )


def direction(shown: Shown) -> None:
    """The verdict of the direction check, with its figures one click away.

    It is made with the run, so tuned scores have none of their own: it is said whose it is.
    """
    check = shown.run.record.direction_check
    whose = "" if shown.key.tuned is None else "Of the saved settings, not of the tuned ones: "
    if check is None:
        st.info("This run carries no direction check.", icon=":material/help:")
        return
    with st.container(horizontal=True):
        _offer(shown.run, check)
        if shown.key.tuned is None:
            _offer_batch(shown.run, check)
    _verdict(check, whose)


@st.fragment
def _verdict(check: DirectionCheck, whose: str) -> None:
    """The verdict; its figures are made once somebody opens it."""
    icon, colour, _ = _LEVELS[check.level]
    label = f":{colour}[{icon}] **{plain(whose + check.verdict)}**"
    opened = st.expander(label, key="direction", on_change="rerun")
    if opened.open:
        with opened:
            _figures(check)


def _figures(check: DirectionCheck) -> None:
    chart, facts = st.columns([3, 2], vertical_alignment="center")
    chart.plotly_chart(
        explore.segment_figure(check.segment, theme()),
        key="segment",
        config={"displayModeBar": False},
        alt="Mean loss on the way from the model to the reference model",
    )
    with facts:
        st.metric(
            "Expected AUROC",
            number(check.figure),
            help="For wrong labels or captions, from samples that were scored again with one "
            "that is wrong on purpose: 0.5 is chance, 1 is perfect.",
        )
        st.metric("Samples with a positive score", f"{100 * check.share_positive:.1f} %")
        st.metric("Rank agreement with CLIP score", number(check.rank_with_clip_score))
        st.metric("Rank agreement with loss", number(check.rank_with_loss))
    if len(check.epochs) > 1:
        _epochs(check)
    if check.sweep:
        st.caption("Candidate mimic layers on a small part of the pool")
        st.dataframe(
            pl.DataFrame(
                [
                    {
                        "mimic layers": ", ".join(one.mimic_layers),
                        "samples": one.samples,
                        "share positive": one.share_positive,
                        "rank with CLIP score": one.rank_with_clip_score,
                        "rank with loss": one.rank_with_loss,
                        "mean score": one.mean_score,
                    }
                    for one in check.sweep
                ]
            ),
            hide_index=True,
        )


def _epochs(check: DirectionCheck) -> None:
    """The figure of every epoch, and what the means over the first epochs would be worth."""
    st.caption("Expected AUROC of every epoch, and of the mean up to it")
    st.dataframe(
        pl.DataFrame(
            [
                {
                    "epoch": one.epoch + 1,
                    "expected AUROC": one.figure,
                    "of the mean so far": one.figure_until,
                    "level of that mean": one.level_until,
                    "rank with loss": one.rank_with_loss,
                    "rank with reference": one.rank_with_reference,
                }
                for one in check.epochs
            ]
        ),
        hide_index=True,
        key="direction_epochs",
    )


def _offer(run: Run, check: DirectionCheck) -> None:
    """A click that leaves out the epochs whose scores no longer tell right from wrong, or takes
    them back.
    """
    used, offered = run.record.epochs_used, check.use_epochs
    if used is not None:
        if st.button("Use all epochs", icon=":material/undo:", key="use_all_epochs"):
            run.use_epochs(None)
            st.rerun()
    elif offered is not None:
        which = "epoch 1" if offered == 1 else f"epochs 1–{offered}"
        if st.button(f"Use {which} only", icon=":material/content_cut:", key="use_first_epochs"):
            run.use_epochs(offered)
            st.rerun()


def _offer_batch(run: Run, check: DirectionCheck) -> None:
    """A click that asks the live tuning for a larger batch, where that is what the verdict says."""
    probe = run.record.config.probe
    if probe is None or (check.turns_at is None and check.use_epochs is None):
        return
    larger = min(max(LARGER * probe.batch_size, ProbeConfig().batch_size), run.record.samples)
    if larger > probe.batch_size:
        st.button(
            f"Try batch {count(larger)}",
            key="try_larger_batch",
            icon=":material/tune:",
            help="Scores again from the cached features, as the controls under Tune do. Saved as a "
            "run, these scores are checked too.",
            on_click=session.change,
            kwargs={"asked": probe.model_copy(update={"batch_size": larger})},
        )
