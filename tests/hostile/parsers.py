"""Every parser of foreign bytes as one function of bytes, with what it promises of any of them.

``read`` of a parser either returns or raises a ``MimicError``; any other exception breaks the
promise, and so does an ``AssertionError``, which is an oracle that disagrees. ``fuzz.py`` drives
them for minutes with inputs that reach new code, ``test_fuzz.py`` for a moment with damaged seeds.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import json
import lzma
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from mimic_core.base.config import SourceConfig
from mimic_core.base.errors import MimicError
from mimic_core.base.schema import SKIP_REASONS, Sample
from mimic_core.export.export import export
from mimic_core.export.record import replay
from mimic_core.export.settings import ExportConfig
from mimic_core.filters.library import read_recipe
from mimic_core.filters.recipe import Recipe
from mimic_core.filters.selections import select
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from mimic_core.sources.images import ImageError, decode_image
from mimic_core.sources.index import build_index, reading
from mimic_core.sources.opening import open_source
from mimic_core.sources.reading import read_image
from mimic_core.sources.tarmembers import Gap, read_members
from tests.core.sources_pools import image_bytes, triple, write_files, write_tar
from tests.fakes import fake_run

PNG = image_bytes()
BLOCK = 512
# In memory where that is possible: a fuzzer writes a thousand files a second.
MEMORY = Path("/dev/shm")  # noqa: S108 - only as the place of a temporary folder of ours


@dataclass(frozen=True)
class Parser:
    """One parser: what it is fed with first, and what is done with each input.

    Attributes:
        seeds: Makes good inputs, which are damaged from then on.
        read: Reads one input; the folder is its own, and empty.
        words: Pieces that inputs of this kind are made of.
        mend: Makes an input's checksums right again, without which nothing behind them is reached.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], None]
    words: tuple[bytes, ...] = ()
    mend: Callable[[bytes], bytes] = bytes


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder in memory, where there is room for one; gone afterwards."""
    place = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place, prefix="mimicscope-fuzz-") as folder:
        yield Path(folder)


def try_one(parser: Parser, data: bytes, folder: Path) -> str:
    """Read one input in a new folder ``folder``: ``read``, or the kind of the refusal."""
    folder.mkdir()
    try:
        parser.read(data, folder)
    except MimicError as error:
        _hold_words(error)
        return type(error).__name__
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return "read"


def _hold_words(error: MimicError | ImageError) -> None:
    """A refusal says what is wrong and what to do; a skip, why, in words that can be stored."""
    if isinstance(error, ImageError):
        assert error.reason in SKIP_REASONS
        assert error.detail.encode()
    else:
        assert error.problem
        assert error.next_step


def scored(path: Path, out: Path, data: bytes) -> int:
    """Open and read a pool as scoring does, but for decoding; how many rows it had.

    Storing the index takes five times as long as reading it, so it is stored of a part of the
    inputs, which ``data`` chooses: always the same.
    """
    settings = SourceConfig(path=str(path))
    source = open_source(settings)
    rows = [one for shard in source.shards for one in source.index(shard)]
    for one in rows:
        try:
            if isinstance(one, Sample):
                read_image(source.root, one.image)
        except ImageError as error:
            _hold_words(error)
    if hashlib.sha256(data).digest()[0] % 4 == 0:
        indexed = build_index(source, settings, out)
        reading(source, indexed).encode()
        stored = [len(pl.read_parquet(table)) for table in (out / "index").iterdir()]
        assert sum(stored) == len(rows)
    return len(rows)


# --- archives ---


def _tar(*keys: str, form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for key in keys:
            for name, data in triple(key, f"caption of {key}", {"n": 1}):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    whole = out.getvalue()
    stop = -(-len(whole.rstrip(b"\0")) // BLOCK) * BLOCK
    return whole[: stop + 2 * BLOCK]  # not filled up to 10 kB, as tarfile does


def _tars() -> list[bytes]:
    long = "b" * 120
    return [
        _tar("a", "b"),
        _tar(long, form=tarfile.GNU_FORMAT),
        _tar(long, "é", form=tarfile.PAX_FORMAT),
        _tar("a") + _tar("b"),
        _tar("a.b", "c.image"),
    ]


def _with_checksums(data: bytes) -> bytes:
    """Every block that looks like a header with its right checksum."""
    out = bytearray(data)
    for place in range(0, len(out) - BLOCK + 1, BLOCK):
        if out[place + 257 : place + 262] == b"ustar":
            out[place + 148 : place + 156] = b" " * 8
            total = sum(out[place : place + BLOCK])
            out[place + 148 : place + 156] = b"%06o\0 " % total
    return bytes(out)


def _read_tar(data: bytes, folder: Path) -> None:
    _hold_members(data)
    pool = folder / "pool"
    pool.mkdir()
    (pool / "0.tar").write_bytes(data)
    scored(pool, folder / "out", data)


def _hold_members(data: bytes) -> None:
    """Members come in order and apart, and what ``tarfile`` finds is a member or in a gap."""
    found = list(read_members(io.BytesIO(data), len(data)))
    end, gaps, members = 0, [], set()
    for one in found:
        start = one.start if isinstance(one, Gap) else one.offset
        assert start >= end, "members overlap"
        if isinstance(one, Gap):
            stop = len(data) if one.stop is None else one.stop
            gaps.append((start, stop))
            end = start
        else:
            members.add(one.offset)
            end = start + one.size if one.kind == "file" else start
            assert end <= len(data)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            theirs = [(one.offset, one.offset_data) for one in archive if one.isreg()]
    except Exception:  # noqa: BLE001 - the oracle knows less, and may do what it likes
        return
    for header, offset in theirs:
        told = offset in members or any(start < offset and header < stop for start, stop in gaps)
        assert told, f"the member at byte {header} is lost"


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


def _packed() -> list[bytes]:
    whole = _tar("a", "b")
    return [bytes([kind]) + pack(whole) for kind, pack in enumerate(PACKERS.values())]


def _read_packed(data: bytes, folder: Path) -> None:
    """The first byte chooses the compression."""
    suffix = [*PACKERS][(data[:1] or b"\0")[0] % len(PACKERS)]
    pool = folder / "pool"
    pool.mkdir()
    (pool / f"0.tar.{suffix}").write_bytes(data[1:])
    scored(pool, folder / "out", data)


def _zips() -> list[bytes]:
    pairs = {"a.png": PNG, "a.txt": b"x", "b.png": PNG, "b.json": b'{"caption": "y", "n": 1}'}
    table = {"t.csv": b"image,caption\na.png,x\n", "a.png": PNG}
    classes = {"cat/a.png": PNG, "dog/b.png": PNG, "__MACOSX/x": b"", "folder/": b""}
    found = []
    for files in (pairs, table, classes):
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w", method) as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
            found.append(out.getvalue())
    return found


def _read_zip(data: bytes, folder: Path) -> None:
    (folder / "pool.zip").write_bytes(data)
    scored(folder / "pool.zip", folder / "out", data)


# --- tables and texts ---


def _tables(separator: bytes) -> list[bytes]:
    rows = (
        (b"image", b"caption", b"n"),
        (b"b.png", b"x", b"1"),
        (b"b.png", b'"a ""b"" c"', b"1.5"),
        (b"c.png", b'"two\nlines"', b"true"),
        (b"b.png", b'"open', b""),
        (b"b.png", "é".encode(), b"nan"),
    )
    lines = [separator.join(row) for row in rows]
    return [b"\n".join(lines), b"\r\n".join(lines[:3]), b"\r".join(lines[:2]), lines[0] + b"\n"]


def _table_reader(name: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        pool = folder / "pool"
        pool.mkdir()
        (pool / name).write_bytes(data)
        (pool / "b.png").write_bytes(PNG)
        rows = scored(pool, folder / "out", data)
        lines = _lines(data)
        if lines is None:
            return
        # A first line that names a file or a URL may be a row, or a header of odd names.
        headless = b"." in lines[0] or b"://" in lines[0]
        most = len(lines) if headless else len(lines) - 1
        if b'"' not in data:  # nothing goes on in the next line
            assert rows in {len(lines) - 1, most}, f"{rows} rows of {len(lines)} lines"
        assert rows <= most

    return read


def _lines(data: bytes) -> list[bytes] | None:
    """The lines that hold anything; None where a line could be too long, or ends like a Mac's."""
    if b"\n" not in data and b"\r" in data:
        return None
    lines = data.split(b"\n")
    return [line for line in lines if line.strip(b"\r")]


def _read_rows(data: bytes, folder: Path) -> None:
    """The input as cells that Python's own ``csv`` writes: each comes back as it was.

    Only the spaces beside a ``|`` are the separator's.
    """
    kind, *cells = data.decode("utf-8", "replace").split("\x1f")
    separator = ",\t;|"[len(kind) % 4]
    rows = [cell for cell in cells if not _like_a_row(cell)]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator=("\n", "\r\n")[len(kind) // 4 % 2])
    writer.writerow(["image", "caption", "n"])
    writer.writerows([["b.png", cell, place] for place, cell in enumerate(rows)])
    pool = folder / "pool"
    pool.mkdir()
    (pool / "t.csv").write_text(out.getvalue(), newline="")
    (pool / "b.png").write_bytes(PNG)
    settings = SourceConfig(path=str(pool))
    source = open_source(settings)
    found = [one for shard in source.shards for one in source.index(shard)]
    assert len(found) == len(rows)
    captions = [getattr(one, "caption", None) for one in found]
    texts = [cell.strip(" ") if separator == "|" else cell for cell in rows]
    usual = [text if text.strip() and len(text.encode()) <= 16384 else None for text in texts]
    assert captions == usual


def _like_a_row(cell: str) -> bool:
    """Whether a line of a cell may be taken for a row, or there are too many of them."""
    return "\n" in cell and (".png" in cell.lower() or cell.count("\n") > 200)


LINES = (
    b'{"image": "b.png", "caption": "x", "n": 1}\n'
    b'{"image": "b.png", "caption": ["y", "z"], "m": {"a": [1, null]}}\n\n'
    b'{"image": "c.png", "caption": "\\u00e9", "t": true, "f": 1.5e3}\n'
    b'{"image": null, "caption": null}\n[1]\n'
)


def _read_lines(data: bytes, folder: Path) -> None:
    pool = folder / "pool"
    pool.mkdir()
    (pool / "t.jsonl").write_bytes(data)
    (pool / "b.png").write_bytes(PNG)
    rows = scored(pool, folder / "out", data)
    lines = [line for line in data.split(b"\n") if line.strip()]
    several = b"[" in data
    assert rows >= len(lines)
    assert several or rows == len(lines), f"{rows} rows of {len(lines)} lines"


def _read_json(data: bytes, folder: Path) -> None:
    """The metadata of one image, in a folder and in a tar: as many rows from both."""
    files = {"a.json": data, "a.png": PNG, "b.png": PNG, "b.txt": b"good"}
    loose = write_files(folder / "loose", {**files})
    packed = write_tar(folder / "packed" / "0.tar", [*files.items()])
    rows = scored(loose, folder / "out", data)
    assert rows == scored(packed, folder / "out of tar", data)
    try:
        caption = json.loads(data.decode("utf-8-sig"))["caption"]
    except (ValueError, TypeError, KeyError, RecursionError):
        caption = None
    captions = max(1, len(caption)) if isinstance(caption, list) else 1
    assert rows in (1 + captions, 2)  # where other metadata are damaged, the image is one skip


# --- Parquet ---


def _parquets() -> list[bytes]:
    columns = {
        "image": pa.array([{"bytes": PNG, "path": "a.png"}, {"bytes": PNG, "path": None}]),
        "caption": pa.array(["x", None]),
        "n": pa.array([1, 2]),
        "f": pa.array([0.5, None]),
        "tags": pa.array([["a"], []]),
        "kind": pa.array(["a", "a"]).dictionary_encode(),
        "at": pa.array([0, 1], pa.timestamp("us", tz="UTC")),
    }
    status = {
        "key": pa.array(["000000000", "000000001"]),
        "status": pa.array(["success", "failed_to_download"]),
        "error_message": pa.array([None, "404"]),
    }
    found = []
    for content in (columns, status):
        for options in ({}, {"compression": "none", "use_dictionary": False}):
            out = io.BytesIO()
            pq.write_table(pa.table(content), out, **options)
            found.append(out.getvalue())
    return found


def _read_parquet(data: bytes, folder: Path) -> None:
    """As a pool of images, and as what img2dataset has written beside a tar."""
    pool = folder / "pool"
    pool.mkdir()
    (pool / "00000.parquet").write_bytes(data)
    try:
        scored(pool, folder / "out", data)
    except MimicError as error:
        _hold_words(error)
    (pool / "00000.tar").write_bytes(_tar("a"))
    assert scored(pool, folder / "beside", data) >= 1


# --- tables and shards of other programs ---


def _documents() -> list[bytes]:
    """JSON that holds a table: with ``@`` in front it lies in a folder, as COCO's does."""
    coco = {
        "images": [{"id": n, "file_name": "b.png", "width": 6} for n in range(2)],
        "annotations": [{"image_id": n // 2, "id": n, "caption": f"x {n}"} for n in range(3)],
    }
    rows = [{"image": "b.png", "caption": "x", "n": 1}, {"image": "c.png", "caption": ["y", "z"]}]
    splits = {"images": [{"filename": "b.png", "sentences": [{"raw": "x"}, {"raw": "y"}]}]}
    turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "x"}]
    talks = [{"id": "1", "image": "b.png", "conversations": turns}]
    names = {"b.png": "x", "c.png": ["y", "z"]}
    found = [json.dumps(one).encode() for one in (coco, rows, splits, talks, names)]
    return [*found, *(b"@" + one for one in found)]


def _read_document(data: bytes, folder: Path) -> None:
    """Each entry of a document is a row; which entries there are, ``json`` says."""
    nested, text = data[:1] == b"@", data.removeprefix(b"@")
    name = "annotations/captions_train.json" if nested else "t.json"
    pool = write_files(folder / "pool", {name: text, "train/b.png": PNG, "b.png": PNG})
    rows = scored(pool if nested else pool / name, folder / "out", data)
    try:
        document = json.loads(text.decode("utf-8-sig"), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return
    entries = _entries(document)
    assert rows >= entries, f"{rows} rows of {entries} entries"


class _Pairs(list):  # type: ignore[type-arg]
    """The pairs of a JSON object, also those whose names come back."""


def _entries(document: object) -> int:
    if not isinstance(document, _Pairs):
        return len(document) if isinstance(document, list) else 0
    whole = dict(document)
    if {"images", "annotations"} <= whole.keys():
        notes = whole["annotations"]
        return len(notes) if isinstance(notes, list) and not isinstance(notes, _Pairs) else 0
    names = [name for name, _ in document if str(name).endswith(".png")]
    return len(names) if len(names) == len(document) else 0


MDS = {"caption": ("str", None), "extra": ("json", None), "image": ("png", None), "n": ("int", 8)}


def _mds() -> list[bytes]:
    """An index, an empty line, and the bytes of its shard, packed as the index says."""
    bodies = []
    for number in range(2):
        varying = (b"x", b'{"a": [1]}', PNG)
        sizes = np.array([len(one) for one in varying], "<u4").tobytes()
        bodies.append(sizes + b"".join(varying) + np.int64(number).tobytes())
    places = 16 + np.cumsum([0, *map(len, bodies)])
    shard = b"".join([np.array([2, *places], "<u4").tobytes(), *bodies])
    found = []
    for packing, pack in (("", bytes), ("gz", gzip.compress), ("zstd", PACKERS["zst"])):
        one = {
            "column_encodings": [encoding for encoding, _ in MDS.values()],
            "column_names": [*MDS],
            "column_sizes": [size for _, size in MDS.values()],
            "compression": packing or None,
            "format": "mds",
            "raw_data": {"basename": "s.mds"},
            "samples": 2,
            "zip_data": {"basename": f"s.mds.{packing}"} if packing else None,
        }
        found.append(json.dumps({"shards": [one], "version": 2}).encode() + b"\n\n" + pack(shard))
    return found


def _read_mds(data: bytes, folder: Path) -> None:
    """As many rows as the index has samples, if its shard is one."""
    index, _, shard = data.partition(b"\n\n")
    packing = next((one for one in ("gz", "zstd") if f'"s.mds.{one}"'.encode() in index), "")
    name = f"s.mds.{packing}" if packing else "s.mds"
    pool = write_files(folder / "pool", {"index.json": index, name: shard})
    rows = scored(pool, folder / "out", data)
    declared = json.loads(index)["shards"]
    assert rows >= len({one["raw_data"]["basename"] for one in declared if one["samples"]})


def _arrows() -> list[bytes]:
    image = pa.array([{"bytes": PNG, "path": "a.png"}, {"bytes": None, "path": "b.png"}])
    table = pa.table({"image": image, "caption": ["x", "y"], "n": [1, 2]})
    bare = pa.table({"image": [PNG, PNG], "label": [0, 1], "tags": [["a"], []]})
    found = []
    for whole in (table, bare):
        for writer in (pa.ipc.new_stream, pa.ipc.new_file):
            out = io.BytesIO()
            with writer(out, whole.schema) as written:
                written.write_table(whole)
            found.append(out.getvalue())
    return found


def _read_arrow(data: bytes, folder: Path) -> None:
    pool = write_files(folder / "pool", {"data-0.arrow": data, "state.json": "{}", "b.png": PNG})
    scored(pool, folder / "out", data)


@cache
def _lance_table() -> dict[str, bytes]:
    """The files of a small table, by their places in it."""
    import lance

    table = pa.table({"image": [PNG, PNG], "caption": ["x", "y"], "n": [1, 2]})
    with workplace() as folder:
        lance.write_dataset(table, str(folder / "t.lance"))
        files = [one for one in sorted((folder / "t.lance").rglob("*")) if one.is_file()]
        return {str(one.relative_to(folder)): one.read_bytes() for one in files}


def _lances() -> list[bytes]:
    return [bytes([place]) + data for place, data in enumerate(_lance_table().values())]


def _read_lance(data: bytes, folder: Path) -> None:
    """The first byte chooses the file of the table that the others replace."""
    files = dict(_lance_table())
    files[[*files][(data[:1] or b"\0")[0] % len(files)]] = data[1:]
    scored(write_files(folder / "pool", dict(files)), folder / "out", data)


def _read_pattern(data: bytes, folder: Path) -> None:
    """The input as a pattern of a few shards: what is read lies below, and has a row for each."""
    text = data.decode("utf-8", "replace").lstrip("/")
    if ".." in text.split("/"):
        return  # those parts in front of any mark are where the pool is
    shard = _tar("a")
    names = ("0.tar", "1.tar", "a/2.tar", "a/b/3.tar", "[x].tar")
    write_files(folder / "pool", dict.fromkeys(names, shard))
    rows = scored(Path(f"{folder}/pool/{text}"), folder / "out", data)
    plain = [one for one in names if one == text]
    assert rows >= len(plain)


# --- images ---


def _images() -> list[bytes]:
    found = []
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        for mode in ("RGB", "L", "P", "RGBA"):
            out = io.BytesIO()
            picture = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
            try:
                picture.convert(mode).save(out, kind)
            except OSError:  # not of that kind
                continue
            found.append(out.getvalue())
    deep, scans = io.BytesIO(), io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(deep, "PNG")
    picture.save(scans, "JPEG", progressive=True)
    return [*found, deep.getvalue(), scans.getvalue()]


def _read_picture(data: bytes, folder: Path) -> None:
    del folder
    try:
        image = decode_image(data)
    except ImageError as error:
        _hold_words(error)
        return
    assert image.mode == "RGB"
    assert len(image.tobytes()) == 3 * image.width * image.height


# --- recipes and manifests ---

RECIPE = b"""\
version: 1
conditions:
- name: good
  condition: {kind: absolute, column: clip_score, min: 0.2, max: 1}
- name: top
  condition: {kind: percentile, column: mimic_score, lower: 15}
- name: some
  condition: {kind: top_k, column: loss, k: 5}
- name: "not"
  condition: {kind: not, condition: {kind: category, column: topic, values: [cat, &a dog, *a]}}
- name: text
  condition: {kind: text, column: caption, contains: a}
- name: either
  condition: {kind: any, conditions: [{kind: uids, uids: []}, {kind: text, contains: b}]}
- name: drawn
  condition: {kind: region, polygon: [[0, 0], [1, 0], [0, 1]]}
- name: voted
  condition: {kind: ensemble}
"""


@cache
def _run() -> Run:
    """A finished run of 24 samples, which nothing changes."""
    folder = tempfile.mkdtemp(
        prefix="mimicscope-fuzz-run-", dir=MEMORY if MEMORY.is_dir() else None
    )
    return fake_run(Path(folder) / "runs", n=24, images=False)


def _read_recipe(data: bytes, folder: Path) -> None:
    """A recipe that is read is written as text that reads the same, and selects or is refused."""
    path = folder / "r.yaml"
    path.write_bytes(data)
    recipe = read_recipe(path)
    text = recipe.to_yaml()
    assert Recipe.from_yaml(text) == recipe
    assert Recipe.from_yaml(text).to_yaml() == text
    selection = select(_run(), recipe)
    assert selection.kept + sum(selection.drops.values()) == selection.total


def _manifests() -> list[bytes]:
    found = []
    with workplace() as folder:
        for recipe in (Recipe(), Recipe.from_yaml("conditions: []")):
            out = folder / f"{len(found)}.csv"
            selection = select(_run(), recipe)
            made = export(selection, run_table(_run()), _run(), ExportConfig(format="csv"), out=out)
            found.append(made.manifest.read_bytes())
    return found


def _read_manifest(data: bytes, folder: Path) -> None:
    path = folder / "e.csv.manifest.json"
    path.write_bytes(data)
    selection = replay(path, _run().path.parent)
    assert selection.total == 24


JSON_WORDS = (
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"NaN", b"1e999", b"-0"),
    *(
        b"\\ud800",
        b"\\u0000",
        b'"caption"',
        b'"image"',
        b'"uid"',
        b'"key"',
        b'"text"',
        b"\xef\xbb\xbf",
    ),
)
CELL_WORDS = (b'"', b'""', b"\n", b"\r\n", b"\r", b"b.png", b"image", b"caption", b"label", b"nan")

PARSERS: dict[str, Parser] = {
    "tar": Parser(
        _tars,
        _read_tar,
        (b"ustar\x0000", b"././@LongLink", b"path=", b"size=", b"GNU.sparse.", bytes(512)),
        _with_checksums,
    ),
    "packed": Parser(_packed, _read_packed),
    "zip": Parser(_zips, _read_zip, (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06")),
    "csv": Parser(lambda: _tables(b","), _table_reader("t.csv"), (b",", b";", *CELL_WORDS)),
    "tsv": Parser(lambda: _tables(b"\t"), _table_reader("t.tsv"), (b"\t", b"|", *CELL_WORDS)),
    "cells": Parser(
        lambda: [b'\x1fa\x1fb"c\x1f""\x1f1\n2\x1f\r', b"abc\x1f,\x1f\t"],
        _read_rows,
        (b"\x1f", b"\xef\xbb\xbf", *CELL_WORDS),
    ),
    "jsonl": Parser(lambda: [LINES, *LINES.splitlines()], _read_lines, JSON_WORDS),
    "json": Parser(
        lambda: [b'{"caption": "x", "n": 1}', b'{"caption": ["x", "y"], "uid": "%032d"}' % 7],
        _read_json,
        JSON_WORDS,
    ),
    "document": Parser(
        _documents,
        _read_document,
        (*JSON_WORDS, b'"images"', b'"annotations"', b'"image_id"', b'"id"', b'"file_name"'),
    ),
    "mds": Parser(_mds, _read_mds, (*JSON_WORDS, b'"pil"', b'"uint64"', b'"gz"', b"../", b"\n\n")),
    "arrow": Parser(_arrows, _read_arrow, (b"ARROW1", b"\xff\xff\xff\xff")),
    "lance": Parser(_lances, _read_lance, (b"LANC",)),
    "pattern": Parser(
        lambda: [b"{0..1}.tar", b"*.tar", b"**/*.tar", b"a/{b/3,2}.tar", b"[[]x].tar", b"?.tar"],
        _read_pattern,
        (b"{", b"}", b"..", b",", b"*", b"**", b"[", b"]", b"?", b"/", b".tar", b"000", b"~"),
    ),
    "parquet": Parser(_parquets, _read_parquet, (b"PAR1",)),
    "image": Parser(
        _images, _read_picture, (b"\xff\xda", b"\xff\xd8", b"IHDR", b"ftypavif", b"II*\0")
    ),
    "recipe": Parser(
        lambda: [RECIPE, b"version: 1\nconditions: []\n", Recipe().to_yaml().encode()],
        _read_recipe,
        (
            b"&a",
            b"*a",
            b"!!",
            b"<<:",
            b"? ",
            b"- ",
            b"kind:",
            b".inf",
            b".nan",
            b"0x",
            b"1_0",
            b"|",
        ),
    ),
    "manifest": Parser(_manifests, _read_manifest, JSON_WORDS),
}
