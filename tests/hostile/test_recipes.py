"""Recipes from anybody: YAML that asks for too much, files that are none, outputs on each other."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.base.errors import FilterError
from mimic_core.filters import yaml_text
from mimic_core.filters.recipe import Recipe
from mimic_core.runs.run import Run
from tests.hostile.runner import Hostile

KEPT = """\
conditions:
- name: good
  condition: {kind: absolute, column: clip_score, min: 0.2}
"""


def _bomb(width: int, levels: int, leaf: str = "x") -> str:
    lists = [leaf, *(f"*a{level}" for level in range(levels - 1))]
    lines = [f"l{i}: &a{i} [{','.join([one] * width)}]" for i, one in enumerate(lists)]
    return "\n".join([*lines, f"conditions: *a{levels - 1}\n"])


# What is refused, and a word that the refusal must hold.
REFUSED = {
    "billion laughs": (_bomb(9, 10), "more than"),
    "billion laughs of nothing": (_bomb(9, 10, "[]"), "mappings and lists"),
    "billion laughs in values": (_bomb(1000, 3), "values"),
    "an alias inside itself": ("conditions: &a [*a]\n", "alias"),
    "an unknown alias": ("conditions: *nobody\n", "alias"),
    "timestamp tag": ("version: !!timestamp x\n", "tag"),
    "int tag": ("version: !!int abc\n", "tag"),
    "float tag": ("version: !!float abc\n", "tag"),
    "binary tag": ("version: !!binary '='\n", "tag"),
    "set tag": ("conditions: !!set {a, b}\n", "tag"),
    "omap tag": ("conditions: !!omap [a: 1]\n", "tag"),
    "python tag": ("!!python/object/apply:os.system ['touch owned']\n", "tag"),
    "own tag": ("version: !mine 1\n", "tag"),
    "a long integer": (f"version: {'9' * 5000}\n", "number of 5,000 characters"),
    "a long float": (f"version: 1.{'9' * 5000}\n", "number of 5,002 characters"),
    "a long sexagesimal": (f"version: 1{':01' * 5000}\n", "number of"),
    "lone surrogate": ('"\\ud800": 1\n', "recipe"),
    "lone surrogate as a value": ('conditions: ["\\udfff"]\n', "recipe"),
    "deep lists": ("conditions: " + "[" * 100_000, "64 levels"),
    "deep mappings": ("{a: " * 100_000, "64 levels"),
    "deep blocks": ("- " * 5000, "64 levels"),
    "deep conditions": (
        "conditions: [{name: a, condition: "
        + "{kind: not, condition: " * 100
        + "{kind: uids, uids: []}"
        + "}" * 100
        + "}]",
        "64 levels",
    ),
    "two documents": ("version: 1\n---\nversion: 1\n", "document"),
    "a key twice": ("version: 1\nversion: 1\n", "twice"),
    "a list as key": ("[a, b]: 1\n", "key"),
    "a mapping as key": ("{a: b}: 1\n", "key"),
    "a merge": ("a: &a {version: 1}\nb:\n  <<: *a\n", "recipe"),
    "nothing": ("", "mapping"),
    "a text": ("hello\n", "mapping"),
    "a list": ("- a\n- b\n", "mapping"),
    "a bell": ("version: \a1\n", "YAML"),
    "tabs": ("version:\n\t- 1\n", "YAML"),
    "an open list": ("conditions: [\n", "YAML"),
    "another version of YAML": ("%YAML 9.9\n---\nversion: 1\n", "YAML"),
    "another version": ("version: 2\n", "version"),
    "an infinite bound": (KEPT.replace("0.2", ".inf"), "finite"),
    "a bound that is no number": (KEPT.replace("0.2", ".nan"), "finite"),
    "a number too large for a float": (KEPT.replace("0.2", "1.0e+999"), "finite"),
    "no column of that name": (KEPT.replace("clip_score", "'*'"), "no such column"),
    "a pattern as column": (KEPT.replace("clip_score", "'^.*$'"), "no such column"),
    "a zero byte in a column": (KEPT.replace("clip_score", '"clip\\0score"'), "no such column"),
    "a text column as number": (KEPT.replace("clip_score", "caption"), "wrong type"),
    "a negative k": (
        "conditions: [{name: a, condition: {kind: top_k, column: clip_score, k: -1}}]",
        "greater",
    ),
    "a percentile of 101": (
        "conditions: [{name: a, condition: {kind: percentile, column: clip_score, upper: 101}}]",
        "less",
    ),
    "an unknown uid": (
        "conditions: [{name: a, condition: {kind: uids, uids: ['../../etc/passwd']}}]",
        "not in this table",
    ),
    "a polygon of two corners": (
        "conditions: [{name: a, condition: {kind: region, polygon: [[0, 0], [1, 1]]}}]",
        "polygon",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_recipe_that_asks_for_what_it_cannot_need(hostile: Hostile, run: Run, name: str) -> None:
    text, says = REFUSED[name]
    file = hostile.root / "recipe.yaml"
    file.write_text(text)
    hostile.refused("filter", file, run.path, "--out", hostile.out / "k.parquet", says=says)
    assert not hostile.out.exists()
    assert not (hostile.root / "owned").exists()


def test_k_beyond_all_bounds_keeps_all(hostile: Hostile, run: Run) -> None:
    file = hostile.root / "recipe.yaml"
    k = 10**60
    file.write_text(f"conditions: [{{name: a, condition: {{kind: top_k, column: loss, k: {k}}}}}]")
    hostile.survived("filter", file, run.path, says="kept 24 of 24")


NO_FILES = ("/dev/zero", "/dev/stdin", "fifo", "folder", "missing", "bytes", "closed", "link")


@pytest.mark.parametrize("name", NO_FILES)
def test_a_recipe_file_that_is_none(hostile: Hostile, run: Run, name: str) -> None:
    path = hostile.root / name if not name.startswith("/") else Path(name)
    if name == "fifo":
        os.mkfifo(path)
    if name == "folder":
        path.mkdir()
    if name == "bytes":
        path.write_bytes(b"\xff\xfe\x00version")
    if name == "closed":
        path.write_text(KEPT)
        path.chmod(0)
        if os.geteuid() == 0:
            path.unlink()  # root reads it all the same
    if name == "link":
        path.symlink_to(path)
    hostile.refused("filter", path, run.path, says="recipe cannot be read")


def test_a_recipe_larger_than_its_bound(
    hostile: Hostile, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml_text, "MAX_BYTES", 100)
    (hostile.root / "r.yaml").write_text(KEPT + "#" * 100)
    hostile.refused("filter", "r.yaml", run.path, says="too large")


def test_kept_and_dropped_uids_cannot_go_to_one_file(hostile: Hostile, run: Run) -> None:
    (hostile.root / "r.yaml").write_text(KEPT)
    (hostile.root / "out").mkdir()
    (hostile.root / "other").symlink_to(hostile.out)
    for drops in ("out/k.parquet", "out/../out/k.parquet", "other/k.parquet"):
        arguments = ("filter", "r.yaml", run.path, "--out", "out/k.parquet", "--drops", drops)
        hostile.refused(*arguments, "--overwrite", says="same file")
        assert not list(hostile.out.iterdir())
    hostile.survived(*arguments[:-1], "out/d.parquet")
    assert pl.read_parquet(hostile.out / "k.parquet").columns == ["uid"]


def test_control_characters_do_not_reach_the_terminal(hostile: Hostile, run: Run) -> None:
    name = '"\\e]0;owned\\a\\e[2J\\r\\u202e"'
    (hostile.root / "r.yaml").write_text(KEPT.replace("good", name))
    outcome = hostile.survived("filter", "r.yaml", run.path, says="\\x1b")
    assert outcome.said.replace("\n", "").isprintable()
    column = KEPT.replace("clip_score", name)
    (hostile.root / "r.yaml").write_text(column)
    outcome = hostile.refused("filter", "r.yaml", run.path)
    assert outcome.said.replace("\n", "").isprintable()


def test_what_a_recipe_may_hold_is_read_as_it_is_written() -> None:
    text = """\
one: &shared [1, -2.5, true, no, ~, 0x1F, 1e3, 2020-01-01, "12", !!str 7, é, =, y]
two: *shared
"""
    read = [1, -2.5, True, False, None, 31, "1e3", "2020-01-01", "12", "7", "é", "=", "y"]
    assert yaml_text.parse(text) == {"one": read, "two": read}


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text(max_size=20)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=8), values, max_size=5))
def test_what_is_dumped_is_read_back(tree: dict[str, object]) -> None:
    assert yaml_text.parse(yaml_text.dump(tree)) == tree


@given(st.text(alphabet="ab:-[]{}&*!|>'\"\n #%,?~0.\\\t\ud800", max_size=60))
def test_any_text_is_a_recipe_or_an_error(text: str) -> None:
    with suppress(FilterError):
        Recipe.from_yaml(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_recipe_or_an_error(data: bytes) -> None:
    with suppress(FilterError):
        Recipe.from_yaml(yaml_text.decoded(data, "r.yaml"))
