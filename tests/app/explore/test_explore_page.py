"""Every page with and without a run, and what the controls do to the one selection."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

from app.choices.selecting import keep_region, set_kept
from app.components.explore.map import corners
from app.components.shared.choosers import drags
from app.state.session import AppState
from mimic_core.base.config import ProbeConfig
from mimic_core.filters.conditions import EnsembleVote, Uids
from mimic_core.filters.recipe import Recipe
from mimic_core.runs.record import EpochCheck
from mimic_core.runs.run import Run, open_run
from tests.app.conftest import STATE, OpenApp
from tests.app.sent import tiles
from tests.fakes import SCRIPT_CAPTION, fake_run


def state(app: AppTest) -> AppState:
    found: AppState = app.session_state[STATE]
    return found


def metric(app: AppTest, label: str) -> str:
    (found,) = [one for one in app.metric if one.label == label]
    return str(found.value)


def texts(app: AppTest) -> str:
    return "\n".join(str(one.value) for one in [*app.markdown, *app.caption, *app.title])


@pytest.mark.parametrize("page", [None, "export"])
def test_without_a_run_a_page_says_what_to_do(tmp_path: Path, open_app: OpenApp, page: str) -> None:
    app = open_app(tmp_path, page)
    assert "####" in texts(app)
    assert not app.metric


@pytest.mark.parametrize(
    ("page", "title"),
    [(None, "fake\\-0"), ("export", "Export"), ("data", "Data and scoring")],
)
def test_every_page_renders_with_a_run(
    run: Run, open_app: OpenApp, page: str | None, title: str
) -> None:
    app = open_app(run.path.parent, page)
    assert [one.value for one in app.title] == [title]
    assert not app.error


def test_everything_is_counted_out_of_the_total(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent)
    assert metric(app, "Kept") == "130 of 130"
    assert "rank **1–60** of 130" in texts(app)


def test_the_run_is_in_the_address(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent)
    assert app.query_params["run"] == run.id
    app.switch_page("views/export.py").run()
    assert app.query_params["run"] == run.id


def test_the_address_opens_its_run(tmp_path: Path, open_app: OpenApp) -> None:
    fake_run(tmp_path, n=8, seed=1).update(created_at="2026-05-01T00:00:00+00:00")
    older = fake_run(tmp_path, n=6)
    app = open_app(tmp_path, run_id=older.id)
    assert metric(app, "Kept") == "6 of 6"
    assert app.selectbox(key="run_picker").value == older.id


def test_a_new_tab_takes_the_selection_from_the_address(run: Run, open_app: OpenApp) -> None:
    first = open_app(run.path.parent)
    first.number_input(key="cut_kept").set_value(13).run()
    letters = first.query_params["select"]
    assert letters
    first.switch_page("views/export.py").run()
    assert first.query_params["select"] == letters
    second = open_app(run.path.parent, run_id=run.id, select=letters)
    assert metric(second, "Kept") == "13 of 130"
    assert state(second).recipe == state(first).recipe


def test_a_damaged_selection_in_the_address_is_an_error_once(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent, run_id=run.id, select="damaged")
    assert "address" in app.error[0].value
    assert metric(app, "Kept") == "130 of 130"
    assert "select" not in app.query_params
    assert not app.run().error


def test_an_unknown_run_in_the_address_is_said_to_be_missing(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent, run_id="gone")
    assert "gone" in app.warning[0].value
    assert metric(app, "Kept") == "130 of 130"


def test_another_run_forgets_the_selection_of_the_last(tmp_path: Path, open_app: OpenApp) -> None:
    first, second = fake_run(tmp_path, n=8), fake_run(tmp_path, n=6, seed=1)
    app = open_app(tmp_path, run_id=first.id)
    app.number_input(key="cut_kept").set_value(3).run()
    app.selectbox(key="run_picker").set_value(second.id).run()
    assert state(app).recipe == Recipe()
    assert metric(app, "Kept") == "6 of 6"


def test_the_three_units_of_the_cutoff_are_linked(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent)
    app.number_input(key="cut_percentile").set_value(40.0).run()
    scores = np.sort(table["mimic_score"].to_numpy())
    assert app.number_input(key="cut_score").value == pytest.approx(float(scores[52]))
    assert app.number_input(key="cut_kept").value == 78
    assert metric(app, "Kept") == "78 of 130"
    app.number_input(key="cut_kept").set_value(13).run()
    assert app.number_input(key="cut_percentile").value == pytest.approx(90.0)
    assert app.number_input(key="cut_score").value == pytest.approx(float(scores[117]))
    app.number_input(key="cut_score").set_value(None).run()
    assert metric(app, "Kept") == "130 of 130"


def test_keep_below_turns_the_cutoff_round(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent)
    app.number_input(key="cut_kept").set_value(30).run()
    app.segmented_control(key="keep_side").set_value("low").run()
    assert metric(app, "Kept") == "100 of 130"


def test_the_first_cutoff_keeps_the_side_that_was_chosen(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent)
    app.segmented_control(key="keep_side").set_value("low").run()
    app.number_input(key="cut_percentile").set_value(10.0).run()
    assert metric(app, "Kept") == "13 of 130"


def test_any_number_column_takes_the_scores_place(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent)
    app.selectbox(key="column").set_value("aesthetic").run()
    missing = table["aesthetic"].null_count()
    assert f"{missing} samples have no aesthetic" in texts(app)
    app.number_input(key="cut_kept").set_value(20).run()
    assert metric(app, "Kept") == "20 of 130"
    assert state(app).recipe.names == ("aesthetic cutoff",)


def test_every_column_can_colour_the_map(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent)
    for column in app.selectbox(key="colour").options:
        assert column  # shown as people say it
    for column in ("is_noisy", "topic", "aesthetic", "width", "shard"):
        app.selectbox(key="colour").set_value(column).run()
        assert not app.exception
        assert state(app).colour == column


def test_a_point_of_the_map_stands_for_all_samples_of_its_image(
    tmp_path: Path, open_app: OpenApp
) -> None:
    shared = fake_run(tmp_path, n=30).features
    places = pl.read_parquet(shared.path / "map.parquet")
    five = pl.int_range(pl.len()) < 5
    places = places.with_columns(
        pl.when(five).then(50.0).otherwise(pl.col(name)).cast(pl.Float32).alias(name)
        for name in ("map_x", "map_y")
    )
    places.write_parquet(shared.path / "map.parquet")
    said = json.loads((shared.path / "map.json").read_text())
    (shared.path / "map.json").write_text(json.dumps({**said, "images": 26}))
    app = open_app(tmp_path)
    assert "26 images: a point stands for all samples of its image" in texts(app)
    around = [(49.0, 49.0), (51.0, 49.0), (51.0, 51.0), (49.0, 51.0)]
    app.session_state[STATE] = replace(state(app), recipe=keep_region(Recipe(), around))
    app.run()
    assert metric(app, "Kept") == "5 of 30"
    assert {tile["uid"] for tile in tiles(app) if tile["state"] == ""} == set(places["uid"][:5])


def test_chips_remove_their_condition_and_undo_brings_it_back(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent)
    app.number_input(key="cut_kept").set_value(30).run()
    (chip,) = [button for button in app.button if button.key.startswith("chip-")]
    assert chip.label == "30 largest by mimic score"
    chip.click().run()
    assert metric(app, "Kept") == "130 of 130"
    app.button(key="undo").click().run()
    assert metric(app, "Kept") == "30 of 130"
    app.button(key="undo").click().run()
    assert metric(app, "Kept") == "130 of 130"
    assert app.button(key="undo").disabled


def test_category_and_text_conditions_are_added(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent)
    app.selectbox(key="add_column").set_value("topic").run()
    app.button_group(key="add_values_topic").set_value(["cat", "dog"]).run()
    wanted = table.filter(pl.col("topic").is_in(["cat", "dog"]))
    assert metric(app, "Kept") == f"{len(wanted)} of 130"
    app.text_input(key="add_text").set_value("photo").run()
    wanted = wanted.filter(pl.col("caption").str.contains("photo"))
    assert metric(app, "Kept") == f"{len(wanted)} of 130"


def test_gallery_modes_show_their_samples(run: Run, open_app: OpenApp, table: pl.DataFrame) -> None:
    app = open_app(run.path.parent)
    ranked = table.sort("mimic_score", "uid")["uid"].to_list()
    assert [tile["uid"] for tile in tiles(app)] == ranked[:60]
    app.number_input(key="cut_kept").set_value(20).run()
    app.segmented_control(key="gallery_mode").set_value("kept").run()
    assert [tile["uid"] for tile in tiles(app)] == ranked[::-1][:20]
    app.segmented_control(key="gallery_mode").set_value("dropped").run()
    assert {tile["state"] for tile in tiles(app)} == {"dropped"}
    assert "rank **1–60** of 110" in texts(app)
    app.segmented_control(key="gallery_mode").set_value("cutoff").run()
    scores = table.sort("mimic_score", "uid")["mimic_score"].to_numpy().astype(float)
    nearest = np.argsort(np.abs(scores - scores[110]), kind="stable")[:60]
    assert [tile["uid"] for tile in tiles(app)] == [ranked[row] for row in nearest]


def test_the_gallery_looks_inside_the_lasso_at_either_end(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent)
    assert "Inside the lasso" not in app.segmented_control(key="gallery_mode").options
    middle = float(table["map_x"].median())  # type: ignore[arg-type]
    left = [(-99.0, -99.0), (middle, -99.0), (middle, 99.0), (-99.0, 99.0)]
    recipe = keep_region(set_kept(Recipe(), "mimic_score", 20, keep="high"), left)
    app.session_state[STATE] = replace(state(app), recipe=recipe)
    app.run()
    app.segmented_control(key="gallery_mode").set_value("lasso").run()
    inside = table.filter(pl.col("map_x") <= middle).sort("mimic_score", "uid")["uid"].to_list()
    assert [tile["uid"] for tile in tiles(app)] == inside[::-1][:60]
    assert {tile["state"] for tile in tiles(app)} == {"", "dropped"}  # the cutoff is another matter
    app.segmented_control(key="gallery_first").set_value("lowest").run()
    assert [tile["uid"] for tile in tiles(app)] == inside[:60]
    app.button(key="chip-map region").click().run()
    assert app.segmented_control(key="gallery_mode").value == "kept"
    assert "rank **1–20** of 20" in texts(app)


def test_the_gallery_goes_to_any_rank(run: Run, open_app: OpenApp, table: pl.DataFrame) -> None:
    app = open_app(run.path.parent)
    app.number_input(key="gallery_rank").set_value(125).run()
    ranked = table.sort("mimic_score", "uid")["uid"].to_list()
    assert [tile["uid"] for tile in tiles(app)] == ranked[120:]
    assert "rank **121–130** of 130" in texts(app)


def test_nothing_selected_is_said_so(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent)
    app.number_input(key="cut_score").set_value(1e6).run()
    app.segmented_control(key="gallery_mode").set_value("kept").run()
    assert metric(app, "Kept") == "0 of 130"
    assert "Nothing is selected" in texts(app)
    app.switch_page("views/export.py").run()
    assert metric(app, "Dropped") == "130"


def test_missing_images_are_tiles_with_a_reason(tmp_path: Path, open_app: OpenApp) -> None:
    app = open_app(fake_run(tmp_path, n=4, images=False).path.parent)
    assert {tile["uri"] for tile in tiles(app)} == {None}
    assert {tile["reason"] for tile in tiles(app)} == {"the pool is no longer where it was scored"}


def open_sample(app: AppTest, uid: str) -> None:
    app.session_state[STATE] = replace(state(app), opened=uid)
    app.run()


def test_an_opened_sample_shows_its_caption_and_steps_on(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent)
    ranked = table.sort("mimic_score", "uid")
    open_sample(app, ranked["uid"][0])
    assert app.button(key="sample_previous").disabled
    assert ranked["caption"][0] in [one.value for one in app.text]
    app.button(key="sample_next").click().run()
    assert state(app).opened == ranked["uid"][1]
    assert ranked["caption"][1] in [one.value for one in app.text]


def test_a_hostile_caption_is_plain_text_everywhere(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent)
    uid = table.filter(pl.col("caption") == SCRIPT_CAPTION)["uid"][0]
    open_sample(app, uid)
    assert SCRIPT_CAPTION in [one.value for one in app.text]
    assert SCRIPT_CAPTION not in texts(app)
    assert all(SCRIPT_CAPTION not in one.proto.body for one in app.get("html"))


def test_a_run_without_a_map_says_how_to_make_it(tmp_path: Path, open_app: OpenApp) -> None:
    run = fake_run(tmp_path, n=6, with_map=False)
    app = open_app(tmp_path)
    assert "No map yet" in texts(app)
    assert app.button(key="make_map")
    assert [one.value for one in app.code] == [f"python -m mimic_core layout {run.id} --out ."]


def test_the_verdict_of_the_direction_check_is_shown(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent)
    check = run.record.direction_check
    assert check is not None
    assert any(check.verdict.rstrip(".") in one.label.replace("\\", "") for one in app.expander)
    assert "Direction good" in texts(app)


def test_the_first_epochs_are_offered_where_they_are_better(
    tmp_path: Path, open_app: OpenApp
) -> None:
    run = fake_run(tmp_path, n=40)
    assert run.record.direction_check is not None
    levels = ("good", "caution", "bad")
    epochs = tuple(
        EpochCheck(
            epoch=number,
            figure=0.9 - 0.3 * number,
            figure_until=0.9,
            level_until=level,
            rank_with_loss=None,
            rank_with_reference=None,
        )
        for number, level in enumerate(levels)
    )
    update = {"level": "bad", "epochs": epochs, "use_epochs": 1, "figure": 0.4}
    run = run.update(direction_check=run.record.direction_check.model_copy(update=update))
    app = open_app(tmp_path)
    assert "Direction bad" in texts(app)
    app.session_state["direction"] = True  # opened
    assert metric(app.run(), "Expected AUROC") == "0.4"
    app.button(key="use_first_epochs").click().run()
    assert not app.exception
    assert open_run(run.path).record.epochs_used == 1
    assert "Direction good" in texts(app)
    assert "the first 1 of 3 epochs are used" in texts(app)
    app.button(key="use_all_epochs").click().run()
    assert open_run(run.path).record.epochs_used is None
    assert "Direction bad" in texts(app)
    assert run.record.config.scorer.batch_size == 32
    app.button(key="try_larger_batch").click().run()
    assert not app.exception
    assert app.number_input(key="tune_batch_size").value == 40  # all that there are
    assert "Tuned, not saved" in app.warning[0].value
    assert not [one for one in app.button if one.key == "try_larger_batch"]


def test_a_snapshot_run_has_nothing_to_tune(tmp_path: Path, open_app: OpenApp) -> None:
    app = open_app(fake_run(tmp_path, n=6, snapshot=True).path.parent)
    assert not [one for one in app.number_input if (one.key or "").startswith("tune_")]


def better(run: Run) -> pl.DataFrame:
    """Other scores for the run: each sample's caption length."""
    lengths = run.features.samples["caption_length"].cast(pl.Float32)
    return run.scores().filter(pl.col("epoch") == 0).with_columns(lengths.alias("mimic_score"))


@pytest.fixture
def tuner(monkeypatch: pytest.MonkeyPatch, run: Run) -> list[ProbeConfig]:
    """Stands in for torch: notes what was asked, and answers at once."""
    asked: list[ProbeConfig] = []

    def tune(_run: Run, config: ProbeConfig) -> pl.DataFrame:
        asked.append(config)
        return better(run)

    monkeypatch.setattr("mimic_core.scoring.tuning.tune_run", tune)
    monkeypatch.setattr(
        "mimic_core.scoring.tuning.estimate_seconds", lambda _run, config: config.epochs / 10
    )
    return asked


def test_tuning_changes_the_scores_at_once_and_can_be_reset(
    run: Run, open_app: OpenApp, tuner: list[ProbeConfig], table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent)
    app.number_input(key="tune_temperature").set_value(0.3).run()
    assert [config.temperature for config in tuner] == [0.3]
    assert "tuned, not saved" in texts(app)
    assert tiles(app)[0]["uid"] == table.sort("caption_length", "uid")["uid"][0]
    app.button(key="tune_reset").click().run()
    assert "tuned, not saved" not in texts(app)
    assert app.number_input(key="tune_temperature").value == 0.05
    assert tiles(app)[0]["uid"] == table.sort("mimic_score", "uid")["uid"][0]


def test_tuned_scores_are_shown_with_their_own_layer_and_without_the_saved_verdict(
    run: Run, open_app: OpenApp, tuner: list[ProbeConfig]
) -> None:
    app = open_app(run.path.parent)
    assert "mimic layers visual\\.proj" in texts(app)
    app.segmented_control(key="tune_side").set_value("text").run()
    assert [config.side for config in tuner] == ["text"]
    assert "mimic layers text\\_projection" in texts(app)
    assert "visual" not in texts(app)
    assert "Direction good" not in texts(app)
    (verdict,) = [
        one.label for one in app.expander if "verdict" in one.label or "saved" in one.label
    ]
    assert "Of the saved settings, not of the tuned ones" in verdict


def test_setting_a_control_back_ends_the_tuned_state(
    run: Run, open_app: OpenApp, tuner: list[ProbeConfig]
) -> None:
    app = open_app(run.path.parent)
    app.number_input(key="tune_seed").set_value(71).run()
    assert state(app).tuned == ProbeConfig(epochs=3, batch_size=32, seed=71)
    app.number_input(key="tune_seed").set_value(0).run()
    assert state(app).tuned is None
    assert len(tuner) == 1


def test_slow_tuning_waits_for_a_click(
    run: Run, open_app: OpenApp, tuner: list[ProbeConfig]
) -> None:
    app = open_app(run.path.parent)
    app.number_input(key="tune_epochs").set_value(90).run()
    assert tuner == []
    assert "takes about 9 s" in texts(app)
    app.button(key="tune_apply").click().run()
    assert [config.epochs for config in tuner] == [90]


def test_tuned_scores_are_not_exported(
    run: Run, open_app: OpenApp, tuner: list[ProbeConfig]
) -> None:
    app = open_app(run.path.parent)
    app.number_input(key="tune_seed").set_value(72).run()
    app.switch_page("views/export.py").run()
    assert [one.key for one in app.get("download_button")] == ["download_recipe"]
    assert "tuned and not saved" in app.warning[0].value
    assert len(tuner) == 1


def test_export_shows_recipe_and_command(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent)
    app.number_input(key="cut_kept").set_value(30).run()
    app.switch_page("views/export.py").run()
    recipe, command = (one.value for one in app.code)
    assert Recipe.from_yaml(recipe) == state(app).recipe
    assert command.startswith(f"python -m mimic_core export {run.id} --format parquet")
    assert metric(app, "Dropped") == "100"


def load_recipe(app: AppTest, text: str) -> None:
    app.file_uploader(key="load_recipe").set_value(
        [("recipe.yaml", text.encode(), "application/yaml")]
    )
    app.run()


def test_a_saved_recipe_is_applied_and_can_be_undone(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent, "export")
    recipe = set_kept(Recipe(), "clip_score", 12, keep="low")
    load_recipe(app, recipe.to_yaml())
    assert metric(app, "Kept") == "12 of 130"
    app.button(key="undo").click().run()
    assert metric(app, "Kept") == "130 of 130"


def test_a_recipe_that_does_not_fit_changes_nothing(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent, "export")
    load_recipe(app, set_kept(Recipe(), "beauty", 12, keep="low").to_yaml())
    assert "beauty" in app.error[0].value
    assert state(app).recipe == Recipe()


def test_export_writes_exactly_what_is_selected(
    run: Run, open_app: OpenApp, table: pl.DataFrame, tmp_path: Path
) -> None:
    app = open_app(run.path.parent)
    app.number_input(key="cut_kept").set_value(30).run()
    app.switch_page("views/export.py").run()
    app.text_input(key="export_folder").set_value(str(tmp_path)).run()
    app.button(key="export_write").click().run()
    written = pl.read_parquet(tmp_path / "fake-0-selection.parquet")
    wanted = table.sort("mimic_score", "uid", descending=[True, False]).head(30)
    assert written["uid"].to_list() == wanted["uid"].sort().to_list()


def test_a_refused_export_is_a_message(run: Run, open_app: OpenApp, tmp_path: Path) -> None:
    app = open_app(run.path.parent, "export")
    (tmp_path / "fake-0-selection.parquet").write_bytes(b"mine")
    app.text_input(key="export_folder").set_value(str(tmp_path)).run()
    app.button(key="export_write").click().run()
    assert "another file is already there" in app.error[0].value.lower()
    assert "Next step" in app.error[0].value
    assert (tmp_path / "fake-0-selection.parquet").read_bytes() == b"mine"


def test_damaged_scores_are_a_message_not_a_traceback(tmp_path: Path, open_app: OpenApp) -> None:
    run = fake_run(tmp_path, n=6)
    file = run.path / "scores" / "epoch-00000.parquet"
    frame = pl.read_parquet(file)
    frame.with_columns(pl.lit(float("nan"), pl.Float32).alias("mimic_score")).write_parquet(file)
    app = open_app(tmp_path)
    assert "not finite" in app.error[0].value
    assert not app.exception


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (None, []),
        ({"selection": {"lasso": [], "box": []}}, []),
        ({"selection": {"lasso": [{"x": [0, 1], "y": [0, 1]}]}}, []),
        (
            {"selection": {"lasso": [{"x": [0, 1, 1], "y": [0, 0, 1]}], "box": []}},
            [(0, 0), (1, 0), (1, 1)],
        ),
        (
            {"selection": {"box": [{"x": [0, 2], "y": [3, 1]}]}},
            [(0, 3), (2, 3), (2, 1), (0, 1)],
        ),
    ],
)
def test_corners_of_what_was_drawn(event: Any, found: list[tuple[float, float]]) -> None:
    assert corners(event) == found


def test_a_redrawn_chart_sends_nothing() -> None:
    assert drags({"selection": {"points": [], "box": []}}, "box") == []


def test_a_recipe_with_an_ensemble_loads_on_export(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent, "export")
    recipe = Recipe().with_condition("votes", EnsembleVote())
    load_recipe(app, recipe.to_yaml())
    assert not app.error
    assert state(app).recipe == recipe


def test_tuning_a_run_by_cosine_waits_for_a_click(
    tmp_path: Path, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fake_run(tmp_path, n=40)
    own = ProbeConfig(epochs=3, batch_size=32, method="cos")
    made.update(config=made.record.config.model_copy(update={"probe": own}))
    monkeypatch.setattr("mimic_core.scoring.tuning._reverse_pass_seconds", lambda *_: 0.1)
    app = open_app(tmp_path)
    app.number_input(key="tune_seed").set_value(5).run()
    assert state(app).tuned is None
    assert "takes about 19 s" in texts(app)  # 2 batches of 32, 3 epochs
    assert app.button(key="tune_apply")


def test_a_selection_too_long_for_the_address_is_said_to_be(
    tmp_path: Path, open_app: OpenApp
) -> None:
    uids = fake_run(tmp_path, n=400).features.samples["uid"].to_list()
    app = open_app(tmp_path, "export")
    assert "too long for the page" not in texts(app)
    load_recipe(app, Recipe().with_condition("chosen", Uids(uids=tuple(uids))).to_yaml())
    assert state(app).recipe.conditions
    assert "select" not in app.query_params
    assert "too long for the page" in texts(app)


def test_tuning_is_said_to_be_of_this_tab(
    run: Run, open_app: OpenApp, tuner: list[ProbeConfig]
) -> None:
    app = open_app(run.path.parent)
    app.number_input(key="tune_seed").set_value(73).run()
    assert len(tuner) == 1
    assert "Only this tab" in app.warning[0].value


def test_columns_of_a_file_are_joined_on_the_page_and_taken_out_again(
    tmp_path: Path, open_app: OpenApp
) -> None:
    own = fake_run(tmp_path / "runs", n=40)
    own.features.samples[:30].select("uid", dfn=pl.int_range(pl.len())).write_csv("dfn.csv")
    app = open_app(tmp_path / "runs", run_id=own.id)
    assert "dfn" not in app.selectbox(key="column").options
    app.text_input(key="join_path").set_value(str(tmp_path / "dfn.csv")).run()
    app.button(key="join_start").click().run()
    assert "30 of 40 samples have a row there, 10 have none" in texts(app)
    assert "dfn" in app.selectbox(key="column").options
    app.button(key="join_remove_dfn").click().run()
    assert "dfn" not in app.selectbox(key="column").options
    assert open_run(own.path).record.joins == ()


def test_an_uploaded_file_is_joined_by_its_own_name(tmp_path: Path, open_app: OpenApp) -> None:
    own = fake_run(tmp_path / "runs", n=40)
    data = own.features.samples.select("uid", dfn=pl.lit(1)).write_csv().encode()
    app = open_app(tmp_path / "runs", run_id=own.id)
    app.file_uploader(key="join_upload").set_value([("My DFN.csv", data, "text/csv")]).run()
    app.button(key="join_start").click().run()
    (joined,) = open_run(own.path).record.joins
    assert (joined.name, list(joined.columns)) == ("my-dfn", ["dfn"])
    assert Path(joined.source).is_relative_to((tmp_path / "runs" / "uploads").resolve())
