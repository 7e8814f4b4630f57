"""Pools that were made to break their reading: what is held of each, and how it is looked at."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from mimic_core.base.config import SourceConfig
from mimic_core.base.schema import Locator
from mimic_core.sources.images import ImageError, decode_image
from mimic_core.sources.index import build_index, reading
from mimic_core.sources.opening import open_source
from mimic_core.sources.reading import read_image
from tests.core.sources_pools import image_bytes

PNG = image_bytes()


def outcome(path: Path, out: Path, **config: Any) -> Counter[str]:
    """How often the rows of a pool ended how: ``good``, or the reason of a skip.

    The pool is opened, indexed, and every image is read and decoded, as scoring does. What was read
    is said in words, which are UTF-8.
    """
    settings = SourceConfig(path=str(path), **config)
    source = open_source(settings)
    indexed = build_index(source, settings, out)
    reading(source, indexed).encode()
    found: Counter[str] = Counter()
    for shard in source.shards:
        skipped = pl.read_parquet(out / "index" / f"{shard}.skipped.parquet")
        found.update(skipped["reason"].to_list())
        for row in pl.read_parquet(out / "index" / f"{shard}.parquet").iter_rows(named=True):
            try:
                place = ("kind", "path", "offset", "length", "member")
                locator = Locator(*(row[f"image_{part}"] for part in place))
                decode_image(read_image(source.root, locator))
                found["good"] += 1
            except ImageError as error:
                found[error.reason] += 1
    return found
