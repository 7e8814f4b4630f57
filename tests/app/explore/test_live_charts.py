"""The live charts as the server sees them, and plotly's in their place."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from streamlit.testing.v1 import AppTest

from app.cache import served, tables
from app.cache.served import SERVED
from app.choices import selecting
from app.choices.box import Box
from app.choices.ranking import GalleryMode
from app.components.explore import charts, histogram
from app.components.explore import map as explore_map
from app.shown import Shown
from app.state import session
from app.state.session import AppState
from mimic_core.filters.conditions import Absolute
from mimic_core.filters.recipe import Recipe
from mimic_core.runs.run import Run
from tests.app.conftest import STATE, OpenApp
from tests.app.drawing.test_packed import unpack
from tests.app.sent import components, tiles


def state(app: AppTest) -> AppState:
    found: AppState = app.session_state[STATE]
    return found


def sent(app: AppTest, name: str) -> dict[str, Any]:
    """What was sent to the chart that has such data."""
    return next(one for one in components(app) if name in one)


def fetched(address: str) -> bytes:
    body = SERVED.body(served.name_in(address))
    assert body is not None
    assert body.encoding == "gzip"
    return body.data


def test_the_browser_fetches_what_the_table_says(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent)
    chart = unpack(fetched(sent(app, "exact")["packed"]))
    assert chart["all"].sum() == chart["kept"].sum() == len(table) == chart["total"]
    assert chart["noisy"].sum() == table["is_noisy"].sum() == chart["noisy_total"]
    drawn = sent(app, "outlines")
    cells = unpack(fetched(drawn["packed"]))
    assert cells["counts"].sum() == len(table)
    assert cells["tones"].size == 3 * cells["kinds"]
    near = json.loads(gzip.decompress(fetched(drawn["hover"])))
    assert len(near["text"]) == len(near["x"]) == len(table)
    assert near["text"][0].splitlines()[1].startswith("mimic score ")


def test_colours_of_another_column_come_with_the_cells(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent)
    app.selectbox(key="colour").set_value("topic").run()
    drawn = sent(app, "outlines")
    cells = unpack(fetched(drawn["packed"]))
    assert cells["rgb"].size == 3 * len(cells["cells"])
    names = [entry[0] for entry in drawn["legend"]["entries"]]
    assert sorted(names) == sorted(table["topic"].unique())
    assert all(entry[3] == entry[0] for entry in drawn["legend"]["entries"])


def test_what_other_conditions_drop_is_grey_whatever_the_cutoff(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent)
    recipe = selecting.set_categories(Recipe(), "topic", [table["topic"][0]])
    recipe = selecting.set_score(recipe, "mimic_score", 0.05, keep="high")
    app.session_state[STATE] = replace(state(app), recipe=recipe)
    app.run()
    kept = table["topic"] == table["topic"][0]
    chart, drawn = sent(app, "exact"), sent(app, "outlines")
    assert unpack(fetched(chart["packed"]))["kept"].sum() == kept.sum()
    assert unpack(fetched(drawn["packed"]))["dropped"].sum() == (~kept).sum()
    assert chart["span"] == drawn["span"] == [pytest.approx(0.05), None]
    assert chart["exact"]["kept"] == (kept & (table["mimic_score"] >= 0.05)).sum()


def test_plain_charts_take_the_place_of_the_live_ones(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent)
    app.session_state[STATE] = replace(state(app), plain=True)
    app.run()
    assert not [one for one in components(app) if "packed" in one]
    assert {one.proto.alt.split()[0] for one in app.get("plotly_chart")} == {"Histogram", "Map"}
    picture = served.picture_at(
        json.loads(app.get("plotly_chart")[1].proto.spec)["layout"]["images"][0]["source"]
    )
    assert picture.data is not None
    assert picture.data.startswith(b"\x89PNG")


@pytest.fixture
def shown(run: Run) -> Shown:
    """What the page shows without a condition."""
    key, text = tables.key_of(run), Recipe().to_yaml()
    return Shown(
        run=run,
        key=key,
        table=tables.table(key),
        recipe=Recipe(),
        recipe_yaml=text,
        selection=tables.selection(key, text),
        truth="is_noisy",
    )


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that are chosen, instead of being shown."""
    found: list[Recipe] = []
    monkeypatch.setattr(session, "set_recipe", found.append)
    monkeypatch.setattr(session, "state", AppState)
    return found


def test_a_drag_on_a_plain_chart_chooses(
    chosen: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    event = {"selection": {"box": [{"x": [0.2, 2.0], "y": [0.0, 1.0]}], "lasso": []}}
    monkeypatch.setattr(session, "value", lambda _: event)
    histogram._dragged(Recipe(), "mimic_score", (0.0, 1.0))()
    explore_map._lassoed(Box(0.0, 2.0, 0.0, 1.0))()
    assert chosen == [
        selecting.set_band(Recipe(), "mimic_score", 0.2, None),
        selecting.keep_region(Recipe(), [(0.2, 0.0), (2.0, 0.0), (2.0, 1.0), (0.2, 1.0)]),
    ]


def test_what_the_live_charts_tell_is_chosen(
    shown: Shown, chosen: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The callbacks of the components, with the events that a browser sends."""
    mounted: list[dict[str, Any]] = []
    monkeypatch.setattr(charts, "_histogram", lambda **how: mounted.append(how))
    monkeypatch.setattr(charts, "_map", lambda **how: mounted.append(how))
    changed: list[dict[str, Any]] = []
    monkeypatch.setattr(session, "change", lambda **changes: changed.append(changes))
    histogram._live(shown, "mimic_score", selecting.Band(None, None))
    explore_map._live(shown, "topic")
    events = SimpleNamespace(
        span=[0.1, None],
        region=[[0, 0], [1, 0], [1, 1]],
        view=[0, 1, 2, 3],
        category=str(shown.table["topic"][0]),
    )
    monkeypatch.setattr(session, "value", lambda _: events)
    told = {name: call for how in mounted for name, call in how.items() if name.startswith("on_")}
    for name in ("span", "region", "view", "category"):
        told[f"on_{name}_change"]()
    monkeypatch.setattr(
        session,
        "value",
        lambda _: SimpleNamespace(span=None, region=None, view=None, category=None),
    )
    for call in told.values():
        call()  # an event of another kind
    assert chosen == [
        selecting.set_band(Recipe(), "mimic_score", 0.1, None),
        selecting.keep_region(Recipe(), [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]),
        selecting.set_categories(Recipe(), "topic", [shown.table["topic"][0]]),
    ]
    assert changed == [{"zoom": Box(0.0, 1.0, 2.0, 3.0)}]


def test_a_band_is_typed_by_its_ends(run: Run, open_app: OpenApp, table: pl.DataFrame) -> None:
    app = open_app(run.path.parent)
    recipe = selecting.set_band(Recipe(), "mimic_score", 0.0, 0.1)
    app.session_state[STATE] = replace(state(app), recipe=recipe)
    app.run()
    app.number_input(key="cut_to").set_value(-0.05).run()  # the ends change places
    (named,) = state(app).recipe.conditions
    assert named.condition == Absolute(column="mimic_score", min=-0.05, max=0.0)
    app.segmented_control(key="keep_side").set_value("high").run()
    (named,) = state(app).recipe.conditions
    assert isinstance(named.condition, Absolute)
    assert (named.condition.min, named.condition.max) == (pytest.approx(-0.05), None)
    kept = (table["mimic_score"] >= -0.05).sum()
    assert sent(app, "exact")["exact"]["kept"] == kept


def test_the_gallery_around_the_cutoff_follows_what_is_in_the_hand(
    run: Run, open_app: OpenApp, table: pl.DataFrame
) -> None:
    app = open_app(run.path.parent)
    app.segmented_control(key="gallery_mode").set_value("cutoff").run()
    assert sent(app, "tiles")["follow"]["column"] == "mimic_score"
    value = float(table["mimic_score"].max())
    app.session_state[STATE] = replace(state(app), near=value)
    app.run()
    nearest = int((table["mimic_score"] - value).abs().arg_min() or 0)
    assert tiles(app)[0]["uid"] == table["uid"][nearest]


def test_a_view_of_the_map_is_drawn_anew(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent)
    whole = sent(app, "outlines")["packed"]
    app.session_state[STATE] = replace(state(app), zoom=Box(-1.0, 1.0, -0.7, 0.7))
    app.run()
    drawn = sent(app, "outlines")["packed"]
    assert drawn != whole
    assert unpack(fetched(drawn))["box"] == [-1.0, 1.0, -0.7, 0.7]


@pytest.mark.parametrize(
    ("mode", "cutoff", "said"),
    [
        ("kept", 1e6, "Nothing is selected"),
        ("dropped", -1e6, "Nothing is dropped"),
        ("lasso", None, "Nothing is inside the lasso"),
    ],
)
def test_an_empty_gallery_says_why(
    run: Run, open_app: OpenApp, mode: GalleryMode, cutoff: float | None, said: str
) -> None:
    app = open_app(run.path.parent)
    recipe = Recipe()
    if cutoff is None:
        recipe = selecting.keep_region(recipe, [(1e5, 1e5), (1e5 + 1, 1e5), (1e5, 1e5 + 1)])
    else:
        recipe = selecting.set_score(recipe, "mimic_score", cutoff, keep="high")
    app.session_state[STATE] = replace(state(app), recipe=recipe, gallery=mode)
    app.run()
    assert said in "".join(str(one.value) for one in app.markdown)
    assert not [one for one in components(app) if "tiles" in one]


def test_going_to_a_rank_turns_to_its_page(run: Run, open_app: OpenApp) -> None:
    app = open_app(run.path.parent)
    app.number_input(key="gallery_rank").set_value(125).run()
    assert state(app).page == 3
    assert "rank **121–130** of 130" in "".join(str(one.value) for one in app.markdown)
