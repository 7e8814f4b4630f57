"""Tiny pools of every layout, written from plain values, and short ways to read them back."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

from mimic_core.base.config import SourceConfig
from mimic_core.base.schema import Sample, Skip
from mimic_core.sources.index import build_index
from mimic_core.sources.opening import open_source
from mimic_core.sources.source import Source

RED = (200, 30, 40)


def image_bytes(
    colour: Any = RED, *, size: tuple[int, int] = (6, 4), mode: str = "RGB", kind: str = "PNG"
) -> bytes:
    """One plain image."""
    out = io.BytesIO()
    Image.new(mode, size, colour).save(out, kind)
    return out.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    """A tar with the given members in the given order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def triple(
    key: str, caption: str | None = None, meta: dict[str, Any] | None = None, *, image: bytes = b""
) -> list[tuple[str, bytes]]:
    """The members of one sample."""
    members = [(f"{key}.png", image or image_bytes())]
    if caption is not None:
        members.append((f"{key}.txt", caption.encode()))
    if meta is not None:
        members.append((f"{key}.json", json.dumps(meta).encode()))
    return members


def write_files(root: Path, files: dict[str, bytes | str]) -> Path:
    """Loose files below ``root``."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def write_zip(path: Path, files: dict[str, bytes | str], **options: Any) -> Path:
    """A zip with the given entries, deflated."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_image_rows(path: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    """A Parquet file of the given rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(path, **options)
    return path


def opened(path: Path, **config: Any) -> Source:
    """The pool at ``path``."""
    return open_source(SourceConfig(path=str(path), **config))


def items(source: Source) -> list[Sample | Skip]:
    """All samples and skips, in shard order."""
    return [item for shard in source.shards for item in source.index(shard)]


def samples(source: Source) -> list[Sample]:
    """All samples; fails if there is a skip."""
    found = items(source)
    assert [item for item in found if isinstance(item, Skip)] == []
    return [item for item in found if isinstance(item, Sample)]


def skips(source: Source) -> list[Skip]:
    """All skips."""
    return [item for item in items(source) if isinstance(item, Skip)]


def captions(source: Source) -> dict[str, str | None]:
    """Captions by key."""
    return {item.key: item.caption for item in items(source) if isinstance(item, Sample)}


def indexed(source: Source, directory: Path, **config: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The index tables of all shards: samples and skips."""
    build_index(source, SourceConfig(path=str(source.root), **config), directory)
    tables = [directory / "index" / f"{shard}.parquet" for shard in source.shards]
    skipped = [directory / "index" / f"{shard}.skipped.parquet" for shard in source.shards]
    return (
        pl.concat([pl.read_parquet(file) for file in tables]),
        pl.concat([pl.read_parquet(file) for file in skipped]),
    )


def tree_bytes(directory: Path) -> dict[str, bytes]:
    """All files below ``directory`` with their bytes."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {file.relative_to(directory).as_posix(): file.read_bytes() for file in files}
