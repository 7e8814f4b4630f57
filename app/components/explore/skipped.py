"""Which samples of the pool have no score, and why."""

from __future__ import annotations

import polars as pl
import streamlit as st

from app.shown import Shown
from app.text import count
from mimic_core.base.schema import SKIP_REASONS
from mimic_core.stats.histograms import category_counts

ROWS_SHOWN = 200


def skipped_samples(shown: Shown) -> None:
    """Counts by reason and the first samples; nothing when none was skipped."""
    skipped = shown.run.features.skipped
    if len(skipped):
        _skipped(skipped)


@st.fragment
def _skipped(skipped: pl.DataFrame) -> None:
    """The tables are made once somebody opens them."""
    label = f"{count(len(skipped))} samples were skipped"
    opened = st.expander(label, icon=":material/block:", key="skipped", on_change="rerun")
    if opened.open:
        with opened:
            _tables(skipped)


def _tables(skipped: pl.DataFrame) -> None:
    counts = category_counts(skipped["reason"])
    meaning = pl.col("value").replace_strict(SKIP_REASONS, default=None)
    st.dataframe(
        counts.select("count", reason="value", meaning=meaning),
        hide_index=True,
        width="stretch",
    )
    st.dataframe(skipped.head(ROWS_SHOWN), hide_index=True, width="stretch")
    if len(skipped) > ROWS_SHOWN:
        st.caption(f"the first {ROWS_SHOWN} of {count(len(skipped))}")
