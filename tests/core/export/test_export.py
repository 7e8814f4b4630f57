from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimic_core.base import files
from mimic_core.base.errors import ConfigError, ExportError, MimicError, RunError
from mimic_core.export.export import export, export_bytes, manifest_for, selected_rows
from mimic_core.export.formats import datacomp_bytes
from mimic_core.export.record import replay
from mimic_core.export.settings import SUFFIXES, TABLES, ExportConfig, ExportFormat
from mimic_core.filters.conditions import Absolute, Category, Percentile, Region, Uids
from mimic_core.filters.recipe import Recipe, Selection, apply
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table
from tests.fakes import SCRIPT_CAPTION, TRICKY_CAPTION, fake_run

FORMATS = TABLES
RECIPE = (
    Recipe()
    .with_condition("score", Percentile(column="mimic_score", lower=30))
    .with_condition("lasso", Region.box((-20, 20), (-4, 20)))
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fake_run(tmp_path_factory.mktemp("runs"), n=40)


@pytest.fixture(scope="module")
def table(run: Run) -> pl.DataFrame:
    return run_table(run)


@pytest.fixture(scope="module")
def selection(table: pl.DataFrame) -> Selection:
    found = apply(RECIPE, table)
    assert 0 < found.kept < found.total
    return found


def read_uids(data: bytes, file_format: ExportFormat) -> list[str]:
    """The uids in an exported file, read by other means than it was written."""
    match file_format:
        case "parquet":
            return pl.read_parquet(data)["uid"].to_list()
        case "csv":
            return [row["uid"] for row in csv.DictReader(io.StringIO(data.decode(), newline=""))]
        case "jsonl":
            return [json.loads(line)["uid"] for line in data.decode().split("\n") if line]
        case "datacomp":
            return [f"{high:016x}{low:016x}" for high, low in np.load(io.BytesIO(data)).tolist()]


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_holds_exactly_the_selected_uids_in_order(
    selection: Selection, table: pl.DataFrame, file_format: ExportFormat
) -> None:
    data = export_bytes(selection, table, ExportConfig(format=file_format))
    assert read_uids(data, file_format) == sorted(table["uid"].filter(pl.Series(selection.mask)))


@pytest.mark.parametrize("file_format", FORMATS)
def test_bytes_depend_neither_on_the_order_of_the_table_nor_on_the_time(
    table: pl.DataFrame, file_format: ExportFormat
) -> None:
    shuffled = table.sample(fraction=1, shuffle=True, seed=1)
    one = export_bytes(apply(RECIPE, table), table, ExportConfig(format=file_format))
    assert export_bytes(apply(RECIPE, shuffled), shuffled, ExportConfig(format=file_format)) == one


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_selection_of_nothing_gives_a_file_without_rows(
    run: Run, table: pl.DataFrame, file_format: ExportFormat, tmp_path: Path
) -> None:
    none = apply(Recipe().with_condition("none", Uids(uids=())), table)
    out = tmp_path / f"none{SUFFIXES[file_format]}"
    result = export(none, table, run, ExportConfig(format=file_format), out=out)
    assert read_uids(out.read_bytes(), file_format) == []
    said = json.loads(result.manifest.read_bytes())
    assert (said["kept"], said["drops"], said["retention_rate"]) == (0, {"none": 40}, 0.0)
    assert replay(result.manifest, run.path.parent).kept == 0


def test_parquet_keeps_every_column_value_and_dtype(
    selection: Selection, table: pl.DataFrame
) -> None:
    data = export_bytes(selection, table, ExportConfig(format="parquet"))
    assert pl.read_parquet(data).equals(selected_rows(selection, table))
    assert pl.read_parquet_schema(io.BytesIO(data)) == table.schema


def test_csv_keeps_text_numbers_and_missing_values_apart(table: pl.DataFrame) -> None:
    data = export_bytes(apply(Recipe(), table), table, ExportConfig(format="csv")).decode()
    rows = {row["uid"]: row for row in csv.DictReader(io.StringIO(data, newline=""))}
    for row in table.iter_rows(named=True):
        found = rows[row["uid"]]
        assert found["caption"] == row["caption"]
        assert np.float32(found["mimic_score"]) == np.float32(row["mimic_score"])
        assert found["aesthetic"] == ("" if row["aesthetic"] is None else str(row["aesthetic"]))
    captions = [row["caption"] for row in rows.values()]
    assert SCRIPT_CAPTION in captions
    assert TRICKY_CAPTION in captions


def test_jsonl_keeps_every_value(table: pl.DataFrame) -> None:
    data = export_bytes(apply(Recipe(), table), table, ExportConfig(format="jsonl")).decode()
    rows = [json.loads(line) for line in data.split("\n") if line]
    for found, row in zip(rows, table.sort("uid").iter_rows(named=True), strict=True):
        assert list(found) == table.columns
        for name, value in row.items():
            if table.schema[name] == pl.Float32 and value is not None:
                assert np.float32(found[name]) == np.float32(value)
            else:
                assert found[name] == value


def with_columns(table: pl.DataFrame, **columns: Any) -> tuple[Selection, pl.DataFrame]:
    """The first rows of ``table`` with other columns, all selected."""
    some = next(iter(columns.values()))
    changed = table.sort("uid")[: len(some)].select("uid").with_columns(**columns)
    return apply(Recipe(), changed), changed


def test_nested_columns_are_json_text_in_csv_and_json_in_jsonl(table: pl.DataFrame) -> None:
    boxes = pl.Series([[[0.5, 1.0], []], None])
    about = pl.Series([{"a": 1, "when": date(2026, 1, 2)}, {"a": None, "when": None}])
    chosen, nested = with_columns(table, boxes=boxes, about=about)
    text = export_bytes(chosen, nested, ExportConfig(format="csv")).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["boxes"] for row in rows] == ["[[0.5, 1.0], []]", ""]
    assert json.loads(rows[0]["about"]) == {"a": 1, "when": "2026-01-02"}
    lines = export_bytes(chosen, nested, ExportConfig(format="jsonl")).decode().splitlines()
    assert json.loads(lines[0])["boxes"] == [[0.5, 1.0], []]
    assert json.loads(lines[1])["boxes"] is None


def test_formulas_are_quoted(table: pl.DataFrame) -> None:
    chosen, formulas = with_columns(table, caption=pl.Series(["=1+1", "@SUM(A1)", "-2", ""]))
    text = export_bytes(chosen, formulas, ExportConfig(format="csv")).decode()
    assert [row["caption"] for row in csv.DictReader(io.StringIO(text))] == [
        "'=1+1",
        "'@SUM(A1)",
        "'-2",
        "",
    ]
    assert text.endswith('""\n')  # an empty text is not a missing one


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_text_formats_refuse_what_they_cannot_hold(
    table: pl.DataFrame, file_format: ExportFormat
) -> None:
    chosen, binary = with_columns(table, thumbnail=pl.Series([b"\xff"]))
    with pytest.raises(ExportError, match="got 'thumbnail'"):
        export_bytes(chosen, binary, ExportConfig(format=file_format))
    chosen, nan = with_columns(table, vector=pl.Series([[math.nan]]))
    with pytest.raises(ExportError, match="column vector holds a nested number"):
        export_bytes(chosen, nan, ExportConfig(format=file_format))
    assert pl.read_parquet(export_bytes(chosen, nan, ExportConfig(format="parquet"))).height == 1


def test_datacomp_subset_is_what_its_resharder_expects(table: pl.DataFrame) -> None:
    subset = np.load(
        io.BytesIO(export_bytes(apply(Recipe(), table), table, ExportConfig(format="datacomp")))
    )
    assert subset.dtype == np.dtype("u8,u8")
    assert subset.shape == (40,)
    assert (np.sort(subset) == subset).all()
    first = min(table["uid"])
    assert subset[0].item() == (int(first[:16], 16), int(first[16:32], 16))


uid_texts = st.binary(min_size=16, max_size=16).map(bytes.hex)


@given(st.lists(uid_texts, unique=True, max_size=20))
def test_datacomp_holds_any_uids(uids: list[str]) -> None:
    table = pl.DataFrame({"uid": pl.Series(uids, dtype=pl.String)})
    data = datacomp_bytes(table)
    expected = np.array([(int(u[:16], 16), int(u[16:], 16)) for u in uids], np.dtype("u8,u8"))
    expected.sort()
    assert np.load(io.BytesIO(data)).tolist() == expected.tolist()


def test_datacomp_refuses_uids_it_cannot_hold() -> None:
    table = pl.DataFrame({"uid": ["A" * 32]})
    with pytest.raises(MimicError, match="32 lower-case hexadecimal digits"):
        export_bytes(apply(Recipe(), table), table, ExportConfig(format="datacomp"))


@pytest.mark.parametrize(
    ("column", "step"), [("url_hash", "--uid-column url_hash"), (None, "one of")]
)
def test_datacomp_is_refused_for_a_pool_without_uids_of_its_own(
    tmp_path: Path, column: str | None, step: str
) -> None:
    run = fake_run(tmp_path, n=4)
    info = json.loads((run.features.path / "features.json").read_bytes())
    files.write_json(run.features.path / "features.json", {**info, "indexed": {"own_uids": 0}})
    table = run_table(open_run(run.path))
    if column:
        table = table.with_columns(pl.Series(column, [f"{n:032X}" for n in range(4)]))
    chosen = apply(Recipe(), table)
    with pytest.raises(ExportError, match="no uids of its own") as caught:
        export(
            chosen,
            table,
            open_run(run.path),
            ExportConfig(format="datacomp"),
            out=tmp_path / "a.npy",
        )
    assert step in caught.value.next_step
    assert not (tmp_path / "a.npy").exists()
    export(
        chosen, table, open_run(run.path), ExportConfig(format="jsonl"), out=tmp_path / "a.jsonl"
    )


def test_of_several_pools_only_kept_samples_need_uids_of_their_own(tmp_path: Path) -> None:
    run = fake_run(tmp_path, n=4)
    info = json.loads((run.features.path / "features.json").read_bytes())
    indexed = {"own_uids": 2, "pools": {"a": {"own_uids": 2}, "b": {"own_uids": 0}}}
    files.write_json(run.features.path / "features.json", {**info, "indexed": indexed})
    run = open_run(run.path)
    table = run_table(run).with_columns(pool=pl.Series(["a", "a", "b", "b"]))
    config = ExportConfig(format="datacomp")
    with pytest.raises(ExportError, match="made from keys and captions of b"):
        export(apply(Recipe(), table), table, run, config, out=tmp_path / "all.npy")
    of_a = Recipe().with_condition("a", Category(column="pool", values=("a",)))
    export(apply(of_a, table), table, run, config, out=tmp_path / "a.npy")
    assert len(np.load(tmp_path / "a.npy")) == 2


captions = st.lists(st.text(max_size=12), min_size=1, max_size=6)


@given(captions)
def test_any_caption_survives_every_text_format(texts: list[str]) -> None:
    table = pl.DataFrame({"uid": [f"{i:032x}" for i in range(len(texts))], "caption": texts})
    chosen = apply(Recipe(), table)
    as_csv = io.StringIO(
        export_bytes(chosen, table, ExportConfig(format="csv")).decode(), newline=""
    )
    cells = [row["caption"] for row in csv.DictReader(as_csv)]
    assert [re.sub(r"^'('*[=+\-@\t\r\n＝＋－＠])", r"\1", cell) for cell in cells] == texts
    lines = export_bytes(chosen, table, ExportConfig(format="jsonl")).decode().split("\n")
    assert [json.loads(line)["caption"] for line in lines if line] == texts


def test_manifest_says_how_the_file_came_about(
    run: Run, table: pl.DataFrame, selection: Selection, tmp_path: Path
) -> None:
    result = export(selection, table, run, ExportConfig(format="csv"), out=tmp_path / "good.csv")
    assert result.files == (tmp_path / "good.csv",)
    assert result.manifest == tmp_path / "good.csv.manifest.json"
    said = json.loads(result.manifest.read_bytes())
    data = (tmp_path / "good.csv").read_bytes()
    assert said["files"] == [
        {"name": "good.csv", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    ]
    listed = "".join(f"{uid}\n" for uid in selection.uids)
    assert said["uids_sha256"] == hashlib.sha256(listed.encode()).hexdigest()
    assert Recipe.from_tree(said["recipe"]) == RECIPE
    assert said["total"] - said["kept"] == sum(said["drops"].values())
    assert said["retention_rate"] == said["kept"] / said["total"]
    assert said["run_id"] == run.id
    assert said["feature_set"] == run.features.id
    assert said["pool_fingerprint"] == run.features.info["fingerprint"]
    assert said["map"]["embedding"] == "image"
    assert (said["format"], said["schema_version"]) == ("csv", 2)
    assert said["created_at"].endswith("+00:00")


def test_a_manifest_for_a_download_is_the_one_written_to_disk(
    run: Run, table: pl.DataFrame, selection: Selection, tmp_path: Path
) -> None:
    result = export(selection, table, run, ExportConfig(format="jsonl"), out=tmp_path / "a.jsonl")
    config = ExportConfig(format="jsonl")
    said = manifest_for(selection, table, run, config, name="a.jsonl")
    assert {**said, "created_at": ""} == {
        **json.loads(result.manifest.read_bytes()),
        "created_at": "",
    }


@pytest.mark.parametrize("file_format", FORMATS)
def test_replaying_a_manifest_gives_the_same_uids(
    run: Run, table: pl.DataFrame, selection: Selection, tmp_path: Path, file_format: ExportFormat
) -> None:
    out = tmp_path / f"good{SUFFIXES[file_format]}"
    manifest = export(selection, table, run, ExportConfig(format=file_format), out=out).manifest
    again = replay(manifest, run.path.parent)
    assert again.uids.equals(selection.uids)
    assert export_bytes(again, table, ExportConfig(format=file_format)) == out.read_bytes()
    out.unlink()  # the manifest alone will do
    assert replay(manifest, run.path.parent).uids.equals(selection.uids)


def test_replay_refuses_a_changed_file(
    run: Run, table: pl.DataFrame, selection: Selection, tmp_path: Path
) -> None:
    result = export(selection, table, run, ExportConfig(format="csv"), out=tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("uid\n")
    with pytest.raises(ExportError, match=r"a\.csv is not the file that was exported"):
        replay(result.manifest, run.path.parent)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"total": 41}, "total differs; got 40; allowed: 41"),
        ({"drops": {"score": 0, "lasso": 0}}, "drops differs"),
        ({"uids_sha256": "0" * 64}, "uids_sha256 differs"),
        ({"schema_version": 0}, "not a manifest of this version"),
        ({"recipe": {"version": 1, "conditions": []}}, "drops differs"),
    ],
)
def test_replay_refuses_other_counts_and_uids(
    run: Run,
    table: pl.DataFrame,
    selection: Selection,
    tmp_path: Path,
    change: dict[str, Any],
    says: str,
) -> None:
    manifest = export(
        selection, table, run, ExportConfig(format="csv"), out=tmp_path / "a.csv"
    ).manifest
    files.write_json(manifest, {**files.read_json(manifest), **change})
    with pytest.raises(ExportError, match=says):
        replay(manifest, run.path.parent)


def test_replay_notices_a_map_made_anew(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "runs", n=40)
    table = run_table(run)
    lasso = Recipe().with_condition("lasso", Absolute(column="map_x", min=0))
    chosen = apply(lasso, table)
    manifest = export(
        chosen, table, run, ExportConfig(format="csv"), out=tmp_path / "a.csv"
    ).manifest
    places = run.features.path / "map.parquet"
    turned = pl.read_parquet(places).with_columns(-pl.col("map_x"))
    files.write_parquet(places, turned)
    with pytest.raises(ExportError, match="does not keep the same samples any more"):
        replay(manifest, run.path.parent)


def test_replay_needs_the_run(
    run: Run, table: pl.DataFrame, selection: Selection, tmp_path: Path
) -> None:
    manifest = export(
        selection, table, run, ExportConfig(format="csv"), out=tmp_path / "a.csv"
    ).manifest
    with pytest.raises(RunError, match=r"run\.json is missing"):
        replay(manifest, tmp_path)


def test_writing_the_same_again_changes_nothing(
    run: Run, table: pl.DataFrame, selection: Selection, tmp_path: Path
) -> None:
    out = tmp_path / "a.parquet"
    result = export(selection, table, run, ExportConfig(format="parquet"), out=out)
    before = [(path.read_bytes(), path.stat().st_ino) for path in (out, result.manifest)]
    assert export(selection, table, run, ExportConfig(format="parquet"), out=out) == result
    assert [(path.read_bytes(), path.stat().st_ino) for path in (out, result.manifest)] == before


def test_another_file_is_not_overwritten_unless_asked(
    run: Run, table: pl.DataFrame, selection: Selection, tmp_path: Path
) -> None:
    out = tmp_path / "a.csv"
    out.write_text("mine")
    with pytest.raises(ExportError, match="another file is already there"):
        export(selection, table, run, ExportConfig(format="csv"), out=out)
    assert out.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [out]
    manifest = export(
        selection, table, run, ExportConfig(format="csv"), out=out, overwrite=True
    ).manifest
    assert replay(manifest, run.path.parent).kept == selection.kept


def test_the_manifest_of_another_recipe_is_not_overwritten(
    run: Run, table: pl.DataFrame, tmp_path: Path
) -> None:
    out = tmp_path / "a.csv"
    export(apply(Recipe(), table), table, run, ExportConfig(format="csv"), out=out)
    everything = Recipe().with_condition("all", Absolute(column="width", min=0))
    with pytest.raises(ExportError, match="manifest"):
        export(apply(everything, table), table, run, ExportConfig(format="csv"), out=out)


def test_unsuitable_targets_are_refused(
    run: Run, table: pl.DataFrame, selection: Selection, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"a name ending in \.npy\. Next step: write to a\.npy"):
        export(selection, table, run, ExportConfig(format="datacomp"), out=tmp_path / "a.csv")
    (tmp_path / "b.csv").mkdir()
    with pytest.raises(ExportError, match="a folder of that name"):
        export(selection, table, run, ExportConfig(format="csv"), out=tmp_path / "b.csv")
    with pytest.raises(ConfigError, match="'parquet', 'csv', 'jsonl', 'datacomp', 'webdataset'"):
        ExportConfig.parse({"format": "xlsx"})


def test_a_selection_of_another_table_is_refused(selection: Selection, table: pl.DataFrame) -> None:
    fewer = table.filter(pl.col("uid") != selection.uids[0])
    with pytest.raises(ExportError, match=f"{selection.kept - 1} rows for {selection.kept}"):
        export_bytes(selection, fewer, ExportConfig(format="csv"))
    twice = pl.concat([table, table])
    with pytest.raises(ExportError, match=f"{2 * selection.kept} rows for {selection.kept}"):
        export_bytes(selection, twice, ExportConfig(format="csv"))
