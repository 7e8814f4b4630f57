"""Rows without an image: their captions are measured and embedded, nothing else is made of them.

They stand apart from the samples, so that no array has a row that stands for nothing and no batch
holds what cannot be scored.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch.nn import functional as F

from mimic_core.base import files
from mimic_core.base.config import Precision
from mimic_core.base.progress import Progress
from mimic_core.base.schema import MEASURED_COLUMNS
from mimic_core.features.loading import count_tokens
from mimic_core.models import clip
from mimic_core.models.devices import autocast
from mimic_core.models.load import LoadedModel
from mimic_core.runs import imageless
from mimic_core.runs.featureset import FeatureSet

_BATCH = 256


def fill(
    features: FeatureSet,
    model: LoadedModel,
    device: torch.device,
    precision: Precision,
    progress: Progress,
) -> None:
    """Store the rows without an image of every shard that has not got them yet.

    Args:
        model: The reference; without a tokenizer (features of the user's own) nothing is embedded.
    """
    for shard in features.shards:
        rows, target = imageless.indexed(features, shard), imageless.file_of(features, shard)
        if rows is None or target.exists():
            continue
        captions = rows["caption"].to_list()
        progress.phase("captions without an image", len(captions))
        tokenizer = model.tokenizer
        counts: list[int | None] = [None] * len(captions)
        if tokenizer is not None:
            embeddings = []
            for start in range(0, len(captions), _BATCH):
                progress.check()
                some = captions[start : start + _BATCH]
                tokens = tokenizer(some).to(device)
                with torch.no_grad(), autocast(device, precision):
                    embedded = clip.encode_text(model.module, tokens)
                embeddings.append(F.normalize(embedded.float(), dim=-1).half().cpu().numpy())
                counts[start : start + len(some)] = [count_tokens(tokenizer, one) for one in some]
                progress.advance(len(some))
            files.write_array(target.with_suffix(".npy"), np.concatenate(embeddings))
        lengths = [len(one) for one in captions]
        values: dict[str, list[int | None]] = {
            "caption_tokens": counts,
            "caption_length": [*lengths],
        }
        measured = [
            pl.Series(name, values.get(name, [None] * len(rows)), dtype=dtype)
            for name, dtype in MEASURED_COLUMNS.items()
        ]
        files.write_parquet(target, rows.with_columns(measured))
