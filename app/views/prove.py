"""Prove: does a recipe help? Training on what it keeps, against baselines, in words first."""

from __future__ import annotations

import streamlit as st

from app.components.prove.form import job_store, prefill, proof_form, proof_progress
from app.components.prove.verdict import proofs
from app.components.shared.errors import errors_shown
from app.components.shared.shell import nothing_yet
from app.shown import shown

st.title("Prove", anchor=False)
view = shown()
if view is None:
    nothing_yet(
        "Nothing to prove yet", "Score a pool first, then select.", icon=":material/balance:"
    )

st.caption(
    "Does a filter help? A fresh projection or head is trained on what each recipe keeps, on "
    "random subsets of the same size and on all samples, and judged on trusted samples that never "
    "train."
)
store = job_store()
prefill(store, view)
with st.container(border=True, key="prove_form"):
    if view.key.tuned is not None:
        st.warning(
            "These scores are tuned and not saved. Proofs are about runs: save them as a run on "
            "the Explore page, or reset them.",
            icon=":material/tune:",
        )
    else:
        proof_form(store, view)
with errors_shown():
    proof_progress(store, view)
    proofs(view)
