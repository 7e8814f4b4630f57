"""The Dynamics page with, without and with short histories, and how it meets the one selection."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

from app.cache import tables
from app.state.dynamics import DynamicsState, over
from app.state.session import AppState
from mimic_core.base.config import ProbeConfig
from mimic_core.filters.conditions import EnsembleVote, Percentile, Uids
from mimic_core.filters.ensembles.config import EnsembleConfig
from mimic_core.filters.ensembles.ensemble import Ensemble, ensemble
from mimic_core.filters.recipe import Recipe
from mimic_core.runs.history import History, in_order, run_history
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from mimic_core.stats import dynamics
from tests.app.conftest import STATE, OpenApp
from tests.app.sent import tiles
from tests.fakes import SCRIPT_CAPTION, fake_run

N, EPOCHS = 130, 3


@pytest.fixture(scope="module")
def history(run: Run) -> History:
    return in_order(run_history(run), run_table(run)["uid"])


@pytest.fixture(scope="module")
def decided(history: History) -> Ensemble:
    return ensemble(history, EnsembleConfig())


def state(app: AppTest) -> AppState:
    found: AppState = app.session_state[STATE]
    return found


def page_state(app: AppTest) -> DynamicsState:
    return state(app).dynamics


def set_page(app: AppTest, **changes: Any) -> AppTest:
    changed = replace(page_state(app), **changes)
    app.session_state[STATE] = replace(state(app), dynamics=changed)
    return app.run()


def metric(app: AppTest, label: str) -> str:
    (found,) = [one for one in app.metric if one.label == label]
    return str(found.value)


def texts(app: AppTest) -> str:
    shown = [*app.markdown, *app.caption, *app.title, *app.text]
    return "\n".join(str(one.value) for one in shown)


def uids(app: AppTest) -> list[str]:
    return [tile["uid"] for tile in tiles(app)]


def charts(app: AppTest) -> dict[str, dict[str, Any]]:
    """Specifications of the charts by the first words of their alternative texts."""
    return {
        one.proto.alt.split(" of ")[0].split(":")[0]: json.loads(one.proto.spec)
        for one in app.get("plotly_chart")
    }


def ranked(table: pl.DataFrame) -> list[str]:
    found: list[str] = table.sort("mimic_score", "uid")["uid"].to_list()
    return found


def drag(app: AppTest, first: int, last: int) -> AppTest:
    """Choose ranks by the inputs, which do what a drag does."""
    app.number_input(key="dyn_from").set_value(first).run()
    return app.number_input(key="dyn_to").set_value(last).run()


def test_without_a_run_the_page_says_what_to_do(tmp_path: Path, open_app: OpenApp) -> None:
    app = open_app(tmp_path, "dynamics")
    assert "No history yet" in texts(app)
    assert not app.metric


def test_the_page_shows_the_run(run: Run, open_app: OpenApp, table: pl.DataFrame) -> None:
    app = open_app(run.path.parent, "dynamics")
    assert not app.error
    assert [one.value for one in app.title] == ["Dynamics"]
    assert f"{N} samples · {EPOCHS} epochs · batches of B = 32" in texts(app)
    assert uids(app) == ranked(table)[:20]
    assert f"**1–20** of {N} samples: ranks 1–{N} of {N}" in texts(app)
    assert set(charts(app)) == {
        "Heat map",
        "Densities",
        "Bars",
        "Mimic scores",
    }


def test_every_chart_has_an_alternative_text(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent, "dynamics")
    alts = [one.proto.alt for one in app.get("plotly_chart")]
    assert f"Heat map of {N} samples by {EPOCHS} epochs" in alts[0]
    assert "sorted by mean score" in alts[0]
    assert all(alts)


def test_what_the_ensemble_keeps_is_counted(
    run: Run, open_app: OpenApp, decided: Ensemble, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent, "dynamics")
    assert f"keeps **{decided.kept} of {N}**" in texts(app)
    noisy = table["is_noisy"].to_numpy()
    left = int((noisy & decided.keep).sum())
    assert f"among them {left} of {noisy.sum()} known noisy" in texts(app)


def test_the_ensemble_becomes_the_selection(run: Run, open_app: OpenApp, decided: Ensemble) -> None:
    app = open_app(run.path.parent, "dynamics")
    app.button(key="dyn_keep_ensemble").click().run()
    assert metric(app, "Kept") == f"{decided.kept} of {N}"
    (named,) = state(app).recipe.conditions
    assert named.condition == EnsembleVote()
    assert app.button(key="dyn_keep_ensemble").disabled
    letters = app.query_params["select"]
    app.switch_page("views/explore.py").run()
    assert metric(app, "Kept") == f"{decided.kept} of {N}"
    other = open_app(run.path.parent, "export", run_id=run.id, select=letters)
    assert state(other).recipe == state(app).recipe


@pytest.mark.parametrize("measure", ["last", "first", "change", "spread"])
def test_rows_are_sorted_by_measures_over_the_epochs(
    run: Run,
    open_app: OpenApp,
    history: History,
    table: pl.DataFrame,
    measure: dynamics.Measure,
) -> None:
    app = open_app(run.path.parent, "dynamics")
    app.selectbox(key="dyn_sort").set_value(over(measure)).run()
    values = dynamics.summarise(history.mimic_score, measure)
    expected = sorted(range(N), key=lambda row: (values[row], table["uid"][row]))
    assert uids(app) == [table["uid"][row] for row in expected[:20]]


def test_rows_are_sorted_by_votes(
    run: Run, open_app: OpenApp, decided: Ensemble, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent, "dynamics")
    for sort, values in (
        ("flips", dynamics.flips(decided.votes)),
        ("confidence", decided.confidence),
    ):
        app.selectbox(key="dyn_sort").set_value(over(sort)).run()
        expected = sorted(range(N), key=lambda row: (values[row], table["uid"][row]))
        assert uids(app) == [table["uid"][row] for row in expected[:20]]
    app.button(key="dyn_turn").click().run()
    assert uids(app) == [table["uid"][row] for row in expected[::-1][:20]]


def test_samples_without_a_value_are_left_out_and_counted(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent, "dynamics")
    app.selectbox(key="dyn_sort").set_value("aesthetic").run()
    missing = table["aesthetic"].null_count()
    assert f"{missing} samples have no aesthetic and are left out" in texts(app)
    assert f"**1–20** of {N - missing} samples" in texts(app)


@pytest.mark.parametrize("show", ["mimic_weight", "loss", "vote"])
def test_every_column_colours_the_heat_map(run: Run, open_app: OpenApp, show: str) -> None:
    app = open_app(run.path.parent, "dynamics")
    before = charts(app)["Heat map"]["layout"]["images"][0]["source"]
    app.segmented_control(key="dyn_show").set_value(show).run()
    assert not app.error
    heat = charts(app)["Heat map"]
    assert heat["layout"]["images"][0]["source"] != before
    what = {"vote": "mimic score"}.get(show, show.replace("_", " "))
    assert f"**{what.capitalize()} of each epoch**" in texts(app)
    assert charts(app)["Densities"]["layout"]["xaxis"]["title"]["text"] == what


def test_dragged_rows_fill_the_gallery_and_the_frame(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = drag(open_app(run.path.parent, "dynamics"), 11, 25)
    assert uids(app) == ranked(table)[10:25]
    assert "**1–15** of 15 samples: ranks 11–25 of 130" in texts(app)
    frame = charts(app)["Heat map"]["layout"]["shapes"][0]
    assert (frame["y0"], frame["y1"]) == (10.5, 25.5)


def test_zooming_shows_the_rows_and_back(run: Run, open_app: OpenApp) -> None:
    app = drag(open_app(run.path.parent, "dynamics"), 11, 25)
    app.button(key="dyn_zoom_in").click().run()
    assert charts(app)["Heat map"]["layout"]["yaxis"]["range"] == [25.5, 10.5]
    assert app.button(key="dyn_zoom_in").disabled
    app.button(key="dyn_zoom_out").click().run()
    assert charts(app)["Heat map"]["layout"]["yaxis"]["range"] == [130.5, 0.5]


def test_ranks_of_another_order_are_forgotten(run: Run, open_app: OpenApp) -> None:
    app = drag(open_app(run.path.parent, "dynamics"), 11, 25)
    app.button(key="dyn_zoom_in").click().run()
    app.selectbox(key="dyn_sort").set_value("clip_score").run()
    assert app.number_input(key="dyn_from").value is None
    assert charts(app)["Heat map"]["layout"]["yaxis"]["range"] == [130.5, 0.5]
    assert app.button(key="dyn_keep").disabled


def test_rows_become_the_selection_by_a_percentile_range(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = drag(open_app(run.path.parent, "dynamics"), 14, 39)
    assert app.button(key="dyn_keep").label == "Keep only 26"
    app.button(key="dyn_keep").click().run()
    (named,) = state(app).recipe.conditions
    assert named.condition == Percentile(column="mimic_score", lower=10, upper=30)
    assert metric(app, "Kept") == "26 of 130"
    app.switch_page("views/explore.py").run()
    assert metric(app, "Kept") == "26 of 130"
    app.segmented_control(key="gallery_mode").set_value("kept").run()
    assert set(uids(app)) == set(ranked(table)[13:39])


def test_rows_are_dropped_and_the_drop_is_undone(run: Run, open_app: OpenApp) -> None:
    app = drag(open_app(run.path.parent, "dynamics"), 1, 26)
    app.button(key="dyn_drop").click().run()
    assert metric(app, "Kept") == "104 of 130"
    app.button(key="undo").click().run()
    assert metric(app, "Kept") == "130 of 130"


def test_rows_without_a_column_are_chosen_one_by_one(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent, "dynamics")
    app.selectbox(key="dyn_sort").set_value(over("change")).run()
    app = drag(app, 1, 12)
    shown = uids(app)
    app.button(key="dyn_keep").click().run()
    (named,) = state(app).recipe.conditions
    assert named.condition == Uids(uids=tuple(shown))
    assert metric(app, "Kept") == "12 of 130"


def test_too_many_rows_without_a_column_are_refused_with_the_reason(
    run: Run, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.choices.selecting_rows.UID_LIMIT", 10)
    app = open_app(run.path.parent, "dynamics")
    app.selectbox(key="dyn_sort").set_value(over("last")).run()
    app = drag(app, 1, 11)
    assert app.button(key="dyn_keep").disabled
    assert "the limit is 10" in app.button(key="dyn_keep").help


def test_the_heat_map_is_restricted_to_the_selection_or_to_what_is_dropped(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = drag(open_app(run.path.parent, "dynamics"), 1, 26)
    app.button(key="dyn_drop").click().run()
    app.segmented_control(key="dyn_scope").set_value("kept").run()
    assert uids(app) == ranked(table)[26:46]
    assert "ranks 1–104 of 104" in texts(app)
    app.segmented_control(key="dyn_scope").set_value("dropped").run()
    assert uids(app) == ranked(table)[:20]
    app = drag(app, 1, 6)
    assert app.button(key="dyn_drop").disabled
    assert app.button(key="dyn_keep").label == "Bring back 6"
    app.button(key="dyn_keep").click().run()
    assert metric(app, "Kept") == "110 of 130"
    assert "ranks 1–20 of 20" in texts(app)


def test_an_empty_restriction_is_said_so(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent, "dynamics")
    app.segmented_control(key="dyn_scope").set_value("dropped").run()
    assert "Nothing is dropped" in texts(app)
    assert not app.error
    assert "No sample" in texts(app)


def test_the_most_undecided_come_first(
    run: Run, open_app: OpenApp, decided: Ensemble, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent, "dynamics")
    app.segmented_control(key="dyn_gallery").set_value("undecided").run()
    doubt = dynamics.undecided(decided.votes)
    expected = sorted(range(N), key=lambda row: (-doubt[row], table["uid"][row]))
    assert uids(app) == [table["uid"][row] for row in expected[:20]]
    in_favour = int(decided.votes[:, expected[0]].sum())
    assert tiles(app)[0]["value"] == f"{in_favour} of {EPOCHS} keep"


def test_a_bar_shows_the_samples_of_that_many_flips(
    run: Run, open_app: OpenApp, decided: Ensemble, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent, "dynamics")
    changes = dynamics.flips(decided.votes)
    moved = int((changes > 0).sum())
    assert f"**Votes changed** by {moved} of {N} samples" in texts(app)
    bars = charts(app)["Bars"]["data"]
    assert bars[-1]["customdata"]
    set_page(app, flips=(1, 1), gallery="flips")
    assert set(uids(app)) <= set(table["uid"].filter(pl.Series(changes == 1)).to_list())
    assert f" of {int((changes == 1).sum())} samples" in texts(app)
    assert "1 flip" in app.segmented_control(key="dyn_gallery").options


def test_a_tile_shows_its_trajectory(
    run: Run, open_app: OpenApp, history: History, decided: Ensemble, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent, "dynamics")
    row = 7
    set_page(app, sample=table["uid"][row])
    assert table["caption"][row] in [one.value for one in app.text]
    data = charts(app)["Mimic scores"]["data"]
    tracks = [one for one in data if one.get("name") == "this sample"]
    alt = [one.proto.alt for one in app.get("plotly_chart")][-1]
    votes = int(decided.votes[:, row].sum())
    assert f"{votes} of {EPOCHS} votes to keep it" in alt
    assert len(tracks) == 3
    symbols = ["circle" if keep else "x" for keep in decided.votes[:, row]]
    assert tracks[0]["marker"]["symbol"] == symbols
    verdict = "keeps" if decided.keep[row] else "drops"
    assert f"ensemble {verdict} it" in texts(app)
    assert f"confidence {decided.confidence[row]:.2f}" in texts(app)
    assert f"{history.mimic_score[0, row]:.4g}" in alt


def test_previous_and_next_go_through_the_gallery(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent, "dynamics")
    order = ranked(table)
    assert app.button(key="dyn_previous").disabled
    app.button(key="dyn_next").click().run()
    assert page_state(app).sample == order[1]
    set_page(app, sample=order[19])
    app.button(key="dyn_next").click().run()
    assert (page_state(app).sample, page_state(app).page) == (order[20], 2)
    assert "**21** of 130 in the gallery" in texts(app)
    set_page(app, sample=order[-1])
    assert app.button(key="dyn_next").disabled


def test_a_sample_is_found_by_rank_uid_or_the_beginning_of_it(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent, "dynamics")
    uid = table["uid"][3]
    for text, expected in (("17", ranked(table)[16]), (uid, uid), (uid[:12].upper(), uid)):
        app.text_input(key="dyn_find").set_value(text).run()
        assert page_state(app).sample == expected
        assert not app.warning
    app.text_input(key="dyn_find").set_value("<b>nobody").run()
    assert "There is no sample" in app.warning[0].value
    assert "<b>" not in app.warning[0].value.replace("\\<", "")
    app.text_input(key="dyn_find").set_value("1").run()
    assert not app.warning


def test_a_hostile_caption_is_plain_text(run: Run, open_app: OpenApp, table: pl.DataFrame) -> None:
    uid = table.filter(pl.col("caption") == SCRIPT_CAPTION)["uid"][0]
    app = open_app(run.path.parent, "dynamics")
    set_page(app, sample=uid)
    assert SCRIPT_CAPTION in [one.value for one in app.text]
    assert SCRIPT_CAPTION not in "\n".join(str(one.value) for one in [*app.markdown, *app.caption])
    assert SCRIPT_CAPTION not in json.dumps(charts(app)["Heat map"])


def test_the_votes_are_set_in_the_menu(run: Run, open_app: OpenApp, history: History) -> None:
    app = open_app(run.path.parent, "dynamics")
    for kind in ("gmm", "threshold", "top_percent", "kmeans"):
        app.selectbox(key="leaf_binarise").set_value(kind).run()
        config = page_state(app).ensemble
        assert config.binarise.kind == kind
        assert f"keeps **{ensemble(history, config).kept} of {N}**" in texts(app)
    app.selectbox(key="leaf_score").set_value("loss").run()
    app.selectbox(key="leaf_scope").set_value("all").run()
    for kind in ("unanimous", "mean_rank", "label_model", "at_least"):
        app.selectbox(key="leaf_aggregate").set_value(kind).run()
        config = page_state(app).ensemble
        assert (config.binarise.column, config.binarise.scope) == ("loss", "all")
        assert f"keeps **{ensemble(history, config).kept} of {N}**" in texts(app)
    app.number_input(key="leaf_votes").set_value(1).run()
    one = ensemble(history, page_state(app).ensemble)
    assert f"keeps **{one.kept} of {N}**" in texts(app)
    assert not app.error


def test_the_percentage_of_the_best_is_set(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent, "dynamics")
    app.selectbox(key="leaf_binarise").set_value("top_percent").run()
    app.number_input(key="leaf_top_percent").set_value(50.0).run()
    assert page_state(app).ensemble.binarise.describe() == "mimic score: top 50 %"


def test_an_unfinished_menu_says_what_it_lacks_and_changes_nothing(
    run: Run, open_app: OpenApp
) -> None:
    app = open_app(run.path.parent, "dynamics")
    before = page_state(app).ensemble
    app.selectbox(key="leaf_binarise").set_value("threshold").run()
    app.selectbox(key="leaf_score").set_value("loss").run()
    assert page_state(app).ensemble.binarise.describe() == "mimic weight: >= 1/B"
    assert "type a cutoff" in texts(app)
    app.number_input(key="leaf_value").set_value(1.5).run()
    assert page_state(app).ensemble.binarise.describe() == "loss: <= 1.5"
    assert "type a cutoff" not in texts(app)
    assert page_state(app).ensemble != before


def test_votes_that_a_run_cannot_give_are_an_error_that_can_be_mended(
    tmp_path: Path, open_app: OpenApp
) -> None:
    run = fake_run(tmp_path, n=12, epochs=2, images=False)
    app = open_app(tmp_path, "dynamics", run_id=run.id)
    app.selectbox(key="leaf_aggregate").set_value("label_model").run()
    assert "at least 3 steps" in app.error[0].value
    assert not app.get("plotly_chart")
    app.selectbox(key="leaf_aggregate").set_value("majority").run()
    assert not app.error
    assert app.get("plotly_chart")


@pytest.mark.parametrize("snapshot", [False, True])
def test_one_step_has_no_history_and_the_page_names_runs_that_have(
    tmp_path: Path, open_app: OpenApp, snapshot: bool
) -> None:
    long = fake_run(tmp_path, n=8, epochs=4)
    short = fake_run(tmp_path, n=6, seed=1, epochs=1, snapshot=snapshot)
    app = open_app(tmp_path, "dynamics", run_id=short.id)
    unit = "repeat" if snapshot else "epoch"
    assert f"One {unit} has no history" in texts(app)
    assert ("two or more repeats" if snapshot else "more epochs") in texts(app)
    assert not app.error
    assert not app.get("plotly_chart")
    app.button(key=f"dyn_run-{long.id}").click().run()
    assert "4 epochs" in texts(app)
    assert app.get("plotly_chart")


def test_a_lone_run_of_one_epoch_says_that_there_is_no_other(
    tmp_path: Path, open_app: OpenApp
) -> None:
    app = open_app(fake_run(tmp_path, n=6, epochs=1).path.parent, "dynamics")
    assert "No other run has a history yet" in texts(app)


def test_repeats_of_a_snapshot_are_steps(tmp_path: Path, open_app: OpenApp) -> None:
    app = open_app(fake_run(tmp_path, n=9, epochs=3, snapshot=True).path.parent, "dynamics")
    assert "3 repeats" in texts(app)
    assert "Mimic score of each repeat" in texts(app)
    assert charts(app)["Heat map"]["layout"]["xaxis"]["title"]["text"] == "repeat"


def test_a_pool_without_truth_has_one_distribution(tmp_path: Path, open_app: OpenApp) -> None:
    app = open_app(fake_run(tmp_path, n=9, truth=False).path.parent, "dynamics")
    names = [one.get("name") for one in charts(app)["Densities"]["data"]]
    assert {name for name in names if name} == {"all samples 9"}
    assert "known noisy" not in texts(app)
    assert charts(app)["Heat map"]["layout"]["xaxis"]["ticktext"][-1] == "ensemble"


def test_missing_images_are_said_in_place(tmp_path: Path, open_app: OpenApp) -> None:
    app = open_app(fake_run(tmp_path, n=9, images=False).path.parent, "dynamics")
    assert "no longer where it was scored" in texts(app)
    assert not app.error


def test_tuned_scores_have_their_own_history(
    run: Run, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = run.scores().with_columns(-pl.col("mimic_score"))

    def tune(_features: object, _config: ProbeConfig) -> pl.DataFrame:
        return turned

    monkeypatch.setattr("mimic_core.scoring.tuning.tune", tune)
    monkeypatch.setattr("mimic_core.scoring.tuning.estimate_seconds", lambda _f, _c: 0.1)
    app = open_app(run.path.parent, "dynamics")
    before = uids(app)
    app.number_input(key="tune_seed").set_value(1234).run()
    assert "tuned, not saved" in texts(app)
    table = run_table(run).with_columns(-pl.col("mimic_score"))
    assert uids(app) == ranked(table)[:20] != before
    assert not app.error


def test_a_tuned_batch_is_no_larger_than_the_pool(
    run: Run, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mimic_core.scoring.tuning.tune", lambda _f, _c: run.scores())
    monkeypatch.setattr("mimic_core.scoring.tuning.estimate_seconds", lambda _f, _c: 0.1)
    app = open_app(run.path.parent, "dynamics")
    app.number_input(key="tune_batch_size").set_value(4096).run()
    assert f"batches of B = {N}" in texts(app)
    assert tables.history(tables.key_of(run, state(app).tuned)).batch_size == N


def test_tuning_to_one_epoch_is_an_empty_state_with_a_way_back(
    run: Run, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = run.scores().filter(pl.col("epoch") == 0)
    monkeypatch.setattr("mimic_core.scoring.tuning.tune", lambda _f, _c: one)
    monkeypatch.setattr("mimic_core.scoring.tuning.estimate_seconds", lambda _f, _c: 0.1)
    app = open_app(run.path.parent, "dynamics")
    app.number_input(key="tune_epochs").set_value(1).run()
    assert "One epoch has no history" in texts(app)
    reset = [button for button in app.button if button.label == "Reset to the saved run"]
    reset[0].click().run()
    assert app.get("plotly_chart")


def test_another_run_forgets_the_page(tmp_path: Path, open_app: OpenApp) -> None:
    first, second = fake_run(tmp_path, n=8), fake_run(tmp_path, n=6, seed=1)
    app = open_app(tmp_path, "dynamics", run_id=first.id)
    app.segmented_control(key="dyn_show").set_value("loss").run()
    app.selectbox(key="run_picker").set_value(second.id).run()
    assert page_state(app) == DynamicsState()
    assert state(app).recipe == Recipe()


def test_the_pages_state_outlives_a_page_switch(run: Run, open_app: OpenApp) -> None:
    app = drag(open_app(run.path.parent, "dynamics"), 11, 25)
    app.switch_page("views/explore.py").run()
    app.switch_page("views/dynamics.py").run()
    assert app.number_input(key="dyn_from").value == 11
    assert np.array_equal([app.number_input(key="dyn_to").value], [25])
