"""Learning curves of the training runs of one pool, side by side; live while one is training."""

from __future__ import annotations

import streamlit as st

from app.components.shared.errors import empty_state, errors_shown
from app.components.shared.jobs import any_active
from app.components.shared.shell import theme
from app.drawing import learning
from app.drawing.learning import Curve
from app.drawing.training import MAX_CURVES, in_words, learning_curves
from app.shown import library
from app.state import session
from app.text import plain
from mimic_core.jobs.store import JobStore
from mimic_core.runs.run import Run

POLL_SECONDS = 2.0
_FIRST_SHOWN = 4


def curves_panel(store: JobStore) -> None:
    """The panel, drawn again every few seconds for as long as a training job is active."""
    if any_active(store, "training"):
        st.fragment(run_every=POLL_SECONDS)(_panel)()
    else:
        _panel()


def _panel() -> None:
    with errors_shown():
        pools = learning.by_pool(library().runs)
        if not pools:
            empty_state(
                "No learning curves yet",
                "They appear here with the first measurement of a training run.",
                icon=":material/show_chart:",
            )
            return
        runs = _chosen(pools)
        if not runs:
            st.caption("Choose at least one run.")
            return
        names = learning.names(runs)
        curves = [learning.curve(run, name) for run, name in zip(runs, names, strict=True)]
        if not learning.same_held_out(runs):
            st.warning(
                "These runs hold out different samples, so their held-out figures cannot be "
                "compared.",
                icon=":material/warning:",
            )
        _charts(curves)
        _figures(curves)


def _chosen(pools: dict[str, list[Run]]) -> list[Run]:
    one, two = st.columns([2, 3])
    pool = one.selectbox(
        "Pool",
        list(pools),
        format_func=learning.pool_label,
        key="curves_pool",
        help="Runs are compared on the same samples only.",
        persist_state="session",
    )
    runs = {run.id: run for run in pools.get(pool or "", [])}
    labels = dict(zip(runs, learning.names(list(runs.values())), strict=True))
    chosen = two.multiselect(
        "Training runs",
        list(runs),
        default=list(runs)[:_FIRST_SHOWN],
        format_func=lambda run_id: labels.get(run_id, run_id),
        max_selections=MAX_CURVES,
        key=f"curves_runs_{pool}",
        persist_state="session",
    )
    return [runs[run_id] for run_id in chosen if run_id in runs]


def _charts(curves: list[Curve]) -> None:
    shown = learning.measured(curves)
    for start in range(0, len(shown), 2):
        for place, column in zip(st.columns(2), shown[start : start + 2], strict=False):
            with place:
                st.markdown(f"**{learning.MEASURES[column].capitalize()}**")
                st.plotly_chart(
                    learning_curves(curves, column, theme()),
                    key=f"curve_{column}",
                    config={"displayModeBar": False},
                    alt=in_words(curves, column),
                )


def _figures(curves: list[Curve]) -> None:
    per_cent = st.column_config.NumberColumn(format="percent")
    shares = [label for name, label in learning.MEASURES.items() if learning.is_share(name)]
    st.dataframe(
        learning.table(curves),
        hide_index=True,
        key="curves_table",
        column_config=dict.fromkeys(shares, per_cent),
    )
    with st.container(horizontal=True):
        for one in curves:
            if one.done and st.button(
                f"Open {plain(one.name)}",
                key=f"explore-{one.run_id}",
                icon=":material/arrow_forward:",
                help="Look at its scores on the Explore page.",
            ):
                session.choose_run(one.run_id)
                st.switch_page("views/explore.py")
