"""A proof on the screen: the verdict in words first, then figures, then the table."""

from __future__ import annotations

from typing import Literal

import polars as pl
import streamlit as st

from app.cache import tables
from app.components.shared.errors import empty_state, show_failure
from app.components.shared.shell import theme
from app.drawing import prove
from app.shown import Shown
from app.state import session
from app.text import plain
from mimic_core.proofs.power import suggested_steps
from mimic_core.proofs.record import Comparison, Outcome, Proof, stored_proofs
from mimic_core.proofs.words import (
    as_lines,
    asked_about,
    held_out_text,
    interval_text,
    power_text,
    recipe_text,
    settings_text,
    steps_text,
    times_seen,
)

_LOOKS: dict[Outcome, tuple[str, Literal["green", "orange", "gray", "blue"]]] = {
    "better": (":material/check_circle:", "green"),
    "not_worse": (":material/check:", "blue"),
    "worse": (":material/warning:", "orange"),
    "open": (":material/help:", "gray"),
}


def proofs(shown: Shown) -> None:
    """The proof on show, and a way to the others of this run."""
    found, damaged = stored_proofs(shown.run.path, reader=tables.proof_at)
    for error in damaged:
        show_failure(error.problem, got=error.got, allowed=error.allowed, next_step=error.next_step)
    if not found:
        empty_state(
            "Nothing proved yet",
            "Choose recipes and trusted samples, then start. Every recipe is trained on, and so "
            "are random subsets of its size and all samples.",
            icon=":material/balance:",
        )
        return
    by_id = {proof.proof_id: proof for proof in found}
    wanted = session.state().proving.shown
    current = wanted if wanted in by_id else found[0].proof_id
    if len(found) > 1:
        st.selectbox(
            "Proof",
            list(by_id),
            key=session.bind("prove_shown", current),
            on_change=lambda: session.set_proving(shown=session.value("prove_shown")),
            format_func=lambda one: _label(by_id[one]),
            help="Proofs of this run, newest first.",
        )
    show_proof(by_id[current])


def _label(proof: Proof) -> str:
    """Names may be equal, what they keep may not; the id tells apart what only settings do."""
    names = ", ".join(f"{recipe.name} ({recipe.kept:,})" for recipe in proof.recipes)
    judged = proof.config.trusted or proof.held_out.source
    settings = f"{proof.config.seeds} seeds, {proof.config.steps} steps"
    return f"{names} · {judged} · {settings} · {proof.proof_id[:6]}"


def show_proof(proof: Proof) -> None:
    """Words, figures, table, downloads."""
    with st.container(border=True, key="verdict"):
        st.subheader("Verdict", anchor=False)
        for sentence, outcome in _sentences(proof):
            icon, colour = _LOOKS[outcome]
            st.markdown(f":{colour}[{icon}] {plain(sentence)}")
        for recipe in proof.recipes:
            st.caption(plain(recipe_text(recipe)))
        st.caption(plain(held_out_text(proof.held_out)))
        st.caption(plain(settings_text(proof)))
        for note in proof.notes:
            st.caption(f":material/info: {plain(note)}")
        _power(proof)
    left, right = st.columns(2, gap="medium")
    with left, st.container(border=True, key="panel_differences"):
        st.markdown("**Differences, with intervals**")
        st.caption(
            "Left of zero is better; the grey band is what still is not worse. Each interval "
            f"stands for itself, while verdicts are corrected for all {len(proof.comparisons)} "
            "comparisons: a bar wholly left or right of zero may still show no difference."
        )
        _chart(prove.differences(proof, theme()), "differences", proof)
    with right, st.container(border=True, key="panel_levels"):
        st.markdown("**Every arm on the same held-out samples**")
        metrics = list(proof.arms[0].metrics)
        metric = st.selectbox("Metric", metrics, key="prove_metric", label_visibility="collapsed")
        _chart(prove.levels(proof, metric or metrics[0], theme()), "levels", proof)
    _tables(proof)
    _downloads(proof)


def _power(proof: Proof) -> None:
    """What more seeds or steps would tell, and a click that fills the form with them."""
    recipes = {recipe.name for recipe in proof.recipes}
    asked = asked_about(proof)
    first = [one for one in asked if one.second in recipes]
    for one in first:
        _seeds(proof, one)
    rest = [one for one in asked if one not in first]
    if rest:
        with st.expander("What more seeds would tell", icon=":material/troubleshoot:"):
            for one in rest:
                _seeds(proof, one)
    steps = suggested_steps(proof)
    for number, line in enumerate(steps_text(proof)):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(plain(line))
            if steps and not number:
                _fill(f"Set {steps:,} steps", key="prove_set_steps", steps=steps)


def _seeds(proof: Proof, one: Comparison) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(plain(power_text(proof, one)))
        seeds = one.power.seeds if one.power else None
        if seeds is not None and seeds > proof.config.seeds:
            key = f"prove_set_seeds_{one.first}_{one.second}"
            _fill(f"Set {seeds:,} seeds", key=key, seeds=seeds)


def _fill(label: str, *, key: str, **changes: int) -> None:
    st.button(
        label,
        key=key,
        icon=":material/edit:",
        type="tertiary",
        help="Fills the form above; nothing starts yet.",
        on_click=session.set_proving,
        kwargs=changes,
    )


def _sentences(proof: Proof) -> list[tuple[str, Outcome]]:
    """The verdict's sentences, each with the outcome that it tells first."""
    against = {(one.first, proof.arm(one.second).kind): one.outcome for one in proof.comparisons}
    recipes: list[Outcome] = [against[recipe.name, "all"] for recipe in proof.recipes]
    names = {recipe.name for recipe in proof.recipes}
    pairs = [one.outcome for one in proof.comparisons if one.second in names]
    return list(zip(proof.verdict, [*recipes, *pairs], strict=True))


def _chart(figure: object, key: str, proof: Proof) -> None:
    st.plotly_chart(
        figure,
        key=f"{key}_{proof.proof_id}",
        config={"displayModeBar": False},
        alt=f"{key.capitalize()} of the arms: {' '.join(proof.verdict)}",
    )


def _tables(proof: Proof) -> None:
    metrics = list(proof.arms[0].metrics)
    st.markdown("**Arms**")
    st.dataframe(
        pl.DataFrame(
            [
                {
                    "arm": arm.name,
                    "trained on": arm.trained,
                    "times seen": times_seen(proof, arm),
                    **{name: interval_text(arm.metrics[name], name) for name in metrics},
                }
                for arm in proof.arms
            ]
        ),
        hide_index=True,
        width="stretch",
        column_config={
            "trained on": st.column_config.NumberColumn(format="localized"),
            "times seen": st.column_config.NumberColumn(
                format="%.1f", help="How often each sample was trained on, on average."
            ),
        },
    )
    with st.expander("All comparisons, with p-values", icon=":material/table_rows:"):
        st.dataframe(
            pl.DataFrame(
                [
                    {
                        "comparison": one.text,
                        "outcome": one.outcome.replace("_", " "),
                        "p": one.p,
                        "p corrected": one.p_corrected,
                        "p not worse": one.p_not_worse,
                        "p not worse corrected": one.p_not_worse_corrected,
                    }
                    for one in proof.comparisons
                ]
            ),
            hide_index=True,
            width="stretch",
        )


def _downloads(proof: Proof) -> None:
    with st.container(horizontal=True):
        st.download_button(
            "Report",
            data="\n".join(as_lines(proof)) + "\n",
            file_name=f"proof-{proof.proof_id}.txt",
            key="prove_report",
            icon=":material/description:",
            on_click="ignore",
        )
        st.download_button(
            "JSON",
            data=proof.to_json(),
            file_name=f"{proof.proof_id}.json",
            mime="application/json",
            key="prove_json",
            icon=":material/data_object:",
            on_click="ignore",
        )
