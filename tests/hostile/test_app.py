"""The app on foreign text, in its fields and uploads: shown as letters, refused with words."""

from __future__ import annotations

import base64
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from google.protobuf.message import Message
from streamlit.testing.v1 import AppTest

import mimic_core.scoring.tuning  # noqa: F401 - the app imports it in a thread, beside pytest's filters
from app.library import ROOT_VARIABLE
from app.state.address import pack
from mimic_core.filters.conditions import Absolute, Category
from mimic_core.filters.library import save_recipe
from mimic_core.runs.run import Run, open_run
from tests.places import ROOT
from tests.recipes import recipe

DEFECTS = "app.components.shared.errors"  # the logger that is told of them
PAGES = ("explore", "dynamics", "filters", "prove", "export", "data", "train")
MARK = ":material/home: :red[r] $x^2$ <b>b</b> **s** [a](http://e.example) `c`"
NUMBER, CATEGORY, TRUTH = f"n {MARK}", f"c {MARK}", f"t {MARK}"
ODD = ("a\0b", "", "UID", "count", "%{x}", "^", "$", ".*", "own.x")
# What streamlit and the browser show as it is. Everything else is markdown.
RAW = {
    "Code": {"code_text"}, "Selectbox": {"options", "raw_value", "set_value"},
    "MultiSelect": {"options", "default"}, "TextInput": {"default", "value", "placeholder"},
    "NumberInput": {"placeholder"}, "Html": {"body"}, "Text": {"body"}, "PlotlyChart": {"spec"},
    "Arrow": {"columns", "alt", "description"}, "BidiComponent": {"json", "mixed"},
    "DownloadButton": {"url"}, "TextArea": {"default", "value", "placeholder"},
}  # fmt: skip
NAMES = {"id", "form_id", "key", "url", "user_key", "icon", "alt"}

Open = Callable[..., AppTest]


@pytest.fixture
def foreign(tmp_path: Path, run: Run) -> Run:
    """A run whose columns, captions and recipes are named by somebody else."""
    root = tmp_path / "runs"
    shutil.copytree(run.path.parent, root)
    found = open_run(root / run.path.name)
    names = {"aesthetic": NUMBER, "topic": CATEGORY, "is_noisy": TRUTH}
    for table in ("samples", "index"):
        for path in (found.features.path / table).glob("0000?.parquet"):
            frame = pl.read_parquet(path).rename(names)
            more = [pl.Series(name, [0.5] * len(frame)) for name in ODD]
            foreign = (pl.col("caption") + f" {MARK}").alias("caption")
            kinds = pl.Series(CATEGORY, [f"{value} {MARK}" for value in frame[CATEGORY]])
            frame.with_columns(foreign, kinds, *more).write_parquet(path)
    save_recipe(root, "saved", _recipe())
    return open_run(found.path)


def _recipe() -> Any:
    conditions: dict[str, Any] = {
        f"one {MARK}": Absolute(column=NUMBER, min=0.0),
        f"two {MARK}": Category(column=CATEGORY, values=(f"cat {MARK}", f"dog {MARK}")),
        "three": Absolute(column=".*", min=0.0),
    }
    return recipe(**conditions)


@pytest.fixture(autouse=True)
def _no_defects(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """What the pages call a defect fails the test; no test sees the bundled run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("app.library.BUNDLED_ROOT", tmp_path / "bundled")
    yield
    logged = [one for one in caplog.get_records("call") if one.name == DEFECTS]
    assert [one.exc_info for one in logged if one.levelname == "ERROR"] == []


@pytest.fixture
def open_app(monkeypatch: pytest.MonkeyPatch) -> Open:
    def start(found: Run, page: str = "explore", **address: str) -> AppTest:
        monkeypatch.setenv(ROOT_VARIABLE, str(found.path.parent))
        app = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
        for name, value in {"run": found.id, **address}.items():
            app.query_params[name] = value
        app.run()
        if page != "explore":
            app.switch_page(f"views/{page}.py").run()
        assert not app.exception
        return app

    return start


def _texts(message: Message, raw: set[str]) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.name in raw | NAMES:
            continue
        values = value if field.is_repeated else [value]
        for one in values:
            if isinstance(one, Message):
                yield from _texts(one, RAW.get(type(one).__name__, set()))
            elif isinstance(one, str):
                yield one


def _all_messages(app: AppTest) -> Iterator[Any]:
    def walk(node: Any) -> Iterator[Any]:
        if getattr(node, "proto", None) is not None and isinstance(node.proto, Message):
            yield node.proto
        for child in getattr(node, "children", {}).values():
            yield from walk(child)

    yield from walk(app._tree)


@pytest.mark.parametrize("page", PAGES)
def test_foreign_text_is_never_markup(open_app: Open, foreign: Run, page: str) -> None:
    app = open_app(foreign, page, select=pack(_recipe()))
    if page == "explore":
        state = app.session_state["mimicscope"]
        uid = foreign.features.samples["uid"][3]
        app.session_state["mimicscope"] = replace(state, column=NUMBER, colour=CATEGORY, opened=uid)
        app.run()
    seen = 0
    for message in _all_messages(app):
        for text in _texts(message, RAW.get(type(message).__name__, set())):
            seen += "material/home" in text.replace("\\", "")
            assert MARK not in text, f"{type(message).__name__}: {text[:200]}"
            for part in (":material/home:", ":red[", "$x^2$", "<b>", "**s**", "[a](", "`c`"):
                assert part not in text, f"{type(message).__name__}: {text[:300]}"
        if type(message).__name__ == "PlotlyChart":
            assert "<b>b" not in message.spec.replace("\\u003c", "<").replace("\\u003e", ">")
            assert "$x" not in message.spec
        if type(message).__name__ == "Html":
            assert "<b>b" not in message.body
    if page in ("explore", "dynamics", "filters"):
        assert seen, "the page shows none of it: the test looks at nothing"


@pytest.mark.parametrize("name", ODD)
def test_a_column_of_an_odd_name_can_be_shown(open_app: Open, foreign: Run, name: str) -> None:
    app = open_app(foreign)
    state = app.session_state["mimicscope"]
    app.session_state["mimicscope"] = replace(state, column=name, colour=name)
    app.run()
    assert not app.exception
    assert [one.value for one in app.error] == []


LETTERS = {
    "noise": "!!!!",
    "no base64": "abc",
    "a bomb": base64.urlsafe_b64encode(zlib.compress(b"[" * (50 << 20), 9)).decode(),
    "deep": base64.urlsafe_b64encode(zlib.compress(b"[" * 100_000)).decode(),
    "another tree": base64.urlsafe_b64encode(zlib.compress(b'{"a": [1, 2]}')).decode(),
    "NaN": base64.urlsafe_b64encode(zlib.compress(b'{"version": NaN}')).decode(),
    "an unknown column": pack(recipe(Absolute(column="nobody", min=0))),
}


@pytest.mark.parametrize("name", LETTERS)
def test_a_selection_in_the_address_that_is_none(open_app: Open, run: Run, name: str) -> None:
    app = open_app(run, select=LETTERS[name])
    assert app.error or app.warning


@pytest.mark.parametrize(
    "run_id", ["../../etc", "nobody", "<b>x</b>", "a\0b", "x" * 5000, ":material/home:"]
)
def test_a_run_in_the_address_that_is_none(open_app: Open, run: Run, run_id: str) -> None:
    app = open_app(run, run=run_id)
    assert not app.exception


def test_a_damaged_run_does_not_hide_the_others(open_app: Open, foreign: Run) -> None:
    for number, text in enumerate(("", "{}", "[]", "\udcff", '{"schema_version": 2}')):
        folder = foreign.path.parent / f"bad-{number} {MARK.replace('/', '')}"
        folder.mkdir()
        (folder / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    app = open_app(foreign)
    assert app.metric  # the good run is shown
    assert sum("bad" in one.value for one in app.sidebar.caption) == 5


def test_a_damaged_table_is_a_message(open_app: Open, foreign: Run) -> None:
    path = foreign.features.path / "samples" / "00001.parquet"
    path.write_bytes(path.read_bytes()[:50])
    app = open_app(foreign)
    assert "00001" in app.error[0].value
