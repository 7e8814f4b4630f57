"""The app on foreign text, in its fields and uploads: shown as letters, refused with words."""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message
from streamlit.testing.v1 import AppTest

from app.cache.tables import shown_picture
from app.components.shared.sign_in import may_enter
from app.library import (
    DEMO_POOL,
    READ_VARIABLE,
    ROOT_VARIABLE,
    require_allowed,
    require_allowed_config,
)
from app.state.address import pack
from app.state.prove import uids_from
from mimic_core.base.config import RunConfig
from mimic_core.base.errors import ConfigError
from mimic_core.filters.conditions import Absolute
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table
from mimic_core.sources import by_uid
from tests.fakes import fake_run
from tests.hostile.foreign import CATEGORY, MARK, NUMBER, ODD, foreign_recipe, foreign_run
from tests.hostile.runner import Hostile
from tests.pages import (
    MAIN,
    STATE,
    OpenApp,
    components_are_looked_for_once,
    elsewhere,
    no_defects,
    open_app,
)
from tests.recipes import recipe

PAGES = ("explore", "dynamics", "filters", "prove", "export", "data", "train")
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
__all__ = ["components_are_looked_for_once", "elsewhere", "no_defects", "open_app"]


@pytest.fixture
def foreign(tmp_path: Path, run: Run) -> Run:
    return foreign_run(run, tmp_path / "runs")


@pytest.fixture
def open_page(open_app: OpenApp) -> Open:
    def start(
        found: Run, page: str = "explore", *, run: str | None = None, **address: str
    ) -> AppTest:
        return open_app(found.path.parent, page, run or found.id, **address)

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
def test_foreign_text_is_never_markup(open_page: Open, foreign: Run, page: str) -> None:
    app = open_page(foreign, page, select=pack(foreign_recipe()))
    if page == "explore":
        state = app.session_state[STATE]
        uid = foreign.features.samples["uid"][3]
        app.session_state[STATE] = replace(state, column=NUMBER, colour=CATEGORY, opened=uid)
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
def test_a_column_of_an_odd_name_can_be_shown(open_page: Open, foreign: Run, name: str) -> None:
    app = open_page(foreign)
    state = app.session_state[STATE]
    app.session_state[STATE] = replace(state, column=name, colour=name)
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
def test_a_selection_in_the_address_that_is_none(open_page: Open, run: Run, name: str) -> None:
    app = open_page(run, select=LETTERS[name])
    assert app.error or app.warning


@pytest.mark.parametrize(
    "run_id", ["../../etc", "nobody", "<b>x</b>", "a\0b", "x" * 5000, ":material/home:"]
)
def test_a_run_in_the_address_that_is_none(open_page: Open, run: Run, run_id: str) -> None:
    app = open_page(run, run=run_id)
    assert not app.exception


def test_a_damaged_run_does_not_hide_the_others(open_page: Open, foreign: Run) -> None:
    for number, text in enumerate(("", "{}", "[]", "\udcff", '{"schema_version": 2}')):
        folder = foreign.path.parent / f"bad-{number} {MARK.replace('/', '')}"
        folder.mkdir()
        (folder / "run.json").write_bytes(text.encode(errors="surrogateescape"))
    app = open_page(foreign)
    assert app.metric  # the good run is shown
    assert sum("bad" in one.value for one in app.sidebar.caption) == 5


def test_a_damaged_table_is_a_message(open_page: Open, foreign: Run) -> None:
    path = foreign.features.path / "samples" / "00001.parquet"
    path.write_bytes(path.read_bytes()[:50])
    app = open_page(foreign)
    assert "00001" in app.error[0].value


# --- places ---


def test_typed_paths_stay_below_the_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "runs"))
    assert require_allowed(outside) == outside  # without roots, all that the user may
    monkeypatch.setenv(READ_VARIABLE, str(inside))
    for path in (inside, inside / "a" / "b", tmp_path / "runs" / "x", DEMO_POOL):
        assert require_allowed(path) == path
    for path in (
        outside,
        inside / "link",
        inside / ".." / "outside",
        Path("/"),
        Path("/etc/passwd"),
    ):
        with pytest.raises(ConfigError, match="outside of the folders"):
            require_allowed(path)


@pytest.mark.parametrize("field", ["source", "reference", "weights", "head", "model"])
def test_files_that_a_job_names_stay_below_the_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    secret = tmp_path / "secret.pt"
    secret.write_text("x")
    monkeypatch.setenv(READ_VARIABLE, str(tmp_path / "inside"))
    values: dict[str, Any] = {"source": {"path": str(tmp_path / "inside")}, "reference": "r"}
    if field == "source":
        values["source"] = {"path": str(tmp_path)}
    if field == "reference":
        values["reference"] = str(secret)
    if field == "weights":
        values["reference"] = f"ViT-B-32:{secret}"
    if field == "head":
        values["head"] = {"file": str(secret)}
    values["snapshot" if field == "model" else "probe"] = (
        {"model": f"ViT-B-32:{secret}"} if field == "model" else {}
    )
    with pytest.raises(ConfigError, match="outside of the folders"):
        require_allowed_config(RunConfig.parse(values))


def test_links_of_a_pool_lead_into_the_roots_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inside").mkdir()
    config = RunConfig.parse(
        {"source": {"path": str(tmp_path / "inside")}, "reference": "r", "probe": {}}
    )
    assert require_allowed_config(config) == config
    monkeypatch.setenv(READ_VARIABLE, str(tmp_path / "inside"))
    roots = require_allowed_config(config).source.link_roots
    assert str(tmp_path / "inside") in roots
    assert str(tmp_path) not in roots


def test_images_outside_of_the_roots_are_not_shown(
    open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = fake_run(tmp_path / "runs", n=6)
    pool = shutil.move(found.features.source_root(), tmp_path / "elsewhere")
    path = found.features.path / "features.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "location": {"relative": "x", "absolute": str(pool)}}))
    row = run_table(found).row(0, named=True)
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "runs"))
    assert shown_picture(open_run(found.path), row, side=20)[0] is not None
    monkeypatch.setenv(READ_VARIABLE, str(tmp_path / "runs"))
    assert shown_picture(open_run(found.path), row, side=20) == (
        None,
        "the pool is outside of the folders that the app may use",
    )


@pytest.mark.parametrize(
    "path",
    ["a\0b", "/dev/zero", "/proc/self/mem", "~nobody/x", "x" * 5000, "<b>x</b>"],
)
def test_hostile_paths_in_the_field_of_the_pool(open_page: Open, run: Run, path: str) -> None:
    app = open_page(run, "data")
    app.segmented_control(key="pool_kind").set_value("On this machine").run()
    app.text_input(key="pool_path").set_value(path).run()
    assert not app.exception
    assert app.error


# --- signing in ---


def test_nobody_has_to_sign_in_unless_the_server_asks(open_page: Open, run: Run) -> None:
    assert open_page(run).metric


def test_without_signing_in_no_page_is_shown(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(run.path.parent))
    app = AppTest.from_file(str(MAIN), default_timeout=60)
    app.secrets["auth"] = {"client_id": "x"}
    app.run()
    assert not app.exception
    assert [one.label for one in app.button] == ["Sign in"]
    assert not app.metric
    assert not app.sidebar.selectbox


@pytest.mark.parametrize(
    ("email", "rules", "enters"),
    [
        ("a@b.c", {}, True),
        ("a@b.c", {"emails": ["A@b.c"]}, True),
        ("a@b.c", {"emails": ["x@b.c"]}, False),
        ("a@b.c", {"domains": ["b.c"]}, True),
        ("a@b.c", {"domains": ["@B.C"]}, True),
        ("a@evil-b.c", {"domains": ["b.c"]}, False),
        ("a@b.c@evil", {"domains": ["b.c"]}, False),
        ("b.c", {"domains": ["b.c"]}, False),
        ("", {"domains": ["b.c"]}, False),
        ("", {"emails": ["a@b.c"]}, False),
    ],
)
def test_who_may_enter(email: str, rules: dict[str, Any], enters: bool) -> None:
    assert may_enter(email, rules) == enters


# --- uploads ---


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", b""), ("a.txt", b"\xff\xfe"), ("a.csv", b"a,b\n1,2\n"), ("a.parquet", b"PAR1"),
        ("a.jsonl", b"{"), ("a.jsonl", b'{"uid": [1]}'), ("a.npy", b"\x93NUMPY"), ("a.npy", b""),
        ("../../a.txt", b""), ("a\0.txt", b""), ("a.\0", b""),
        ("a.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<u8', 'fortran_order': False, "
         b"'shape': (99999999999,), }".ljust(128) + b"\n"),
    ],
)  # fmt: skip
def test_held_out_files_that_are_none(hostile: Hostile, name: str, data: bytes) -> None:
    hostile.out.mkdir()
    hostile.error(uids_from, name, data, hostile.out)


def test_held_out_files_are_bounded(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_uid, "MAX_UID_FILE", 10)
    file = hostile.root / "a.txt"
    file.write_text("0" * 11)
    hostile.error(by_uid.read_uids, file, says="more than")
    hostile.error(by_uid.read_uids, Path("/dev/zero"), says="no file")
