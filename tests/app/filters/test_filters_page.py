"""The Filters page: what every control does to the one recipe, and what is shown of it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

from app.choices import editing
from app.library import READ_VARIABLE
from app.state.address import pack
from app.state.filters import BEFORE, EVERYTHING, FiltersState
from app.state.session import AppState
from mimic_core.filters import recipe as filters
from mimic_core.filters.conditions import (
    Absolute,
    AllOf,
    AnyOf,
    Category,
    Condition,
    EnsembleVote,
    Minus,
    Not,
    Percentile,
    Region,
    Text,
    TopK,
    UidList,
    Uids,
)
from mimic_core.filters.library import list_recipes, save_recipe
from mimic_core.filters.recipe import Recipe, apply
from mimic_core.runs.history import run_history
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from tests.app.conftest import STATE, OpenApp
from tests.app.sent import tiles
from tests.fakes import SCRIPT_CAPTION, fake_run

CLIP = Percentile(column="clip_score", lower=70)
LOW = Percentile(column="mimic_score", upper=15)
SHOWPIECE = Minus(keep=CLIP, drop=LOW)


def state(app: AppTest) -> AppState:
    found: AppState = app.session_state[STATE]
    return found


def conditions(app: AppTest) -> list[Condition]:
    return [named.condition for named in state(app).recipe.conditions]


def metric(app: AppTest, label: str) -> str:
    return str(next(one.value for one in app.metric if one.label == label))


def texts(app: AppTest) -> str:
    return "\n".join(str(one.value) for one in [*app.markdown, *app.caption, *app.title])


def keys(app: AppTest) -> set[str]:
    return {one.key for one in app.button if one.key}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A runs root of its own, where recipes can be saved."""
    fake_run(tmp_path, n=130)
    return tmp_path


@pytest.fixture
def filters_page(run: Run, open_app: OpenApp) -> Any:
    """Open the page on the shared run, with a recipe of these conditions."""

    def start(*parts: Condition, **said: Any) -> AppTest:
        recipe = Recipe()
        for part in parts:
            recipe = editing.added(recipe, part)
        return open_app(
            run.path.parent, "filters", select=pack(recipe) or None, run_id=run.id, **said
        )

    return start


def test_without_a_run_the_page_says_what_to_do(tmp_path: Path, open_app: OpenApp) -> None:
    app = open_app(tmp_path, "filters")
    assert "No finished run yet" in texts(app).replace("\\", "")
    assert not app.metric


def test_without_conditions_the_page_offers_examples(filters_page: Any) -> None:
    app = filters_page()
    assert not app.error
    assert metric(app, "Kept") == "130 of 130"
    app.button(key="example-0").click().run()
    assert conditions(app) == [SHOWPIECE]
    assert "example-0" not in keys(app)


def test_the_showpiece_is_built_by_clicking(filters_page: Any, table: pl.DataFrame) -> None:
    app = filters_page()
    app.button(key="add_condition").click().run()
    app.selectbox(key="leaf_column").set_value("clip_score").run()
    assert conditions(app) == []  # not before it is added
    assert any("keeps **39** of 130 by itself" in one.value for one in app.caption)
    app.button(key="edit_add").click().run()
    assert conditions(app) == [CLIP]
    assert state(app).recipe.names == ("clip_score cutoff",)
    app.button(key="minus-0").click().run()
    app.button(key="edit_add").click().run()
    assert conditions(app) == [SHOWPIECE]
    kept = apply(state(app).recipe, table).kept
    assert metric(app, "Kept") == f"{kept} of 130"
    assert state(app).recipe.names == ("clip_score cutoff minus mimic_score cutoff",)


def test_an_alternative_joins_its_card_and_can_be_taken_out(filters_page: Any) -> None:
    app = filters_page(CLIP)
    app.button(key="or-0").click().run()
    app.button_group(key="leaf_kind").set_value("text").run()
    assert app.button(key="edit_add").disabled
    app.text_input(key="leaf_contains").set_value("photo").run()
    app.button(key="edit_add").click().run()
    assert conditions(app) == [AnyOf(conditions=(CLIP, Text(contains="photo")))]
    app.button(key="cut-0-1").click().run()
    assert conditions(app) == [CLIP]
    assert "cut-0-" not in keys(app)


def test_cancelling_adds_nothing(filters_page: Any) -> None:
    app = filters_page()
    app.button(key="add_condition").click().run()
    app.number_input(key="leaf_percent").set_value(10.0).run()
    app.button(key="edit_cancel").click().run()
    assert conditions(app) == []
    assert state(app).filters.editor is None


@pytest.mark.parametrize(
    ("kind", "sets", "wanted"),
    [
        ("percentile", {"leaf_percent": 10.0}, Percentile(column="clip_score", lower=90)),
        (
            "percentile",
            {"leaf_side": "between", "leaf_lower": 20.0, "leaf_upper": 80.0},
            Percentile(column="clip_score", lower=20, upper=80),
        ),
        (
            "percentile",
            {"leaf_by": "topic"},
            Percentile(column="clip_score", lower=70, by="topic"),
        ),
        ("top_k", {"leaf_k": 12}, TopK(column="clip_score", k=12)),
        ("top_k", {"leaf_k": 12, "leaf_end": "smallest"}, TopK(
            column="clip_score", k=12, end="smallest"
        )),
        ("absolute", {"leaf_low": None, "leaf_high": 0.5}, Absolute(column="clip_score", max=0.5)),
        ("text", {"leaf_contains": "dog", "leaf_match_case": True}, Text(
            contains="dog", match_case=True
        )),
        ("category", {"leaf_category": "topic", "leaf_values_topic": ["cat"]}, Category(
            column="topic", values=("cat",)
        )),
    ],
)  # fmt: skip
def test_a_condition_is_edited_in_place(
    filters_page: Any, kind: str, sets: dict[str, Any], wanted: Condition
) -> None:
    app = filters_page(CLIP)
    app.button(key="leaf-0-").click().run()
    if kind != "percentile":
        app.button_group(key="leaf_kind").set_value(kind).run()
    widgets = ("selectbox", "number_input", "text_input", "toggle", "button_group")
    for key, value in sets.items():
        (widget,) = [one for name in widgets for one in getattr(app, name) if one.key == key]
        widget.set_value(value).run()
        assert not app.exception
    if kind == "absolute":  # the first end that was typed is the one the percentile was at
        assert state(app).filters.editor.form.low is None  # type: ignore[union-attr]
    assert conditions(app) == [wanted]
    app.button(key="edit_done").click().run()
    assert "edit_done" not in keys(app)


def test_a_range_keeps_the_place_of_the_percentile(filters_page: Any, table: pl.DataFrame) -> None:
    app = filters_page(CLIP)
    app.button(key="leaf-0-").click().run()
    app.button_group(key="leaf_kind").set_value("absolute").run()
    scores = np.sort(table["clip_score"].to_numpy())
    assert conditions(app) == [Absolute(column="clip_score", min=float(scores[91]))]
    assert metric(app, "Kept") == "39 of 130"


@pytest.mark.parametrize(
    ("sets", "wanted"),
    [
        ({}, {"binarise": {"kind": "kmeans"}}),
        ({"leaf_binarise": "gmm", "leaf_score": "loss"}, {
            "binarise": {"kind": "gmm", "column": "loss"}
        }),
        ({"leaf_scope": "all"}, {"binarise": {"kind": "kmeans", "scope": "all"}}),
        ({"leaf_binarise": "top_percent", "leaf_top_percent": 30.0}, {
            "binarise": {"kind": "top_percent", "percent": 30}
        }),
        ({"leaf_score": "mimic_weight", "leaf_binarise": "threshold", "leaf_factor": 0.5}, {
            "binarise": {"kind": "threshold", "factor": 0.5}
        }),
        ({"leaf_aggregate": "at_least", "leaf_votes": 2}, {
            "aggregate": {"kind": "at_least", "votes": 2}
        }),
        ({"leaf_aggregate": "label_model", "leaf_min_confidence": 0.7}, {
            "aggregate": {"kind": "label_model"}, "min_confidence": 0.7
        }),
    ],
)  # fmt: skip
def test_an_ensemble_is_set_up_by_its_controls(
    run: Run,
    filters_page: Any,
    table: pl.DataFrame,
    sets: dict[str, Any],
    wanted: dict[str, Any],
) -> None:
    app = filters_page(EnsembleVote())
    app.button(key="leaf-0-").click().run()
    for key, value in sets.items():
        widgets = [*app.selectbox, *app.number_input]
        next(one for one in widgets if one.key == key).set_value(value).run()
    condition = EnsembleVote.parse(wanted)
    assert conditions(app) == [condition]
    kept = filters.apply(state(app).recipe, table, run_history(run)).kept
    assert metric(app, "Kept") == f"{kept} of 130"


def test_what_the_run_cannot_apply_stays_in_the_form_with_a_note(filters_page: Any) -> None:
    app = filters_page(EnsembleVote())
    app.button(key="leaf-0-").click().run()
    app.selectbox(key="leaf_aggregate").set_value("at_least").run()
    before = conditions(app)
    app.number_input(key="leaf_votes").set_value(9).run()
    assert conditions(app) == before
    assert app.number_input(key="leaf_votes").value == 9
    assert any("more votes than the run has steps" in one.value for one in app.caption)
    assert not app.exception


def test_an_unfinished_change_leaves_the_recipe_as_it_was(filters_page: Any) -> None:
    app = filters_page(Text(contains="photo"))
    app.button(key="leaf-0-").click().run()
    app.text_input(key="leaf_contains").set_value("").run()
    assert conditions(app) == [Text(contains="photo")]
    assert any("text to look for" in one.value for one in app.caption)
    app.text_input(key="leaf_contains").set_value("dog").run()
    assert conditions(app) == [Text(contains="dog")]


def test_undo_takes_the_open_editor_along(filters_page: Any) -> None:
    app = filters_page(CLIP)
    app.button(key="leaf-0-").click().run()
    app.number_input(key="leaf_percent").set_value(50.0).run()
    app.button(key="undo").click().run()
    assert conditions(app) == [CLIP]
    assert app.number_input(key="leaf_percent").value == 30.0
    app.button(key="undo").click().run()
    assert conditions(app) == []
    assert state(app).filters.editor is None


def test_cards_are_inverted_moved_copied_renamed_and_removed(filters_page: Any) -> None:
    app = filters_page(CLIP, LOW)
    app.button(key="not-0").click().run()
    assert conditions(app) == [Not(condition=CLIP), LOW]
    app.button(key="not-0").click().run()
    assert conditions(app) == [CLIP, LOW]
    app.menu_button(key="more-0").click("down").run()
    assert conditions(app) == [LOW, CLIP]
    app.menu_button(key="more-1").click("up").run()
    assert conditions(app) == [CLIP, LOW]
    app.menu_button(key="more-1").click("copy").run()
    assert conditions(app) == [CLIP, LOW, LOW]
    app.button(key="remove-2").click().run()
    app.menu_button(key="more-0").click("rename").run()
    app.text_input(key="name-0").set_value("the good ones").run()
    assert state(app).recipe.names == ("the good ones", "mimic_score cutoff")
    app.button(key="clear").click().run()
    assert conditions(app) == []


def test_a_card_says_what_it_keeps_alone_and_drops_first(
    filters_page: Any, table: pl.DataFrame
) -> None:
    app = filters_page(CLIP, Not(condition=LOW))
    selection = apply(state(app).recipe, table)
    for named in state(app).recipe.conditions:
        alone = int(filters.votes(named.condition, table).sum())
        first = selection.drops[named.name]
        share = f"{100 * alone / 130:.1f} %".replace(".", "\\.")
        assert f"keeps **{alone}** by itself ({share}), first to drop **{first}**" in texts(app)


def test_truth_metrics_are_those_of_the_drop(filters_page: Any, table: pl.DataFrame) -> None:
    app = filters_page(CLIP)
    dropped = ~apply(state(app).recipe, table).mask
    noisy = table["is_noisy"].to_numpy()
    hits = int((dropped & noisy).sum())
    precision, recall = hits / dropped.sum(), hits / noisy.sum()
    assert metric(app, "Noisy kept") == f"{noisy.sum() - hits} of {noisy.sum()}"
    assert metric(app, "Precision") == f"{precision:.3f}"
    assert metric(app, "Recall") == f"{recall:.3f}"
    assert metric(app, "F1") == f"{2 * precision * recall / (precision + recall):.3f}"
    (kinds,) = [one.proto.body for one in app.get("html") if 'class="kinds"' in one.proto.body]
    swapped = table.filter(pl.col("noise_kind") == "swapped_caption").height
    assert f"of {swapped}" in kinds
    assert "swapped caption" in kinds
    assert ">clean<" not in kinds


def test_a_run_without_truth_says_so(tmp_path: Path, open_app: OpenApp) -> None:
    fake_run(tmp_path, n=20, truth=False)
    app = open_app(tmp_path, "filters")
    assert not app.error
    assert "No column of this run says which samples are noisy" in texts(app)
    assert [one for one in app.metric if one.label == "F1"] == []


def test_a_boolean_is_no_truth_before_it_is_chosen(
    tmp_path: Path, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fake_run(tmp_path, n=20, truth=False)
    told = run_table(run).with_columns(has_face=pl.int_range(20) % 4 == 0)
    monkeypatch.setattr("mimic_core.runs.table.run_table", lambda *_: told)
    app = open_app(tmp_path, "filters")
    assert [one for one in app.metric if one.label == "F1"] == []
    assert "No column is known to say which samples are noisy" in texts(app)
    app.selectbox(key="filters_truth").set_value("has_face").run()
    assert metric(app, "Noisy kept") == "5 of 5"


def test_a_long_recipe_is_shown_in_part(
    filters_page: Any, table: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.components.shared.recipe_file.LINES_SHOWN", 20)
    app = filters_page(Uids.parse({"uids": table["uid"].head(60).to_list()}))
    (code,) = [one.value for one in app.code if "uids:" in one.value]
    whole = state(app).recipe.to_yaml().splitlines()
    assert code.splitlines() == whole[:20]
    assert f"{len(whole) - 20} more lines are in the file" in texts(app)


@pytest.mark.parametrize("column", ["clip_score", "aesthetic", "width", "ensemble confidence"])
def test_the_curve_is_drawn_over_any_column_and_over_confidence(
    filters_page: Any, column: str
) -> None:
    app = filters_page(CLIP, EnsembleVote())
    app.selectbox(key="filters_curve").set_value(column).run()
    assert not app.exception
    assert not app.error
    assert state(app).filters.curve == column
    (chart,) = app.get("plotly_chart")
    figure = json.loads(chart.proto.spec)
    assert [line["name"] for line in figure["data"]] == [
        "retained",
        "precision of the drop",
        "recall of the drop",
    ]
    marks = [shape for shape in figure["layout"]["shapes"] if shape["x0"] == shape["x1"]]
    assert len(marks) == (1 if column in ("clip_score", "ensemble confidence") else 0)


def test_explore_and_export_show_the_same_selection(filters_page: Any) -> None:
    app = filters_page(CLIP)
    app.button(key="minus-0").click().run()
    app.button(key="edit_add").click().run()
    kept = metric(app, "Kept")
    for page in ("explore", "export"):
        app.switch_page(f"views/{page}.py").run()
        assert metric(app, "Kept") == kept
        assert conditions(app) == [SHOWPIECE]
        assert not app.error


def test_a_cutoff_of_explore_does_not_replace_a_card_of_that_name(
    filters_page: Any,
) -> None:
    app = filters_page(CLIP)
    renamed = state(app).recipe.with_condition("mimic_score cutoff", SHOWPIECE)
    app.session_state[STATE] = replace(state(app), recipe=renamed)
    app.switch_page("views/explore.py").run()
    assert app.number_input(key="cut_kept").value is None
    app.number_input(key="cut_kept").set_value(50).run()
    assert state(app).recipe.names == (
        "clip_score cutoff",
        "mimic_score cutoff 2",
        "mimic_score cutoff",
    )
    assert conditions(app)[1] == SHOWPIECE
    app.number_input(key="cut_kept").set_value(None).run()
    assert SHOWPIECE in conditions(app)


def test_any_tree_is_shown_and_survives_a_change_of_one_leaf(filters_page: Any) -> None:
    corners = ((0.0, 0.0), (0.0, 9.0), (9.0, 9.0))
    region = Region(polygon=corners)
    tree = AllOf(
        conditions=(
            AnyOf(conditions=(region, Not(condition=Minus(keep=CLIP, drop=LOW)))),
            Percentile(column="loss", upper=90, by="topic"),
        )
    )
    app = filters_page(tree)
    assert app.button(key="leaf-0-0-0").disabled  # drawn, not typed
    app.button(key="leaf-0-0-1-condition-drop").click().run()
    app.number_input(key="leaf_percent").set_value(20.0).run()
    wanted = Not(condition=Minus(keep=CLIP, drop=Percentile(column="mimic_score", upper=20)))
    (found,) = conditions(app)
    assert found == AllOf(conditions=(AnyOf(conditions=(region, wanted)), tree.conditions[1]))


def test_hostile_names_columns_and_values_are_plain_text(
    filters_page: Any, run: Run, open_app: OpenApp
) -> None:
    hostile = "<img src=x onerror=alert(1)> **b** :material/close: [x](javascript:1)"
    recipe = Recipe().with_condition(hostile, Text(contains=hostile))
    recipe = recipe.with_condition(SCRIPT_CAPTION, Text(contains=SCRIPT_CAPTION))
    app = open_app(run.path.parent, "filters", run_id=run.id, select=pack(recipe))
    assert not app.exception
    assert state(app).recipe == recipe
    shown = [*app.caption, *app.markdown]
    said = [*(one.value for one in shown), *(one.label for one in app.button)]
    for text in said:  # whatever could be markup has a backslash before it
        assert re.findall(r"(?<!\\)(<img|<script|\*\*b|\[x|:material/close)", text) == []
    assert any("onerror" in text for text in said)
    assert all("onerror" not in one.proto.body for one in app.get("html"))


def test_a_recipe_of_a_link_that_does_not_fit_can_be_cleared(run: Run, open_app: OpenApp) -> None:
    recipe = Recipe().with_condition("x", Percentile(column="not_there"))
    app = open_app(run.path.parent, "export", run_id=run.id, select=pack(recipe))
    app.switch_page("views/filters.py").run()
    assert "no such column" in app.error[0].value
    app.button(key="clear").click().run()
    assert not app.error
    assert metric(app, "Kept") == "130 of 130"


def save(app: AppTest, name: str) -> None:
    app.text_input(key="save_name").set_value(name).run()
    app.button(key="save_recipe").click().run()


def test_a_recipe_is_saved_changed_loaded_renamed_and_deleted(
    root: Path, open_app: OpenApp
) -> None:
    app = open_app(root, "filters")
    app.button(key="example-0").click().run()
    save(app, "CLIP minus mimic")
    saved = list_recipes(root)
    assert saved.names == ("clip-minus-mimic",)
    assert saved.saved[0].recipe == state(app).recipe
    assert state(app).filters.saved_as == "clip-minus-mimic"
    command = next(one.value for one in app.code if "mimic_core filter" in one.value)
    assert "filter recipes/clip-minus-mimic.yaml" in command
    app.button(key="clear").click().run()
    app.button(key="load_saved").click().run()
    assert conditions(app) == [SHOWPIECE]
    app.button(key="not-0").click().run()
    assert any("changed" in one.value for one in app.markdown)
    app.text_input(key="rename_to").set_value("Other").run()
    app.button(key="rename_saved").click().run()
    assert list_recipes(root).names == ("other",)
    assert state(app).filters.saved_as == "other"
    app.button(key="delete_saved").click().run()
    assert list_recipes(root).names == ("other",)  # asked once
    app.button(key="delete_really").click().run()
    assert list_recipes(root).names == ()
    assert conditions(app) == [Not(condition=SHOWPIECE)]


def test_saving_over_another_recipe_says_what_it_replaces(root: Path, open_app: OpenApp) -> None:
    save_recipe(root, "mine", Recipe().with_condition("x", LOW))
    app = open_app(root, "filters")
    app.button(key="example-1").click().run()
    app.text_input(key="save_name").set_value("Mine").run()
    assert app.button(key="save_recipe").label == "Replace mine"
    app.button(key="save_recipe").click().run()
    assert list_recipes(root).find("mine").recipe == state(app).recipe  # type: ignore[union-attr]


def test_a_name_without_letters_is_a_message(root: Path, open_app: OpenApp) -> None:
    app = open_app(root, "filters")
    app.button(key="example-0").click().run()
    app.text_input(key="save_name").set_value("../..").run()
    assert "letter or a digit" in app.error[0].value
    assert list_recipes(root).names == ()


def test_damaged_files_are_named_and_do_not_hide_the_others(root: Path, open_app: OpenApp) -> None:
    save_recipe(root, "good", Recipe().with_condition("x", LOW))
    save_recipe(root, "unfit", Recipe().with_condition("x", Percentile(column="gone")))
    (root / "recipes" / "broken.yaml").write_text("conditions: [", "utf-8")
    app = open_app(root, "filters")
    assert not app.exception
    assert any("broken" in one.value and "YAML" in one.value for one in app.caption)
    app.selectbox(key="shelf_name").set_value("unfit").run()
    assert app.button(key="load_saved").disabled
    app.selectbox(key="compare_b").set_value("unfit").run()
    assert "no such column" in app.error[0].value
    app.button(key="drop-broken").click().run()
    assert not (root / "recipes" / "broken.yaml").exists()


def upload(app: AppTest, text: str) -> AppTest:
    file = [("r.yaml", text.encode(), "application/yaml")]
    return app.file_uploader(key="load_recipe").set_value(file).run()


def test_an_uploaded_recipe_becomes_the_selection_or_a_message(filters_page: Any) -> None:
    app = filters_page()
    upload(app, Recipe().with_condition("x", SHOWPIECE).to_yaml())
    assert conditions(app) == [SHOWPIECE]
    upload(app, "nonsense: [")
    assert "not valid YAML" in app.error[0].value
    assert conditions(app) == [SHOWPIECE]
    upload(app, Recipe().with_condition("x", Percentile(column="gone")).to_yaml())
    assert "no such column" in app.error[0].value
    assert conditions(app) == [SHOWPIECE]


def test_two_recipes_are_compared_by_counts_and_quadrants(root: Path, open_app: OpenApp) -> None:
    clip = Recipe().with_condition("clip", CLIP)
    save_recipe(root, "clip", clip)
    app = open_app(root, "filters")
    app.button(key="example-1").click().run()
    app.selectbox(key="compare_b").set_value("clip").run()
    run = next(iter(root.glob("fake-*-probe-*")))
    table = _table(run)
    a, b = (apply(one, table).mask for one in (state(app).recipe, clip))
    assert metric(app, "A keeps") == str(a.sum())
    assert metric(app, "B keeps") == str(b.sum())
    assert metric(app, "Jaccard") == f"{(a & b).sum() / (a | b).sum():.4g}"
    assert metric(app, "Rank correlation") == f"{np.corrcoef(a, b)[0, 1]:.4g}"
    masks = {"both": a & b, "only_a": a & ~b, "only_b": ~a & b, "neither": ~a & ~b}
    ranked = table.with_row_index("row").sort("mimic_score", "uid")
    for quadrant, mask in masks.items():
        assert app.button(key=f"show-{quadrant}").label.startswith(f"**{mask.sum()}** ")
        if mask.any():
            app.button(key=f"show-{quadrant}").click().run()
            here = ranked.filter(pl.Series(mask[ranked["row"].to_numpy()]))["uid"].to_list()
            assert [tile["uid"] for tile in tiles(app)] == here[:24]
    app.button(key="show-only_a").click().run()
    app.segmented_control(key="quadrant_end").set_value("highest").run()
    here = ranked.filter(pl.Series((a & ~b)[ranked["row"].to_numpy()]))["uid"].to_list()[::-1]
    assert [tile["uid"] for tile in tiles(app)] == here[:24]
    app.button(key="take_quadrant").click().run()
    (found,) = conditions(app)
    assert isinstance(found, Minus)
    assert metric(app, "Kept") == f"{(a & ~b).sum()} of 130"


def _table(run: Path) -> pl.DataFrame:
    from mimic_core.runs.run import open_run
    from mimic_core.runs.table import run_table

    return run_table(open_run(run))


def test_the_last_change_is_what_is_compared_first(filters_page: Any) -> None:
    app = filters_page(CLIP)
    app.button(key="minus-0").click().run()
    app.number_input(key="leaf_percent").set_value(90.0).run()
    app.button(key="edit_add").click().run()
    assert app.selectbox(key="compare_b").value == BEFORE
    assert metric(app, "B keeps") == "39"
    assert app.button(key="show-only_a").label.startswith("**0**")
    app.selectbox(key="compare_b").set_value(EVERYTHING).run()
    assert metric(app, "B keeps") == "130"


def test_a_quadrant_that_no_recipe_can_say_names_its_samples(
    filters_page: Any, table: pl.DataFrame
) -> None:
    kept = Percentile(column="aesthetic", lower=50)  # a tenth has no value
    app = filters_page(kept)
    app.selectbox(key="compare_b").set_value(EVERYTHING).run()
    dropped = ~apply(state(app).recipe, table).mask
    app.button(key="show-only_b").click().run()
    app.button(key="take_quadrant").click().run()
    assert (apply(state(app).recipe, table).mask == dropped).all()
    assert state(app).recipe.names == ("chosen samples",)


def test_a_sample_of_a_quadrant_opens(filters_page: Any, table: pl.DataFrame) -> None:
    app = filters_page(CLIP)
    app.button(key="show-both").click().run()
    uid = tiles(app)[0]["uid"]
    app.session_state[STATE] = replace(state(app), opened=uid)
    app.run()
    assert "rank 1 of 39" in texts(app)
    assert table.filter(pl.col("uid") == uid)["caption"][0] in [one.value for one in app.text]


def test_another_run_starts_afresh(tmp_path: Path, open_app: OpenApp) -> None:
    first, second = fake_run(tmp_path, n=8), fake_run(tmp_path, n=6, seed=1)
    app = open_app(tmp_path, "filters", run_id=first.id)
    app.button(key="example-0").click().run()
    app.selectbox(key="run_picker").set_value(second.id).run()
    assert state(app).filters == FiltersState()
    assert metric(app, "Kept") == "6 of 6"


def test_the_address_carries_the_recipe(filters_page: Any, run: Run, open_app: OpenApp) -> None:
    app = filters_page()
    app.button(key="example-0").click().run()
    letters = app.query_params["select"]
    again = open_app(run.path.parent, "filters", run_id=run.id, select=letters)
    assert conditions(again) == [SHOWPIECE]


def test_a_list_of_uids_is_uploaded_typed_and_turned_round(
    tmp_path: Path, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = fake_run(tmp_path / "runs", n=40, images=False)
    uids = run_table(own)["uid"]
    app = open_app(tmp_path / "runs", "filters", own.id)
    app.button(key="add_condition").click().run()
    app.pills(key="leaf_kind").set_value("uid_list").run()
    assert app.button(key="edit_add").disabled
    data = "\n".join(uids[:7]).encode()
    app.file_uploader(key="leaf_upload").set_value([("mine.txt", data, "text/plain")]).run()
    app.button(key="edit_add").click().run()
    (listed,) = conditions(app)
    assert isinstance(listed, UidList)
    assert Path(listed.file).read_bytes() == data
    assert listed.sha256 == hashlib.sha256(data).hexdigest()
    assert metric(app, "Kept") == "7 of 40"


def test_a_list_of_uids_outside_of_the_roots_is_not_read(
    tmp_path: Path, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = fake_run(tmp_path / "runs", n=40, images=False)
    (tmp_path / "secret.txt").write_text(run_table(own)["uid"][0])
    monkeypatch.setenv(READ_VARIABLE, str(tmp_path / "runs"))
    foreign = Recipe().with_condition("secret", UidList(file=str(tmp_path / "secret.txt")))
    app = open_app(tmp_path / "runs", "filters", own.id, pack(foreign))
    assert "outside of the folders" in "".join(str(one.value) for one in app.error)
