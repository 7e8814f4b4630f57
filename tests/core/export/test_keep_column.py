"""The pool's own table with one column more: every other byte, value and type stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mimic_core.base.errors import ExportError
from mimic_core.export.export import export
from mimic_core.export.record import replay
from mimic_core.export.settings import ExportConfig
from mimic_core.filters.conditions import Uids
from mimic_core.filters.recipe import Recipe, apply
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from tests.core.export.any_run import run_on
from tests.core.sources_pools import image_bytes, write_files, write_image_rows
from tests.fakes import fake_run

PICTURES: dict[str, bytes | str] = {f"{n}.png": image_bytes((n, 0, 0)) for n in range(4)}


def kept(run: Run, keys: set[str], out: Path, **settings: Any) -> dict[str, int]:
    """Export what has one of these keys; returns what is in no row."""
    table = run_table(run)
    chosen = tuple(table.filter(pl.col("key").is_in(keys))["uid"])
    selection = apply(Recipe().with_condition("chosen", Uids(uids=chosen)), table)
    config = ExportConfig(format="keep_column", **settings)
    result = export(selection, table, run, config, out=out)
    assert replay(result.manifest, run.path.parent).kept == len(chosen)
    return result.not_exported


def test_the_lines_of_a_csv_stay_to_the_byte(tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbfimage;caption;n\r\n",
        b'0.png;"two\r\nlines; and a ""quote""";007\r\n',
        b"\r\n",
        b"1.png;one; 1.50 \r\n",
        b"2.png;too;many;cells\r\n",
        b"gone.png;no picture;\r\n",
        b"3.png;the last one;=1+1",
    ]
    pool = write_files(tmp_path / "pool", {**PICTURES, "c.csv": b"".join(lines)})
    run = run_on(pool, tmp_path / "runs")
    assert kept(run, {"0.png", "3.png"}, tmp_path / "kept.csv") == {}
    assert (tmp_path / "kept.csv").read_bytes() == b"".join(
        [
            lines[0].replace(b"\r\n", b";keep\r\n"),
            lines[1][:-2] + b";true\r\n",
            lines[2],
            lines[3][:-2] + b";false\r\n",
            lines[4][:-2] + b";false\r\n",
            lines[5][:-2] + b";false\r\n",
            lines[6] + b";true",
        ]
    )


def test_lines_of_old_macs_and_of_tabs(tmp_path: Path) -> None:
    for name, text in (("mac.csv", b"image,caption\r0.png,a\r1.png,b\r"),
                       ("tab.tsv", b"image\tcaption\n0.png\ta\n1.png\tb\n")):  # fmt: skip
        folder = tmp_path / name.partition(".")[0]
        run = run_on(write_files(folder / "pool", {**PICTURES, name: text}), folder / "runs")
        kept(run, {"1.png"}, folder / name)
        found = (folder / name).read_bytes()
        cell = b"\t" if name == "tab.tsv" else b","
        end = b"\n" if name == "tab.tsv" else b"\r"
        assert found.split(end) == [
            line + cell + said
            for line, said in zip(text.split(end), (b"keep", b"false", b"true"), strict=False)
        ] + [b""]


def test_rows_of_parquet_keep_their_order_types_and_metadata(tmp_path: Path) -> None:
    captions = [["one", "two"], [], ["three"], None]
    table = pa.table(
        {
            "image": pa.array([f"{n}.png" for n in range(4)]),
            "caption": pa.array(captions, pa.list_(pa.string())),
            "small": pa.array([1, None, 3, 4], pa.int8()),
            "fine": pa.array([1, 2, None, 4], pa.timestamp("ns")),
        }
    ).replace_schema_metadata({"mine": "stays"})
    pool = write_files(tmp_path / "pool", PICTURES)
    pq.write_table(table, pool / "c.parquet", row_group_size=3)
    run = run_on(pool, tmp_path / "runs")
    kept(run, {"0.png"}, tmp_path / "kept.parquet")
    found = pq.read_table(tmp_path / "kept.parquet")
    original = pq.read_table(pool / "c.parquet")
    assert found.drop_columns("keep").equals(original, check_metadata=True)
    assert found["keep"].to_pylist() == [True, False, False, False]


def test_a_row_with_several_captions_is_kept_for_one_of_them(tmp_path: Path) -> None:
    rows = [
        {"image": "0.png", "caption": ["a", "b"], "deep": {"x": [1, 2.50]}},
        {"image": "1.png", "caption": "c"},
        {"image": "2.png", "caption": ["d", " ", "e"]},
    ]
    text = "\n".join(json.dumps(row) for row in rows).replace("2.5", "2.50") + "\n\n{broken\n"
    pool = write_files(tmp_path / "pool", {**PICTURES, "c.jsonl": text})
    run = run_on(pool, tmp_path / "runs")
    table = run_table(run)
    last = table.filter(pl.col("caption") == "e")["uid"][0]
    selection = apply(Recipe().with_condition("one", Uids(uids=(last,))), table)
    config = ExportConfig(format="keep_column")
    export(selection, table, run, config, out=tmp_path / "kept.jsonl")
    expected = text.splitlines()
    for number, said in enumerate(("false", "false", "true")):
        expected[number] = expected[number][:-1] + f', "keep": {said}}}'
    assert (tmp_path / "kept.jsonl").read_text().splitlines() == expected


def test_parquet_files_with_pictures_keep_their_names(tmp_path: Path) -> None:
    for part in range(2):
        rows = [{"image": image_bytes(n), "text": f"{part} {n}"} for n in range(3)]
        write_image_rows(tmp_path / "pool" / "data" / f"{part}.parquet", rows)
    run = run_on(tmp_path / "pool", tmp_path / "runs")
    kept(run, {"000000001"}, tmp_path / "kept")
    for part in range(2):
        original = pl.read_parquet(tmp_path / "pool" / "data" / f"{part}.parquet")
        found = pl.read_parquet(tmp_path / "kept" / "data" / f"{part}.parquet")
        assert found.drop("keep").equals(original)
        assert found["keep"].to_list() == [False, True, False]
    write_image_rows(tmp_path / "pool" / "data" / "1.parquet", rows[:2])
    with pytest.raises(ExportError, match="changed since they were scored"):
        kept(run, {"000000001"}, tmp_path / "again")


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_table_elsewhere_is_joined_by_uid(tmp_path: Path, suffix: str) -> None:
    run = fake_run(tmp_path / "runs", n=6)
    uids = run_table(run)["uid"].to_list()
    metadata = pl.DataFrame({"uid": [uids[3].upper(), "f" * 32, uids[0]], "text": ["x", "y", "z"]})
    table = tmp_path / f"metadata.{suffix}"
    {"parquet": metadata.write_parquet, "csv": metadata.write_csv, "jsonl": metadata.write_ndjson}[
        suffix
    ](table)
    keys = set(run_table(run)["key"][:2])
    assert kept(run, keys, tmp_path / f"kept.{suffix}", table=str(table)) == {"no_row": 1}
    read = {"parquet": pl.read_parquet, "csv": pl.read_csv, "jsonl": pl.read_ndjson}[suffix]
    found = read(tmp_path / f"kept.{suffix}")
    assert found.drop("keep").equals(metadata)
    assert found["keep"].to_list() == [False, False, True]


def test_what_cannot_be_marked_is_refused(tmp_path: Path) -> None:
    text = b"image,caption\n0.png,a\n1.png,b\n"
    run = run_on(write_files(tmp_path / "pool", {**PICTURES, "c.csv": text}), tmp_path / "runs")
    with pytest.raises(ExportError, match=r"a name ending in \.csv\. Next step: write to a\.csv"):
        kept(run, set(), tmp_path / "a.tsv")
    other = tmp_path / "other.csv"
    for content, says in (
        (b"keep,uid\nx,y\n", "has a column keep already"),
        (b"a,b\n1,2\n", "no column uid"),
        (None, "cannot be read"),
    ):
        other.unlink(missing_ok=True)
        if content is not None:
            other.write_bytes(content)
        with pytest.raises(ExportError, match=says):
            kept(run, set(), tmp_path / "b.csv", table=str(other))
    (tmp_path / "t.xlsx").write_bytes(b"")
    with pytest.raises(ExportError, match="no known format"):
        kept(run, set(), tmp_path / "b.xlsx", table=str(tmp_path / "t.xlsx"))
