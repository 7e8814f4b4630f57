"""Every format with pictures, read back by those who read it: their libraries, and ourselves."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mimic_core.export.export import ExportResult, export
from mimic_core.export.pictures import locator_of
from mimic_core.export.record import replay
from mimic_core.export.settings import ExportConfig, ExportFormat
from mimic_core.export.shards import tar_header
from mimic_core.filters.conditions import Percentile
from mimic_core.filters.recipe import Recipe, Selection, apply
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from mimic_core.sources.reading import read_image
from tests.core.export.any_run import run_on
from tests.core.sources_pools import (
    image_bytes,
    indexed,
    opened,
    triple,
    write_files,
    write_image_rows,
    write_tar,
    write_zip,
)

N = 12
HALF = Recipe().with_condition("better half", Percentile(column="mimic_score", lower=50))
WORDS = ["a dog", 'she said "hi"\nand left', "tab\there", "=1+1", "NA", "münchen", "2020-01-02"]


def picture(number: int) -> bytes:
    """One of several kinds, different for every number."""
    kind = ("PNG", "JPEG", "WEBP")[number % 3]
    return image_bytes((number * 20, 100, 255 - number * 20), size=(6 + number, 5), kind=kind)


def caption(number: int) -> str:
    return WORDS[number] if number < len(WORDS) else f"picture number {number}"


def uid(number: int) -> str:
    return f"{number * 7919:032x}"


def tar_pool(root: Path) -> Path:
    for shard in range(2):
        members: list[tuple[str, bytes]] = []
        for number in range(shard * N // 2, (shard + 1) * N // 2):
            meta = {"uid": uid(number), "rank": number, "split": "train"}
            members += triple(f"{number:03d}", caption(number), meta, image=picture(number))
        write_tar(root / f"{shard:05d}.tar", members)
    return root


def packed_pool(root: Path) -> Path:
    """Images first and then texts, in another order: samples are complete out of order."""
    pictures = [(f"{n:03d}.jpg", picture(n)) for n in range(N)]
    texts = [(f"{n:03d}.txt", caption(n).encode()) for n in reversed(range(N))]
    plain = write_tar(root / "0.tmp", [*pictures, *texts])
    (root / "0.tar.gz").write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    plain.unlink()
    return root


def table_files() -> dict[str, bytes | str]:
    """Equal names in two folders, each picture with two captions but for the first."""
    out = io.StringIO(newline="")
    table = csv.writer(out)
    table.writerow(["image", "caption", "split", "box"])
    for number in range(N):
        split = ("train", "test")[number % 2]
        table.writerow([f"{split}/{number // 2}.img.png", caption(number), split, number])
        if number:
            table.writerow([f"{split}/{number // 2}.img.png", f"again {number}", split, ""])
    files: dict[str, bytes | str] = {"captions.csv": out.getvalue()}
    for number in range(N):
        files[f"{('train', 'test')[number % 2]}/{number // 2}.img.png"] = picture(number)
    return files


def table_pool(root: Path) -> Path:
    return write_files(root, table_files())


def zip_pool(root: Path) -> Path:
    root.mkdir(parents=True)
    return write_zip(root / "pool.zip", table_files())


def parquet_pool(root: Path) -> Path:
    rows = [
        {"image": {"bytes": picture(n), "path": None}, "text": caption(n), "boxes": [[n, 1], [2]]}
        for n in range(N)
    ]
    write_image_rows(root / "data" / "0.parquet", rows, row_group_size=5)
    return root


def class_pool(root: Path) -> Path:
    names = ("cat", "dog", "sea lion")
    return write_files(root, {f"{names[n % 3]}/{n // 6}{n}.jpg": picture(n) for n in range(N)})


PAIRS: dict[str, Callable[[Path], Path]] = {
    "tar": tar_pool,
    "tar.gz": packed_pool,
    "table": table_pool,
    "zip": zip_pool,
    "parquet": parquet_pool,
}
POOLS = {**PAIRS, "classes": class_pool}


class Pool:
    """A pool, its run and the half of it that is exported."""

    def __init__(self, name: str, root: Path) -> None:
        self.run: Run = run_on(POOLS[name](root / "pool"), root / "runs")
        self.table = run_table(self.run)
        self.selection: Selection = apply(HALF, self.table)
        self.kept = self.table.filter(pl.Series(self.selection.mask))

    def export(self, out: Path, format: ExportFormat, **settings: Any) -> ExportResult:  # noqa: A002
        config = ExportConfig(format=format, **settings)
        result = export(self.selection, self.table, self.run, config, out=out)
        assert replay(result.manifest, self.run.path.parent).uids.equals(self.selection.uids)
        return result

    def bytes_of(self) -> dict[str, bytes]:
        """The original bytes by uid."""
        root = self.run.features.source_root()
        return {
            row["uid"]: read_image(root, locator_of(row)) for row in self.kept.iter_rows(named=True)
        }

    def texts(self) -> dict[str, str]:
        """Captions or labels by uid."""
        return dict(self.kept.select("uid", pl.coalesce("caption", "label")).iter_rows())


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pool]:
    made = {name: Pool(name, tmp_path_factory.mktemp("pools")) for name in POOLS}
    assert all(0 < one.selection.kept < one.selection.total for one in made.values())
    return made


def read_again(
    path: Path, folder: Path, **settings: Any
) -> tuple[dict[str, str], dict[str, bytes]]:
    """Captions or labels and image bytes by uid, of an export opened as a pool."""
    source = opened(path, **settings)
    samples, skips = indexed(source, folder)
    assert skips.is_empty(), skips
    rows = samples.iter_rows(named=True)
    images = {row["uid"]: read_image(source.root, locator_of(row)) for row in rows}
    return dict(samples.select("uid", pl.coalesce("caption", "label")).iter_rows()), images


WHOLE: list[ExportFormat] = ["webdataset", "imagefolder", "hf_parquet", "links"]


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("file_format", WHOLE)
def test_an_export_opened_as_a_pool_has_the_same_uids_texts_and_bytes(
    pools: dict[str, Pool], name: str, file_format: ExportFormat, tmp_path: Path
) -> None:
    pool, settings = pools[name], {}
    if file_format in ("imagefolder", "hf_parquet"):
        settings["no_splits"] = True
    result = pool.export(tmp_path / "kept", file_format, **settings)
    assert result.not_exported == {}
    column = {"label_column": "label"} if name == "classes" else {}
    texts, images = read_again(tmp_path / "kept", tmp_path / "index", **column)
    assert texts == pool.texts()
    assert images == pool.bytes_of()


@pytest.mark.parametrize("name", PAIRS)
def test_the_table_for_open_clip_has_paths_that_exist(
    pools: dict[str, Pool], name: str, tmp_path: Path
) -> None:
    pool = pools[name]
    result = pool.export(tmp_path / "kept.tsv", "open_clip")
    stays = name == "table"
    assert [path.name for path in result.files] == ["kept.tsv", "kept.tsv.images"][: 2 - stays]
    with (tmp_path / "kept.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["uid"]: row["title"] for row in rows} == pool.texts()
    assert {row["uid"]: Path(row["filepath"]).read_bytes() for row in rows} == pool.bytes_of()


# --- webdataset ---

# webdataset leaves its files to the garbage collector.
untidy = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@untidy
def test_webdatasets_own_reader_finds_every_sample_in_the_order_of_the_pool(
    pools: dict[str, Pool], tmp_path: Path
) -> None:
    import webdataset

    pool = pools["tar"]
    pool.export(tmp_path / "kept", "webdataset", shard_size=4)
    shards = sorted(map(str, (tmp_path / "kept").glob("*.tar")))
    assert [Path(shard).name for shard in shards] == ["00000000.tar", "00000001.tar"]
    found = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    assert [one["__key__"] for one in found] == pool.kept["uid"].to_list()
    for sample, row in zip(found, pool.kept.iter_rows(named=True), strict=True):
        assert sample["txt"].decode() == row["caption"]
        (image,) = (sample[kind] for kind in ("jpg", "png", "webp") if kind in sample)
        assert image == pool.bytes_of()[row["uid"]]
        said = json.loads(sample["json"])
        assert said["uid"] == row["uid"]
        assert said["mimic_score"] == pytest.approx(row["mimic_score"], rel=1e-6)
        assert not {"image_path", "image_offset", "label"} & said.keys()


def test_the_statistics_are_what_the_resharder_and_open_clip_look_for(
    pools: dict[str, Pool], tmp_path: Path
) -> None:
    pools["tar"].export(tmp_path / "kept", "webdataset", shard_size=4)
    said = json.loads((tmp_path / "kept" / "00000001_stats.json").read_text())
    assert (said["successes"], said["count"]) == (2, 2)
    sizes = json.loads((tmp_path / "kept" / "sizes.json").read_text())
    assert sizes == {"00000000.tar": 4, "00000001.tar": 2}


@untidy
def test_labels_are_numbers_that_webdataset_decodes_and_names_beside_them(
    pools: dict[str, Pool], tmp_path: Path
) -> None:
    import webdataset

    pool = pools["classes"]
    pool.export(tmp_path / "kept", "webdataset")
    names = (tmp_path / "kept" / "classnames.txt").read_text().splitlines()
    assert names == sorted(set(pool.texts().values()))
    shards = str(tmp_path / "kept" / "00000000.tar")
    reader = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode("pilrgb")
    found = {one["__key__"]: names[one["cls"]] for one in reader}
    assert found == pool.texts()


def test_a_tar_is_what_tarfile_reads_and_has_no_time_and_no_owner(
    pools: dict[str, Pool], tmp_path: Path
) -> None:
    for out in ("one", "two"):
        pools["tar.gz"].export(tmp_path / out, "webdataset")
    data = (tmp_path / "one" / "00000000.tar").read_bytes()
    assert data == (tmp_path / "two" / "00000000.tar").read_bytes()
    assert len(data) % 10240 == 0
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        members = tar.getmembers()
        assert {(one.mtime, one.uid, one.gid, one.uname, one.mode) for one in members} == {
            (0, 0, 0, "", 0o644)
        }
        assert len(members) == 3 * pools["tar.gz"].selection.kept


@pytest.mark.parametrize("size", [0, 1, 511, 512, 8**8, 8**11 - 1])
def test_a_header_is_tarfiles_own(size: int) -> None:
    own = tarfile.TarInfo("0123456789abcdef0123456789abcdef.jpg")
    own.size, own.mode = size, 0o644
    theirs = own.tobuf(tarfile.USTAR_FORMAT)
    found = tarfile.TarInfo.frombuf(tar_header(own.name, size), "utf-8", "strict")
    expected = tarfile.TarInfo.frombuf(theirs, "utf-8", "strict")
    assert (found.name, found.size, found.type, found.mode) == (
        expected.name, size, expected.type, 0o644,
    )  # fmt: skip


# --- Hugging Face ---


def load(path: Path, cache: Path, **options: Any) -> Any:
    import datasets

    datasets.disable_progress_bars()
    return datasets.load_dataset(str(path), cache_dir=str(cache), **options)


@pytest.mark.parametrize("file_format", ["imagefolder", "hf_parquet"])
def test_load_dataset_shows_pictures_captions_and_splits(
    pools: dict[str, Pool], tmp_path: Path, file_format: ExportFormat
) -> None:
    import datasets

    pool = pools["table"]
    pool.export(tmp_path / "kept", file_format)
    found = load(tmp_path / "kept", tmp_path / "cache")
    by_split = dict(pool.kept.group_by("split").agg("uid").iter_rows())
    assert {name: sorted(part["uid"]) for name, part in found.items()} == {
        name: sorted(uids) for name, uids in by_split.items()
    }
    originals = pool.bytes_of()
    for part in found.values():
        assert isinstance(part.features["image"], datasets.Image)
        raw = part.cast_column("image", datasets.Image(decode=False))
        for row, shown in zip(raw, part, strict=True):
            data = row["image"]["bytes"] or Path(row["image"]["path"]).read_bytes()
            assert data == originals[row["uid"]]
            assert shown["image"].size[1] == 5
            assert row["caption"] == pool.texts()[row["uid"]]


@pytest.mark.parametrize("file_format", ["imagefolder", "hf_parquet"])
def test_splits_of_other_names_are_told_to_hugging_face(
    pools: dict[str, Pool], tmp_path: Path, file_format: ExportFormat
) -> None:
    pool = pools["tar"]
    table = pool.table.with_columns(
        pl.when(pl.col("rank") % 2 == 0)
        .then(pl.lit("rest"))
        .otherwise(pl.lit("first"))
        .alias("part")
    )
    config = ExportConfig(format=file_format, split_column="part")
    export(pool.selection, table, pool.run, config, out=tmp_path / "kept")
    found = load(tmp_path / "kept", tmp_path / "cache")
    assert set(found) == {"rest", "first"}
    assert sum(map(len, found.values())) == pool.selection.kept


def test_labels_are_classes_to_hugging_face(pools: dict[str, Pool], tmp_path: Path) -> None:
    pool = pools["classes"]
    pool.export(tmp_path / "kept", "hf_parquet", shard_size=4)
    (found,) = load(tmp_path / "kept", tmp_path / "cache").values()
    names = found.features["label"].names
    assert {one["uid"]: names[one["label"]] for one in found} == pool.texts()


def test_columns_that_are_names_of_pictures_to_hugging_face_get_other_names(
    pools: dict[str, Pool], tmp_path: Path
) -> None:
    pool = pools["table"]
    table = pool.table.with_columns(pl.lit("x").alias("mask_file_name"), pl.lit(1).alias("image"))
    config = ExportConfig(format="imagefolder")
    export(pool.selection, table, pool.run, config, out=tmp_path / "kept")
    found = load(tmp_path / "kept", tmp_path / "cache")["train"]
    assert found[0]["mask_file_name_column"] == "x"
    assert found[0]["image_column"] == 1


def test_metadata_are_json_lines_where_every_column_shows_its_type(
    pools: dict[str, Pool], tmp_path: Path
) -> None:
    pools["tar"].export(tmp_path / "full", "imagefolder")
    assert (tmp_path / "full" / "train" / "metadata.jsonl").is_file()
    pool = pools["tar"]
    table = pool.table.with_columns(pl.lit("2020-01-02").alias("day"))
    result = export(
        pool.selection, table, pool.run, ExportConfig(format="imagefolder"), out=tmp_path / "days"
    )
    assert (tmp_path / "days" / "train" / "metadata.parquet").is_file()
    assert "metadata.parquet" in result.manifest.read_text()
    found = load(tmp_path / "days", tmp_path / "cache")["train"]
    assert found["day"][:] == ["2020-01-02"] * pool.selection.kept


# --- class folders, links, lists ---


def test_torchvision_reads_class_folders(pools: dict[str, Pool], tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    pool = pools["classes"]
    pool.export(tmp_path / "kept", "classes")
    found = ImageFolder(str(tmp_path / "kept"))
    read = {Path(path).read_bytes(): found.classes[label] for path, label in found.samples}
    texts, originals = pool.texts(), pool.bytes_of()
    assert read == {originals[uid]: text for uid, text in texts.items()}
    texts, images = read_again(tmp_path / "kept", tmp_path / "index")
    assert (texts, images) == (pool.texts(), originals)  # its paths, and so its uids, are the same


def test_links_are_hard_and_names_that_clash_are_told_apart(
    pools: dict[str, Pool], tmp_path: Path
) -> None:
    pool = pools["table"]
    result = pool.export(pool.run.path.parent.parent / "links", "links")
    (folder,) = result.files
    root = pool.run.features.source_root()
    inodes = {path.stat().st_ino for path in root.rglob("*.png")}
    linked = [path for path in folder.iterdir() if path.name != "samples.csv"]
    assert {path.stat().st_ino for path in linked} <= inodes
    assert len(linked) == pool.kept["image_path"].n_unique()  # each once, whatever its captions
    assert len({path.name.lower() for path in linked}) == len(linked)


def test_links_to_another_device_are_copies(
    pools: dict[str, Pool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    pools["table"].export(tmp_path / "kept", "links")
    _, images = read_again(tmp_path / "kept", tmp_path / "index")
    assert images == pools["table"].bytes_of()


def test_a_list_names_each_picture_once(pools: dict[str, Pool], tmp_path: Path) -> None:
    pool = pools["table"]
    pool.export(tmp_path / "kept.txt", "files")
    paths = (tmp_path / "kept.txt").read_text().splitlines()
    root = pool.run.features.source_root()
    expected = {str((root / one).resolve()) for one in pool.kept["image_path"]}
    assert set(paths) == expected
    assert len(paths) == len(expected)


def test_several_pools_are_exported_as_one(tmp_path: Path) -> None:
    pool = Pool("tar", tmp_path / "one")
    other = table_pool(tmp_path / "two" / "pool")
    run = run_on(Path(pool.run.record.config.source.path), tmp_path / "runs", also=(str(other),))
    table = run_table(run)
    everything = apply(Recipe(), table)
    config = ExportConfig(format="webdataset")
    result = export(everything, table, run, config, out=tmp_path / "kept")
    assert result.not_exported == {}
    texts, images = read_again(tmp_path / "kept", tmp_path / "index")
    assert texts == dict(table.select("uid", "caption").iter_rows())
    assert len(set(images.values())) == N  # both pools have the same pictures
