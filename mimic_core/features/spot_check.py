"""A few samples drawn from the whole pool, for checks that must not take long."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import torch

from mimic_core.base.draws import order
from mimic_core.base.errors import ScoreError
from mimic_core.features.filling import loader_for
from mimic_core.features.loading import LoadedBatch
from mimic_core.models.load import LoadedModel
from mimic_core.runs.featureset import FeatureSet
from mimic_core.sources.source import Source


def load_some(
    index: FeatureSet, source: Source, model: LoadedModel, device: torch.device, *, count: int
) -> LoadedBatch:
    """Up to ``count`` readable samples, drawn by uid from the whole pool; on ``device``.

    Raises:
        ScoreError: Fewer than two samples of the pool can be read.
    """
    loader = loader_for(source, model)
    drawn = _drawn(index)
    readable: list[pl.DataFrame] = []
    for start in range(0, drawn.height, count):
        rows = _index_rows(index, drawn.slice(start, count))
        readable.append(rows[loader.load(rows).rows])
        if sum(map(len, readable)) >= count:
            break
    chosen = pl.concat(readable, how="diagonal_relaxed").head(count)
    if chosen.height < 2:
        raise ScoreError(
            "the pool has too few readable samples",
            got=f"{chosen.height} of {drawn.height} indexed samples",
            allowed="at least 2",
            next_step="look at the pool's preview for the reasons why samples are skipped",
        )
    return loader.load(chosen).to(device)


def load_two(
    index: FeatureSet, source: Source, model: LoadedModel, device: torch.device
) -> LoadedBatch:
    """Two readable samples, with different images and captions where the first few allow it."""
    batch = load_some(index, source, model, device, count=16)
    tokens, images = batch.tokens, batch.image_of
    differs = images != images[0]
    if tokens.shape[1]:  # labelled images have no tokens
        differs &= (tokens != tokens[0]).any(1)
    second = int(differs.int().argmax()) or 1
    rows = torch.tensor([0, second], device=device)
    return replace(
        batch,
        rows=batch.rows[[0, second]],
        tokens=tokens[rows],
        image_of=images[rows],
        labels=[batch.labels[0], batch.labels[second]],
    )


def all_alike(batch: LoadedBatch) -> bool:
    """Whether the samples of a batch have one image and one caption: all scores are zero then."""
    images = batch.images[batch.image_of]
    return bool((images == images[0]).all() and (batch.tokens == batch.tokens[0]).all())


def _drawn(index: FeatureSet) -> pl.DataFrame:
    """Columns ``shard`` and ``row`` of all indexed samples, in the order of the draw."""
    parts = [
        index.index_uids(shard).to_frame().with_row_index("row").with_columns(shard=pl.lit(shard))
        for shard in index.shards
    ]
    table = pl.concat(parts)
    return table[order(table["uid"], 0)].select("shard", "row")


def _index_rows(index: FeatureSet, places: pl.DataFrame) -> pl.DataFrame:
    parts = [
        index.index(shard)[rows["row"]]
        for (shard,), rows in places.group_by("shard", maintain_order=True)
    ]
    return pl.concat(parts, how="diagonal_relaxed")
