"""Columns that users have named as they liked: each is addressed by its exact name."""

from __future__ import annotations

import ast
import csv
import io
import json
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.base.schema import RESERVED_COLUMNS, is_pattern, named
from mimic_core.filters.conditions import Absolute, Category, Percentile, Text, TopK
from mimic_core.filters.recipe import apply, needed_columns
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table, scan_run
from mimic_core.sources.tables.columns import column, stored_names
from mimic_core.stats.detection import auroc
from tests.hostile.runner import Hostile
from tests.places import ROOT
from tests.recipes import recipe

PATTERNS = ("*", "^.*$", "^mimic.*$", "^$")
ODD = (
    "a\0b", "", " ", "UID", "Mimic_Score", "uid ", "a.b", "own.x", "^", "$", ".*", "(", "[a]", "'",
    '"', "a,b", "a\nb", "=1+1", "-x", "@x", "é", "e\u0301", "🐈", "\u202e", "count", "len",
    "literal", "value", "row", "code", "x" * 3000, "__index__", "%{x}", "${x}", "NaN", "null",
    "true", "1",
)  # fmt: skip


@pytest.fixture
def odd(hostile: Hostile, run: Run) -> Run:
    """The run with a number column and a text column of every odd name."""
    shutil.copytree(run.path.parent, hostile.root / "runs")
    found = open_run(hostile.root / "runs" / run.path.name)
    for path in (found.features.path / "samples").glob("*.parquet"):
        frame = pl.read_parquet(path)
        numbers = [pl.Series(name, range(len(frame)), pl.Float64) for name in ODD]
        texts = [pl.Series(f"{name}t", ["cat", *["dog"] * (len(frame) - 1)]) for name in ODD]
        frame.with_columns(*numbers, *texts).write_parquet(path)
    return open_run(found.path)


@pytest.mark.parametrize("name", ODD)
def test_conditions_look_at_the_column_of_that_name(hostile: Hostile, odd: Run, name: str) -> None:
    whole = hostile.call(run_table, odd)
    made = recipe(
        Absolute(column=name, min=2),
        Percentile(column=name, lower=10, by=f"{name}t"),
        TopK(column=name, k=5, by=f"{name}t"),
        Category(column=f"{name}t", values=("dog",)),
        Text(column=f"{name}t", contains="o"),
    )
    lazy = apply(made, scan_run(odd, needed_columns(made)))
    plain = {name: "plain", f"{name}t": "text"}
    same = recipe(
        Absolute(column="plain", min=2),
        Percentile(column="plain", lower=10, by="text"),
        TopK(column="plain", k=5, by="text"),
        Category(column="text", values=("dog",)),
        Text(column="text", contains="o"),
    )
    expected = apply(
        same, whole.select("uid", *(named(old).alias(new) for old, new in plain.items()))
    )
    assert lazy.uids.to_list() == expected.uids.to_list()
    assert 0 < lazy.kept < lazy.total
    assert lazy.drops == expected.drops


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "parquet"])
def test_exports_hold_every_column(hostile: Hostile, odd: Run, file_format: str) -> None:
    out = hostile.out / f"e.{file_format}"
    hostile.survived("export", odd.path, "--format", file_format, "--out", out)
    if file_format == "parquet":
        names = pl.read_parquet_schema(out).names()
    elif file_format == "jsonl":
        names = list(json.loads(out.read_text().splitlines()[0]))
    else:
        csv.field_size_limit(1 << 20)
        names = next(csv.reader(io.StringIO(out.read_text(), newline="")))
        names = [name[1:] if name[:2] in ("'=", "'-", "'@") else name for name in names]
    assert set(ODD) <= set(names)
    hostile.survived("replay", f"{out}.manifest.json", "--runs", odd.path.parent)


@pytest.mark.parametrize("name", PATTERNS)
def test_a_stored_pattern_is_refused(hostile: Hostile, odd: Run, name: str) -> None:
    path = odd.features.path / "samples" / "00000.parquet"
    pl.read_parquet(path).with_columns(pl.lit(1).alias(name)).write_parquet(path)
    hostile.refused("export", odd.path, "--format", "csv", "--out", "out/e.csv", says="pattern")


@given(names=st.lists(st.sampled_from([*PATTERNS, *ODD, "uid", "label", "source_*"]), unique=True))
def test_names_are_stored_exactly_or_renamed(names: list[str]) -> None:
    stored = stored_names(names)
    assert len(set(stored.values())) == len(names)
    for name, new in stored.items():
        free = name.casefold() not in RESERVED_COLUMNS and not is_pattern(name)
        whole = name != "" and not any(unicodedata.category(letter) == "Cc" for letter in name)
        if free and whole:
            assert new == name
        assert new.casefold() not in RESERVED_COLUMNS
        assert not is_pattern(new)


@given(name=st.text(max_size=8) | st.sampled_from(PATTERNS), other=st.text(max_size=8))
def test_named_is_that_column_alone(name: str, other: str) -> None:
    frame = pl.DataFrame({name: [1]}).with_columns(pl.Series(other, [2]))
    assert frame.select(named(name)).columns == [name]


def test_no_query_reads_a_name_as_a_pattern() -> None:
    """``pl.col`` takes literal names alone: what users have named goes through ``named``."""
    found = []
    for package in ("mimic_core", "app"):
        for path in sorted((ROOT / package).rglob("*.py")):
            found += [f"{path.relative_to(ROOT)}:{line}" for line in _loose_columns(path)]
    assert found == []


def _loose_columns(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text())):
        is_col = isinstance(node, ast.Call) and ast.unparse(node.func) in ("pl.col", "pl.exclude")
        if not is_col or all(isinstance(one, ast.Constant) for one in node.args):
            continue
        # The readers of tables escape names, or have a prefix in front that no pattern has.
        if not ast.unparse(node.args[0]).startswith(("plain(", "OWN + ")):
            yield node.lineno


# --- cells ---

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''=1")


def test_formulas_are_quoted_in_csv_alone(hostile: Hostile, odd: Run) -> None:
    for path in (odd.features.path / "samples").glob("*.parquet"):
        frame = pl.read_parquet(path).with_columns(caption=pl.Series([*FORMULAS, "'tis", "plain"]))
        frame.write_parquet(path)
    for file_format in ("csv", "jsonl", "parquet"):
        out = hostile.out / f"e.{file_format}"
        hostile.survived("export", odd.path, "--format", file_format, "--out", out)
    csv.field_size_limit(1 << 20)
    rows = list(
        csv.DictReader(io.StringIO((hostile.out / "e.csv").read_bytes().decode(), newline=""))
    )
    raw = pl.read_parquet(hostile.out / "e.parquet")["caption"].to_list()
    lines = (hostile.out / "e.jsonl").read_text().splitlines()
    assert [json.loads(line)["caption"] for line in lines] == raw
    assert sorted(set(raw)) == sorted([*FORMULAS, "'tis", "plain"])
    for row, caption in zip(rows, raw, strict=True):
        assert row["caption"] == (f"'{caption}" if caption in FORMULAS else caption)
    assert "apostrophe" in json.loads((hostile.out / "e.csv.manifest.json").read_text())["cells"]
    assert "cells" not in json.loads((hostile.out / "e.jsonl.manifest.json").read_text())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": float("nan")}, '{"a": null}'),
        ([1.5, float("inf")], "[1.5, null]"),
        ({"a": [{"b": float("-inf")}]}, '{"a": [{"b": null}]}'),
    ],
)
def test_nested_metadata_hold_no_nan(value: Any, text: str) -> None:
    assert column("a", [value], pl.String()).to_list() == [text]


def test_a_truth_of_an_odd_name_counts(hostile: Hostile, odd: Run) -> None:
    table = hostile.call(run_table, odd)
    for name in ODD[:10]:
        truth = (table[f"{name}t"] == "cat").alias(name)
        assert auroc(-table["mimic_score"], truth) is not None
