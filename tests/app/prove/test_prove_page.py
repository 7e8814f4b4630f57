"""The Prove page: what it offers, starts and shows, and that nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.drawing import prove as figures_prove
from app.drawing.colours import DARK, LIGHT
from app.state.prove import (
    PRESENT,
    RESTORED,
    ProveForm,
    from_request,
    offered,
    preselected,
    recipe_file,
    request_of,
    top_share,
    uids_from,
    with_recipe,
)
from mimic_core.filters.conditions import Percentile
from mimic_core.filters.library import save_recipe
from mimic_core.filters.recipe import Recipe
from mimic_core.jobs import worker
from mimic_core.jobs.options import JobOptions
from mimic_core.jobs.record import parse_config
from mimic_core.jobs.store import JOBS_FILE, JobStore
from mimic_core.proofs.power import suggested_steps
from mimic_core.proofs.prove import prove
from mimic_core.proofs.record import Proof, ProofRequest, is_share
from mimic_core.proofs.settings import ProveConfig
from mimic_core.proofs.words import power_text
from mimic_core.runs.run import Run
from tests.app.conftest import STATE, OpenApp
from tests.fakes import fake_run

NAME, TOP = top_share("mimic_score", 70)
QUICK = {"seeds": 2, "steps": 3, "resamples": 1000, "duplicate_cosine": 0.9999}


@pytest.fixture(scope="module")
def proved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Proof]:
    run = fake_run(tmp_path_factory.mktemp("proved"), n=300)
    config = ProveConfig.for_run(run.record.config, trusted="is_noisy=false", **QUICK)
    return run, prove(run, {NAME: TOP, "everything": Recipe()}, config)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ProofRequest]:
    """The requests whose workers would have been started."""
    found: list[ProofRequest] = []

    def launch(store: JobStore, job: worker.Job) -> None:
        assert isinstance(job.config, ProofRequest)
        found.append(job.config)

    monkeypatch.setattr("mimic_core.jobs.worker._launch", launch)
    return found


def texts(app: AppTest) -> str:
    return "\n".join(str(one.value) for one in [*app.markdown, *app.caption, *app.title])


def add_cutoff(app: AppTest, percent: int = 70) -> None:
    app.number_input(key="prove_percent").set_value(percent).run()
    app.button(key="prove_add").click().run()


# --- plain values ---


def test_the_selection_is_offered_only_when_it_selects() -> None:
    form = ProveForm(compared=(("saved", TOP.to_yaml()),))
    assert list(offered(form, Recipe())) == ["saved"]
    assert list(offered(form, TOP)) == [PRESENT, "saved"]
    assert offered(form, TOP)["saved"] == TOP


def test_a_recipe_of_the_same_name_is_replaced() -> None:
    one = with_recipe(None, "a", Recipe())
    two = with_recipe(with_recipe(one, "b", TOP), "a", TOP)
    assert two == (("b", TOP.to_yaml()), ("a", TOP.to_yaml()))


def test_a_share_is_a_percentile() -> None:
    assert NAME == "mimic score top 70 %"
    assert TOP.conditions[0].condition == Percentile(column="mimic_score", lower=30)
    assert recipe_file(NAME) == "mimic-score-top-70.yaml"


def test_the_form_asks_for_shares_where_it_shows_per_cent(run: Run) -> None:
    form = ProveForm(share=40.0, seeds=7, margin=0.7)
    request = request_of(form, {NAME: TOP}, run, "is_noisy=false")
    changed = {"held_out_share": 0.4, "seeds": 7, "margin": 0.007, "trusted": "is_noisy=false"}
    assert request.config == ProveConfig.for_run(run.record.config, **changed)
    by_file = ProveForm(file=("held.txt", ("a", "b")))
    request = request_of(by_file, {NAME: TOP}, run, "is_noisy=false")
    assert request.config.trusted is None
    assert request.held_out == ("a", "b")


def test_a_request_is_read_back_from_the_job_table(run: Run) -> None:
    request = request_of(ProveForm(), {NAME: TOP}, run, "is_noisy=false")
    assert parse_config(request.model_dump_json()) == request
    assert parse_config(run.record.config.model_dump_json()) == run.record.config
    filled = ProveForm(**from_request(request))
    assert filled == ProveForm(compared=((NAME, TOP.to_yaml()),), trusted="is_noisy=false")
    by_file = ProveForm(file=("mine.csv", ("a", "b")), share=40.0)
    filled = ProveForm(**from_request(request_of(by_file, {NAME: TOP}, run, "is_noisy=false")))
    assert (filled.file, filled.trusted) == ((RESTORED, ("a", "b")), None)
    assert filled.share == pytest.approx(40)


def test_only_a_known_truth_is_trusted_without_a_choice() -> None:
    offer = ["nsfw", "nsfw=false", "is_noisy=false", "noise_kind=clean"]
    assert preselected(offer, None) == "is_noisy=false"
    assert preselected(offer, "nsfw=false") == "nsfw=false"
    assert preselected(offer, "gone") == "is_noisy=false"
    assert preselected(["nsfw", "nsfw=false", "topic=beach"], None) is None


def test_uploaded_uids_are_read_whatever_the_name(tmp_path: Path) -> None:
    assert uids_from("../x/held.txt", b"b\na\n", tmp_path) == ("a", "b")
    assert [path.name for path in tmp_path.iterdir()] == ["uids.txt"]


def test_the_figures_hold_every_comparison_and_arm(proved: tuple[Run, Proof]) -> None:
    _, proof = proved
    for theme in (LIGHT, DARK):
        figure = figures_prove.differences(proof, theme)
        marks = [trace for trace in figure.data if trace.mode == "markers"]
        assert len(marks) == len(proof.comparisons) == 5
        shown = [trace.x[0] for trace in marks]
        assert shown == pytest.approx([100 * one.relative.value for one in proof.comparisons])
        for metric in proof.arms[0].metrics:
            levels = figures_prove.levels(proof, metric, theme)
            values = [trace.x[0] for trace in levels.data if trace.mode == "markers"]
            factor = 100 if is_share(metric) else 1
            expected = [factor * arm.metrics[metric].value for arm in proof.arms]
            assert values == pytest.approx(expected)


# --- the page ---


def test_without_a_run_the_page_says_what_to_do(tmp_path: Path, open_app: OpenApp) -> None:
    app = open_app(tmp_path, "prove")
    assert "Nothing to prove yet" in texts(app)


def test_without_a_recipe_it_says_how_to_get_one(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent, "prove")
    assert "Select something on Explore or Filters" in texts(app)
    assert "Nothing proved yet" in texts(app)
    assert not [one for one in app.button if one.key == "prove_start"]


def test_a_pool_that_marks_nobody_asks_for_a_file(tmp_path: Path, open_app: OpenApp) -> None:
    run = fake_run(tmp_path, n=20, truth=False)
    app = open_app(tmp_path, "prove", run.id)
    add_cutoff(app)
    found = [one for one in app.selectbox if one.key == "prove_trusted"]
    if not found:
        assert "No column marks good samples" in texts(app)
    else:
        assert all("topic=" in option for option in found[0].options)
        assert found[0].value is None
        assert "choose what marks good samples" in texts(app)
        assert not [one for one in app.button if one.key == "prove_start"]
        found[0].set_value(found[0].options[0]).run()
        assert app.selectbox(key="prove_trusted").value == found[0].options[0]
        assert app.button(key="prove_start")


def test_cutoffs_are_added_compared_and_started(
    tmp_path: Path, open_app: OpenApp, started: list[ProofRequest]
) -> None:
    run = fake_run(tmp_path, n=60)
    app = open_app(tmp_path, "prove")
    add_cutoff(app)
    add_cutoff(app, 40)
    assert app.selectbox(key="prove_trusted").value == "is_noisy=false"
    app.number_input(key="prove_seeds").set_value(3).run()
    assert "--seeds 3" in app.code[0].value
    app.button(key="prove_start").click().run()
    assert not app.exception
    (request,) = started
    assert [name for name, _ in request.recipes] == [NAME, "mimic score top 40 %"]
    assert (request.config.trusted, request.config.seeds) == ("is_noisy=false", 3)
    assert request.run == str(run.path)
    assert app.button(key="prove_start").disabled  # one at a time
    assert "· proof" in texts(app)


def test_a_recipe_is_left_out_by_a_click(
    tmp_path: Path, open_app: OpenApp, started: list[ProofRequest]
) -> None:
    fake_run(tmp_path, n=60)
    app = open_app(tmp_path, "prove")
    add_cutoff(app)
    add_cutoff(app, 40)
    app.get("button_group")[0].set_value(["mimic score top 40 %"]).run()  # type: ignore[attr-defined]
    app.button(key="prove_start").click().run()
    assert [name for name, _ in started[0].recipes] == ["mimic score top 40 %"]


def test_saved_recipes_are_added_by_a_click(tmp_path: Path, open_app: OpenApp) -> None:
    fake_run(tmp_path, n=60)
    save_recipe(tmp_path, "my filter", TOP)
    app = open_app(tmp_path, "prove")
    app.button(key="prove_saved_my-filter").click().run()
    assert app.session_state[STATE].proving.compared == (("my-filter", TOP.to_yaml()),)
    assert "--recipe my-filter.yaml" in app.code[0].value


def test_a_page_switch_loses_nothing(tmp_path: Path, open_app: OpenApp) -> None:
    fake_run(tmp_path, n=60)
    app = open_app(tmp_path, "prove")
    add_cutoff(app)
    app.number_input(key="prove_steps").set_value(250).run()
    app.number_input(key="prove_share").set_value(40.0).run()
    app.switch_page("views/export.py").run()
    app.switch_page("views/prove.py").run()
    assert app.number_input(key="prove_steps").value == 250
    assert app.number_input(key="prove_share").value == 40
    assert NAME.replace(" %", "") in json.dumps(app.session_state[STATE].proving.compared)


def test_a_refresh_goes_on_from_what_was_asked(
    tmp_path: Path, open_app: OpenApp, started: list[ProofRequest]
) -> None:
    fake_run(tmp_path, n=60)
    app = open_app(tmp_path, "prove")
    add_cutoff(app)
    app.button(key="prove_start").click().run()
    fresh = open_app(tmp_path, "prove")  # another session, as after a refresh
    assert fresh.session_state[STATE].proving.compared == ((NAME, TOP.to_yaml()),)
    assert "· proof" in texts(fresh)
    assert len(started) == 1


def test_a_proof_is_shown_in_words_first(proved: tuple[Run, Proof], open_app: OpenApp) -> None:
    run, proof = proved
    app = open_app(run.path.parent, "prove")
    said = texts(app).replace("\\", "")
    for sentence in proof.verdict:
        assert sentence in said
    assert "judge and never train" in said
    assert f"{NAME}: mimic score: top 70 % (keeps 210 of 300)" in said
    assert "corrected for all 5 comparisons: a bar wholly left or right of zero may" in said
    assert "times seen" in app.dataframe[0].value.columns
    assert not app.error
    app.selectbox(key="prove_metric").set_value("text to image recall@5").run()
    assert not app.exception


def test_recipes_that_cannot_be_read_are_one_message(
    run: Run, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "recipes")

    monkeypatch.setattr("app.components.prove.form._recipes", refuse)
    app = open_app(run.path.parent, "prove")
    (error,) = app.error
    assert "Permission denied" in error.value


def test_proofs_of_two_selections_are_told_apart(tmp_path: Path, open_app: OpenApp) -> None:
    run = fake_run(tmp_path, n=300)
    config = ProveConfig.for_run(run.record.config, trusted="is_noisy=false", **QUICK)
    for percent in (70, 60):
        prove(run, {PRESENT: top_share("mimic_score", percent)[1]}, config)
    app = open_app(tmp_path, "prove")
    labels = app.selectbox(key="prove_shown").options
    assert len(set(labels)) == 2
    assert sum(f"{PRESENT} (210)" in label for label in labels) == 1


def test_a_refresh_keeps_the_held_out_file(
    tmp_path: Path, open_app: OpenApp, started: list[ProofRequest]
) -> None:
    run = fake_run(tmp_path, n=60)
    uids = tuple(run.features.samples["uid"].head(30))
    request = request_of(ProveForm(file=("mine.txt", uids)), {NAME: TOP}, run, None)
    store = JobStore(tmp_path / JOBS_FILE)
    worker.start_job(store, request, JobOptions())
    app = open_app(tmp_path, "prove")
    assert f"{RESTORED}: 30 uids" in texts(app).replace("\\", "")
    assert f"--held-out {RESTORED}" in app.code[0].value
    assert not [one for one in app.selectbox if one.key == "prove_trusted"]


def test_a_damaged_proof_is_a_message(tmp_path: Path, open_app: OpenApp) -> None:
    run = fake_run(tmp_path, n=20)
    (run.path / "proofs").mkdir()
    (run.path / "proofs" / "x.json").write_text("{}")
    app = open_app(tmp_path, "prove")
    assert "damaged" in app.error[0].value


def test_a_failed_proof_says_why(tmp_path: Path, open_app: OpenApp) -> None:
    run = fake_run(tmp_path, n=60)
    store = JobStore(tmp_path / JOBS_FILE)
    request = request_of(ProveForm(), {NAME: TOP}, run, "is_noisy=false")
    job, _ = store.enqueue(request, JobOptions(), tmp_path)
    assert worker.work(store, job.job_id) == "failed"  # too few samples
    app = open_app(tmp_path, "prove")
    assert "Too few samples are held out" in app.error[0].value


def test_the_worker_proves_and_the_page_shows_it(tmp_path: Path, open_app: OpenApp) -> None:
    run = fake_run(tmp_path, n=300)
    store = JobStore(tmp_path / JOBS_FILE)
    config = ProveConfig.for_run(run.record.config, trusted="is_noisy=false", **QUICK)
    request = ProofRequest(run=str(run.path), recipes=((NAME, TOP),), config=config)
    job, _ = store.enqueue(request, JobOptions(), tmp_path)
    assert worker.work(store, job.job_id) == "done"
    app = open_app(tmp_path, "prove")
    assert "keeps 30 % fewer samples" in texts(app).replace("\\", "")
    data = open_app(tmp_path, "data")
    assert "mimic score top 70 % · proof" in texts(data).replace("\\", "").replace("**", "")


def test_what_cannot_be_told_apart_says_how_many_seeds_would(
    tmp_path: Path, open_app: OpenApp
) -> None:
    run = fake_run(tmp_path, n=300)
    config = ProveConfig.for_run(run.record.config, trusted="is_noisy=false", **QUICK)
    other = top_share("mimic_score", 60)[1]
    found = prove(run, {NAME: TOP, "other": other}, config)
    pair = found.comparisons[-1]
    assert pair.power is not None
    found = prove(
        run,
        {NAME: TOP, "other": other},
        config.model_copy(update={"detect": (pair.power.limit + pair.power.detectable) / 2}),
    )
    pair = found.comparisons[-1]
    assert pair.power is not None
    assert pair.power.seeds is not None
    assert pair.power.seeds > 2
    app = open_app(tmp_path, "prove")
    assert power_text(found, pair) in texts(app).replace("\\", "")
    app.button(key=f"prove_set_seeds_{NAME}_other").click().run()
    assert not app.exception
    assert app.session_state[STATE].proving.seeds == pair.power.seeds
    steps = suggested_steps(found)
    if steps is not None:
        app.button(key="prove_set_steps").click().run()
        assert app.session_state[STATE].proving.steps == steps == 6


def test_the_difference_to_be_found_is_typed(
    tmp_path: Path, open_app: OpenApp, started: list[ProofRequest]
) -> None:
    fake_run(tmp_path, n=60)
    app = open_app(tmp_path, "prove")
    add_cutoff(app)
    assert app.number_input(key="prove_detect").value is None
    assert "--detect" not in app.code[0].value
    app.number_input(key="prove_detect").set_value(0.05).run()
    assert "--detect 0.05" in app.code[0].value
    app.button(key="prove_start").click().run()
    assert started[0].config.detect == 0.05
