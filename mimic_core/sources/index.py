"""The index of a pool: which samples are scored and where their images are, one table per shard.

The pool is read once. Each shard's table waits in a draft while the uids of the whole pool (16
bytes per sample) decide which samples are duplicates and which are drawn; then the final tables
are written, all with the same columns: ``SAMPLE_COLUMNS``, then the user's own in the order of
their first appearance. Equal pools and configs give equal bytes.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mimic_core.base import draws, files
from mimic_core.base.config import SourceConfig
from mimic_core.base.errors import SourceError
from mimic_core.base.progress import Progress, Silent
from mimic_core.base.schema import (
    NO_IMAGE,
    SAMPLE_COLUMNS,
    SKIP_COLUMNS,
    WITHOUT_IMAGE,
    Sample,
    Skip,
)
from mimic_core.sources.path import Presence
from mimic_core.sources.pools import uid_apart
from mimic_core.sources.source import Source
from mimic_core.sources.tables.columns import (
    CHUNK_ROWS,
    OWN,
    cast_column,
    column,
    column_dtype,
    common_dtype,
    stored_names,
)

_DRAFT = ".index-draft-"
_DRAFT_SECONDS = 86_400.0
_KINDS = 12  # of files not read that are listed


@dataclass(slots=True)
class _Survey:
    """What the first pass learns about the whole pool."""

    words: list[np.ndarray] = field(default_factory=list)  # per shard (N, 2) uint64
    dtypes: dict[str, pl.DataType] = field(default_factory=dict)
    reasons: list[Counter[str]] = field(default_factory=list)  # per shard, of skips
    bare: list[np.ndarray] = field(default_factory=list)  # per shard (N,) bool: without an image

    def add_columns(self, samples: pl.DataFrame) -> None:
        """Widen the dtypes of the user's columns by those of a part of the pool."""
        for name in samples.columns[len(SAMPLE_COLUMNS) :]:
            raw = name.removeprefix(OWN)
            known = self.dtypes.get(raw, pl.Null())
            self.dtypes[raw] = common_dtype(known, samples.schema[name])


def preview(source: Source, n: int) -> list[Sample | Skip]:
    """The first ``n`` samples and skips of the pool, in shard order."""
    stream = itertools.chain.from_iterable(source.index(shard) for shard in source.shards)
    return list(itertools.islice(stream, n))


def build_index(
    source: Source, config: SourceConfig, directory: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Write ``index/<shard>.parquet`` and ``index/<shard>.skipped.parquet`` for every shard.

    Rows without an image stand in ``index/<shard>.without_image.parquet``, if there are any.

    Of samples with the same uid the first in (shard, order) stays, the others are skipped as
    duplicates; uids that are made from names are kept apart where several pools come by the same
    (``mimic_core.sources.pools``). Of the rest ``config.sample`` are drawn: those with the smallest
    hash of (``config.sample_seed``, uid).

    Returns:
        What the index holds and what was met (``reading``), for the feature set's description.

    Raises:
        SourceError: Not one sample of the pool can be scored, or its metadata is unusable, or the
            pool is away (``path``).
        Interrupted: ``progress.check`` asked to stop; the index begins anew next time.
    """
    directory.mkdir(parents=True, exist_ok=True)
    _remove_old_drafts(directory)
    with tempfile.TemporaryDirectory(dir=directory, prefix=_DRAFT) as draft:
        survey = _draft(source, Path(draft), progress or Silent())
        _keep_apart(source, Path(draft), survey)
        unique = _first_of_each(survey.words)
        chosen = _draw(survey.words, unique, config)
        _require_samples(source, survey, int(chosen.sum()))
        names = stored_names(list(survey.dtypes))
        for name, stored in names.items():
            if name != stored and progress is not None:
                progress.note(f"column {name!r} of the pool is stored as {stored!r}")
        start = 0
        for position, shard in enumerate(source.shards):
            stop = start + len(survey.words[position])
            skipped = pl.read_parquet(Path(draft) / f"{position}.skipped")
            parts = _draft_parts(Path(draft), position)
            final = pl.concat([_final(part, names, survey.dtypes) for part in parts])
            drawn = final.filter(pl.Series(chosen[start:stop]))
            kept = drawn.filter(pl.col("image_kind") != NO_IMAGE.kind)
            if len(kept) < len(drawn):
                bare = drawn.filter(pl.col("image_kind") == NO_IMAGE.kind)
                files.write_parquet(directory / "index" / f"{shard}.{WITHOUT_IMAGE}.parquet", bare)
            repeated = _duplicates(final.filter(pl.Series(~unique[start:stop])))
            files.write_parquet(directory / "index" / f"{shard}.parquet", kept)
            files.write_parquet(
                directory / "index" / f"{shard}.skipped.parquet", pl.concat([skipped, repeated])
            )
            start = stop
        return _account(source, survey, unique, chosen)


def _account(
    source: Source, survey: _Survey, unique: np.ndarray, chosen: np.ndarray
) -> dict[str, Any]:
    """Counts of an index: its samples, those left out by reason, and what its reading has met.

    Of several pools, each has its own under ``pools``.
    """
    shard_of = np.repeat(np.arange(len(survey.words)), [len(one) for one in survey.words])
    bare = np.concatenate(survey.bare)

    def counted(parts: Collection[Source], pool: str | None) -> dict[str, Any]:
        mine = [pool in (None, source.pool_of(shard)) for shard in source.shards]
        here = np.array(mine, bool)[shard_of]
        skipped = _total(itertools.compress(survey.reasons, mine))
        skipped += Counter(duplicate_uid=int((here & ~unique).sum()))
        without = int((here & chosen & bare).sum())
        return {
            **({"without_image": without} if without else {}),
            "samples": int((here & chosen & ~bare).sum()),
            "drawn_from": int((here & unique).sum()),
            "own_uids": sum(part.notes.own_uids for part in parts),
            "skipped": dict(sorted(skipped.items())),
            "remarks": dict(sorted(_total(part.notes.remarks for part in parts).items())),
            "unread": dict(sorted(_total(part.notes.unread for part in parts).items())),
        }

    whole = counted(source.parts.values(), None)
    if len(source.parts) > 1:
        whole["pools"] = {name: counted([part], name) for name, part in source.parts.items()}
    return whole


def _total(counts: Iterable[Counter[str]]) -> Counter[str]:
    return sum(counts, Counter[str]())


def _keep_apart(source: Source, folder: Path, survey: _Survey) -> None:
    """Give uids that several pools have come by, not having any, to none of them."""
    derived = {name for name, part in source.parts.items() if not part.notes.own_uids}
    pools = [source.pool_of(shard) for shard in source.shards]
    if len(source.parts) == 1 or not derived:
        return
    number = {name: place for place, name in enumerate(source.parts)}
    pool_of = np.repeat([number[one] for one in pools], [len(one) for one in survey.words])
    shared = _in_several(np.concatenate(survey.words), pool_of)
    start = 0
    for position, pool in enumerate(pools):
        stop = start + len(survey.words[position])
        if pool in derived and shared[start:stop].any():
            survey.words[position] = _renamed(folder, position, pool, shared[start:stop])
        start = stop


def _renamed(folder: Path, position: int, pool: str, rows: np.ndarray) -> np.ndarray:
    """Uids of these rows of a drafted shard made anew; the words (N, 2) of all its uids then."""
    start, words = 0, [np.empty((0, 2), np.uint64)]
    for file in sorted(folder.glob(f"{position}.*.samples")):
        part = pl.read_parquet(file)
        here = pl.Series(rows[start : start + len(part)])
        start += len(part)
        uids = [
            uid_apart(pool, uid) if changed else uid
            for uid, changed in zip(part["uid"], here, strict=True)
        ]
        part = part.with_columns(pl.Series("uid", uids, pl.String))
        part.write_parquet(file)
        words.append(draws.uid_words(part["uid"]))
    return np.concatenate(words)


def _in_several(words: np.ndarray, pool_of: np.ndarray) -> np.ndarray:
    """Which uids (N, 2) are met in more than one pool: (N,) bool."""
    order = np.lexsort((words[:, 1], words[:, 0]))
    new = np.ones(len(words), bool)
    new[1:] = (words[order][1:] != words[order][:-1]).any(axis=1)
    group = np.cumsum(new) - 1
    count = int(group[-1]) + 1 if len(group) else 0
    least, most = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
    np.minimum.at(least, group, pool_of[order])
    np.maximum.at(most, group, pool_of[order])
    found = np.empty(len(words), bool)
    found[order] = (least != most)[group]
    return found


def reading(source: Source, indexed: Mapping[str, Any]) -> str:
    """What was read of a pool and what was not, in one sentence, the first of every run.

    Args:
        indexed: What ``build_index`` has returned.
    """
    if "pools" in indexed:
        each = [
            f"{name}: {reading(part, indexed['pools'][name])}"
            for name, part in source.parts.items()
        ]
        return f"{len(each)} pools, {indexed['samples']:,} samples; {'; '.join(each)}"
    skipped, remarks = indexed.get("skipped", {}), indexed.get("remarks", {})
    parts = [
        f"read as {source.layout}: {source.columns_read()}",
        f"task {'captions' if source.task == 'pairs' else 'labels'}",
        f"{indexed['samples']:,} samples",
    ]
    imageless = indexed.get("without_image", 0)
    if imageless:
        parts.append(f"{imageless:,} rows without an image")
    if indexed["samples"] + imageless < indexed["drawn_from"]:
        parts[-1] += f" drawn from {indexed['drawn_from']:,}"
    if skipped:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in skipped.items())
        parts.append(f"skipped {sum(skipped.values()):,} ({counts})")
    parts += [f"resolved {count:,} x {what}" for what, count in remarks.items()]
    unread = source.unread()
    unread.update({kind: n for kind, n in indexed.get("unread", {}).items() if kind not in unread})
    return f"{', '.join(parts)}, not read: {in_words(unread) or 'nothing'}"


def in_words(unread: Mapping[str, int]) -> str:
    """What is not read of a pool, the most frequent kinds first."""
    ordered = sorted(unread.items(), key=lambda item: (-item[1], item[0]))
    counts = [f"{count:,} x {kind}" for kind, count in ordered[:_KINDS]]
    if len(ordered) > _KINDS:
        counts.append(f"and {len(ordered) - _KINDS} other kinds")
    return ", ".join(counts)


def _remove_old_drafts(directory: Path) -> None:
    """Remove what a killed process left; another one may be writing a young one just now."""
    for draft in directory.glob(f"{_DRAFT}*"):
        if time.time() - draft.stat().st_mtime > _DRAFT_SECONDS:
            shutil.rmtree(draft)


def _draft(source: Source, folder: Path, progress: Progress) -> _Survey:
    """Read every shard once, leaving its samples and skips in ``folder``."""
    survey = _Survey()
    for pool in source.parts.values():
        pool.notes.clear()  # of a preview, which would count twice
    presences = [Presence.of(pool.root) for pool in source.parts.values()]
    progress.phase("index", len(source.shards), unit="shards")
    for position, shard in enumerate(source.shards):
        rows = source.index(shard)
        words, bare = [np.empty((0, 2), np.uint64)], [np.empty(0, bool)]
        skips: list[pl.DataFrame] = [_skip_frame([])]
        for part in itertools.count():
            progress.check()
            chunk = list(itertools.islice(rows, CHUNK_ROWS))
            samples = _sample_frame([row for row in chunk if isinstance(row, Sample)])
            files.write_draft(folder / f"{position}.{part:05d}.samples", samples)
            words.append(draws.uid_words(samples["uid"]))
            bare.append((samples["image_kind"] == NO_IMAGE.kind).to_numpy())
            skips.append(_skip_frame([row for row in chunk if isinstance(row, Skip)]))
            survey.add_columns(samples)
            if len(chunk) < CHUNK_ROWS:
                break
        for presence in presences:
            presence.require()  # else all that follows would be a skip, and for good
        skipped = pl.concat(skips)
        files.write_draft(folder / f"{position}.skipped", skipped)
        survey.reasons.append(Counter(skipped["reason"].to_list()))
        survey.words.append(np.concatenate(words))
        survey.bare.append(np.concatenate(bare))
        progress.advance(1)
    return survey


def _draft_parts(folder: Path, position: int) -> list[pl.DataFrame]:
    """The drafted samples of one shard, in order."""
    return [pl.read_parquet(file) for file in sorted(folder.glob(f"{position}.*.samples"))]


def _sample_frame(samples: list[Sample]) -> pl.DataFrame:
    """Samples as rows of ``SAMPLE_COLUMNS`` and their metadata under a prefix."""
    rows = [
        (
            sample.uid,
            sample.key,
            sample.shard,
            sample.caption,
            sample.label,
            sample.image.kind,
            sample.image.path,
            sample.image.offset,
            sample.image.length,
            sample.image.member,
        )
        for sample in samples
    ]
    frame = pl.DataFrame(rows, schema=SAMPLE_COLUMNS, orient="row")
    names = dict.fromkeys(name for sample in samples for name in sample.meta)
    own = []
    for name in names:
        values = [sample.meta.get(name) for sample in samples]
        own.append(column(OWN + name, values, column_dtype(values)))
    return frame.with_columns(own)


def _skip_frame(skips: list[Skip]) -> pl.DataFrame:
    rows = [(skip.key, skip.shard, skip.reason, skip.detail) for skip in skips]
    return pl.DataFrame(rows, schema=SKIP_COLUMNS, orient="row")


def _first_of_each(words: list[np.ndarray]) -> np.ndarray:
    """Which samples of the pool are the first with their uid: (N,) bool."""
    pool = np.concatenate(words)
    first = np.zeros(len(pool), bool)
    by_uid = np.lexsort((pool[:, 1], pool[:, 0]))  # stable: equal uids stay in pool order
    ordered = pool[by_uid]
    new = np.ones(len(pool), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first[by_uid[new]] = True
    return first


def _draw(words: list[np.ndarray], unique: np.ndarray, config: SourceConfig) -> np.ndarray:
    """Which samples of the pool are scored: (N,) bool."""
    if config.sample is None or config.sample >= int(unique.sum()):
        return unique
    rows = np.flatnonzero(unique)
    drawn = draws.order_words(np.concatenate(words)[rows], config.sample_seed)
    chosen = np.zeros(len(unique), bool)
    chosen[rows[drawn[: config.sample]]] = True
    return chosen


def _final(
    samples: pl.DataFrame, names: dict[str, str], dtypes: dict[str, pl.DataType]
) -> pl.DataFrame:
    """The shard's samples with the pool's columns, in the pool's dtypes and under stored names."""
    own = []
    for raw, stored in names.items():
        dtype = pl.String() if dtypes[raw] == pl.Null() else dtypes[raw]
        there = OWN + raw in samples.columns
        series = samples[OWN + raw] if there else pl.Series([None] * len(samples), dtype=pl.Null)
        own.append(cast_column(series, dtype).alias(stored))
    return samples.select(list(SAMPLE_COLUMNS)).with_columns(own)


def _duplicates(samples: pl.DataFrame) -> pl.DataFrame:
    """Skips for samples whose uid another sample has already."""
    return samples.select(
        "key",
        "shard",
        reason=pl.lit("duplicate_uid"),
        detail=pl.format("uid {} belongs to an earlier sample", "uid"),
    )


def _require_samples(source: Source, survey: _Survey, count: int) -> None:
    if count:
        return
    counts = _total(survey.reasons)
    reasons = ", ".join(f"{reason}: {n}" for reason, n in counts.most_common())
    first = next((item for item in preview(source, 1) if isinstance(item, Skip)), None)
    raise SourceError(
        "the pool holds no sample that can be scored",
        got=reasons or "no samples at all",
        next_step=f"look at the first skip: {first.key}: {first.detail}"
        if first
        else f"check the path {source.root}",
    )
