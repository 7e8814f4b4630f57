"""The Prove page's form: which recipes, who is trusted, how much is trained; and its job."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import streamlit as st

from app.cache import tables
from app.components.prove.recipes import add_cutoff, add_saved, upload
from app.components.shared.controls import command_code, config_field
from app.components.shared.errors import empty_state, errors_shown
from app.components.shared.jobs import POLL_SECONDS, show_job
from app.library import runs_root, tidy_path
from app.shown import Shown
from app.state import session
from app.state.prove import (
    MAX_RECIPES,
    RESTORED,
    from_request,
    offered,
    preselected,
    recipe_file,
    request_of,
    uids_from,
)
from app.text import count, plain
from mimic_core.cli.commands import prove_command
from mimic_core.filters.recipe import Recipe
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.record import Job
from mimic_core.jobs.store import JOBS_FILE, JobStore
from mimic_core.jobs.worker import start_job
from mimic_core.proofs.record import ProofRequest
from mimic_core.proofs.settings import ProveConfig

_HELD_OUT_TYPES = ["txt", "csv", "parquet", "jsonl", "npy"]


def job_store() -> JobStore:
    """Where proofs are queued."""
    return JobStore(runs_root() / JOBS_FILE)


def proof_jobs(store: JobStore, shown: Shown) -> list[Job]:
    """Background proofs of this run, the one last heard of first."""
    found = [
        job
        for job in store.jobs()
        if isinstance(job.config, ProofRequest) and Path(job.config.run) == shown.run.path
    ]
    return sorted(found, key=lambda job: job.heartbeat, reverse=True)


def prefill(store: JobStore, shown: Shown) -> None:
    """A page seen for the first time goes on from the newest proof that was asked for."""
    if session.state().proving.compared is not None:
        return
    asked = [job.config for job in proof_jobs(store, shown)]
    last = asked[0] if asked else None
    filled = from_request(last) if isinstance(last, ProofRequest) else {"compared": ()}
    session.set_proving(**filled)


def proof_form(store: JobStore, shown: Shown) -> None:
    """Choose, and start."""
    recipes: dict[str, Recipe] = {}  # where reading them fails, its message is all there is
    trusted: str | None = None
    left, right = st.columns([3, 2], gap="large")
    with left, errors_shown():
        recipes = _recipes(shown)
    with right, errors_shown():
        trusted = _trusted(shown)
    if not recipes:
        return
    form = session.state().proving
    if trusted is None and form.file is None:
        st.caption("To start, choose what marks good samples, or give a held-out file.")
        return
    with errors_shown():
        request = request_of(form, recipes, shown.run, trusted)
        busy = any(job.active for job in proof_jobs(store, shown))
        if st.button(
            "Prove",
            key="prove_start",
            type="primary",
            icon=":material/balance:",
            disabled=busy or len(recipes) > MAX_RECIPES,
        ):
            start_job(store, request, JobOptions())
            session.set_proving(shown=None)
            st.rerun()
        _as_command(shown, request)


def _as_command(shown: Shown, request: ProofRequest) -> None:
    """The command that does the same, and the recipe files that it reads."""
    form = session.state().proving
    file = form.file[0] if form.file else None
    with st.expander("The same as a command", icon=":material/terminal:"):
        command_code(
            prove_command(
                request,
                shown.run,
                runs=tidy_path(shown.run.path.parent),
                recipes=[recipe_file(name) for name, _ in request.recipes],
                held_out=file,
            )
        )
        with st.container(horizontal=True):
            for name, recipe in request.recipes:
                st.download_button(
                    recipe_file(name),
                    data=recipe.to_yaml(),
                    file_name=recipe_file(name),
                    mime="application/yaml",
                    key=f"prove_recipe_{name}",
                    icon=":material/download:",
                    type="tertiary",
                    on_click="ignore",
                )
            if file == RESTORED and form.file is not None:
                st.download_button(
                    file,
                    data="\n".join(form.file[1]) + "\n",
                    file_name=file,
                    mime="text/plain",
                    key="prove_held_out_uids",
                    icon=":material/download:",
                    type="tertiary",
                    on_click="ignore",
                )


def _recipes(shown: Shown) -> dict[str, Recipe]:
    """The recipes to be proved, chosen from those on offer."""
    form = session.state().proving
    st.markdown("**Recipes**")
    found, kept = offered(form, shown.recipe), {}
    for name, recipe in found.items():
        with errors_shown():  # one brought along from another run may not fit this one
            kept[name] = tables.selection(shown.key, recipe.to_yaml()).kept
    found = {name: found[name] for name in kept}
    if not found:
        st.caption("Select something on Explore or Filters, bring a saved recipe, or add a cutoff.")
    chosen = [name for name in found if name not in form.left_out]

    def choose() -> None:
        picked = session.value("prove_recipes") or []
        session.set_proving(left_out=tuple(name for name in found if name not in picked))

    if found:
        st.pills(
            "Recipes to compare",
            list(found),
            selection_mode="multi",
            key=session.bind("prove_recipes", chosen),
            on_change=choose,
            format_func=lambda name: plain(f"{name} · keeps {count(kept[name])}"),
            label_visibility="collapsed",
            wrap=True,
        )
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.popover("Add a cutoff", icon=":material/add:", type="tertiary"):
            add_cutoff(shown)
        with st.popover("Saved recipes", icon=":material/bookmarks:", type="tertiary"):
            add_saved()
        with st.popover("Upload recipes", icon=":material/upload_file:", type="tertiary"):
            upload(shown)
        if form.compared:
            st.button(
                "Remove all",
                key="prove_clear",
                icon=":material/close:",
                type="tertiary",
                on_click=session.set_proving,
                kwargs={"compared": (), "left_out": ()},
            )
    if len(chosen) > MAX_RECIPES:
        st.warning(f"At most {MAX_RECIPES} recipes at a time; choose fewer.")
    return {name: found[name] for name in chosen}


def _trusted(shown: Shown) -> str | None:
    """Who judges, how much is trained."""
    form = session.state().proving
    st.markdown(
        "**Trusted samples**",
        help="Samples that are known to be good. A share of them (Settings), or a whole held-out "
        "file, judges all arms and never trains, and neither do its duplicates.",
    )
    candidates = tables.trusted(shown.key)
    chosen = preselected(candidates, form.trusted)
    if form.file is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"{plain(form.file[0])}: {count(len(form.file[1]))} uids")
            st.button(
                "Use a column instead",
                key="prove_no_file",
                type="tertiary",
                on_click=session.set_proving,
                kwargs={"file": None},
            )
    elif candidates:
        st.selectbox(
            "Marked as good by",
            candidates,
            index=None,
            placeholder="Choose what marks good samples",
            key=session.bind("prove_trusted", chosen),
            on_change=_stored("prove_trusted", "trusted"),
            label_visibility="collapsed",
        )
    else:
        empty_state(
            "No column marks good samples",
            "Upload a file with the uids of samples that you trust.",
            icon=":material/verified:",
        )
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.popover("Held-out file", icon=":material/upload_file:", type="tertiary"):
            _held_out_file()
        with st.popover("Settings", icon=":material/tune:", type="tertiary"):
            _settings()
    return chosen


def _held_out_file() -> None:
    found = st.file_uploader("uids that judge", type=_HELD_OUT_TYPES, key="prove_held_out")
    form = session.state().proving
    if found is None or found.file_id in form.taken:
        return
    with errors_shown(), tempfile.TemporaryDirectory() as folder:
        uids = uids_from(found.name, found.getvalue(), Path(folder))
        session.set_proving(file=(found.name, uids), taken=(*form.taken, found.file_id))
        st.rerun()


def _settings() -> None:
    form = session.state().proving
    for field, name in [
        ("held_out_share", "share"),
        ("seeds", "seeds"),
        ("steps", "steps"),
        ("margin", "margin"),
    ]:
        config_field(
            ProveConfig,
            field,
            key=session.bind(f"prove_{name}", getattr(form, name)),
            percent=field in ("held_out_share", "margin"),
            on_change=_stored(f"prove_{name}", name),
        )
    config_field(
        ProveConfig,
        "detect",
        key=session.bind("prove_detect", form.detect),
        value=None,
        placeholder="that of the margin",
        on_change=_stored("prove_detect", "detect"),
    )


def _stored(key: str, field: str) -> Callable[[], None]:
    """A callback that stores what the widget of that key holds."""

    def store() -> None:
        session.set_proving(**{field: session.value(key)})

    return store


def proof_progress(store: JobStore, shown: Shown) -> None:
    """Proofs under way, refreshed every second; the last one also if it went wrong."""
    found = proof_jobs(store, shown)
    if any(job.active for job in found):
        st.fragment(run_every=POLL_SECONDS)(_poll)(store, shown)
    elif found and found[0].status != "done":
        _card(store, found[0])


def _poll(store: JobStore, shown: Shown) -> None:
    with errors_shown():  # a fragment runs outside of the page's own
        active = [job for job in proof_jobs(store, shown) if job.active]
        if not active:
            st.rerun()  # the whole page, which then shows the result
        for job in active:
            _card(store, job)


def _card(store: JobStore, job: Job) -> None:
    with st.container(border=True, key=f"proof-{job.job_id}"), errors_shown():
        show_job(store, job)
