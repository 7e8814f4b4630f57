"""What a run is made from: source, reference, feature sets and, in snapshot mode, the scored model.

Everything a user can get wrong is opened and checked here, before the long pass over the images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from mimic_core import features
from mimic_core.encoders import ReferenceEncoder
from mimic_core.errors import ModelError
from mimic_core.featureset import FeatureSet
from mimic_core.heads import store_head
from mimic_core.models import LoadedModel, load_model
from mimic_core.pairs import Pair, prepare_pair
from mimic_core.projections import find_projection
from mimic_core.schema import RunConfig, Side
from mimic_core.sources import DECODER, Source, open_source


@dataclass(frozen=True)
class Inputs:
    """Opened and checked. ``targets`` are the feature sets to fill: the reference's first, then, in
    snapshot mode, the tangents of ``pair``.
    """

    source: Source
    reference: LoadedModel
    targets: tuple[features.Target, ...]
    encoder: ReferenceEncoder
    pair: Pair | None = None

    @property
    def cached(self) -> FeatureSet:
        """The reference's feature set."""
        return self.targets[0].features

    @property
    def tangents(self) -> FeatureSet | None:
        """The scored model's tangents, in snapshot mode."""
        return self.targets[1].features if len(self.targets) > 1 else None


def open_inputs(
    config: RunConfig, runs_root: Path, device: torch.device, note: Callable[[str], None]
) -> Inputs:
    """Open the source and the models of ``config`` and find or begin their feature sets.

    Raises:
        MimicError: The source or a model cannot be used as asked.
    """
    source = open_source(config.source)
    note(f"pool: {source.layout} at {config.source.path}")
    reference = _load_reference(config, device, note)
    sides = _sides(config, reference)

    def feature_set(
        arrays: tuple[str, ...],
        *,
        extra: dict[str, object] | None = None,
        index_from: FeatureSet | None = None,
    ) -> FeatureSet:
        return features.feature_set_for(
            runs_root,
            source,
            config.source,
            reference,
            precision=config.precision,
            device=device,
            arrays=arrays,
            extra=extra,
            index_from=index_from,
        )

    encoder = ReferenceEncoder(reference.module, device, config.precision, sides)
    cached = feature_set(encoder.arrays)
    store_head(cached, reference.module, sides)
    targets = (features.Target(cached, encoder),)
    if config.snapshot is None:
        return Inputs(source, reference, targets, encoder)
    pair = prepare_pair(config, config.snapshot, reference, device, note)
    tangents = feature_set(pair.encoder.arrays, extra=pair.identity, index_from=cached)
    both = (*targets, features.Target(tangents, pair.encoder))
    return Inputs(source, reference, both, encoder, pair)


def _load_reference(
    config: RunConfig, device: torch.device, note: Callable[[str], None]
) -> LoadedModel:
    reference = load_model(config.reference, preprocess=config.preprocess)
    reference.module.to(device)
    note(f"reference: {config.reference} on {device}")
    note(
        f"preprocessing, {reference.preprocessing_origin}: {reference.preprocessing} "
        f"(sha256 {reference.preprocessing_sha256[:12]}); decoder: {DECODER}"
    )
    return reference


def _sides(config: RunConfig, reference: LoadedModel) -> tuple[Side, ...]:
    """Towers with a linear projection; the one that a probe is to train must be among them."""
    sides: list[Side] = []
    both: tuple[Side, ...] = ("image", "text")
    for side in both:
        try:
            find_projection(reference.module, side)
            sides.append(side)
        except ModelError:
            if config.probe is not None and config.probe.side == side:
                raise
    return tuple(sides)
