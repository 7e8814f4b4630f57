"""A whole network trained on labelled images in memory, by the product's own step.

Letters: N trained images, B batch, S epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import repository  # noqa: F401 - first: the packages lie one level up
import torch
from torch import Tensor

from mimic_core.base.config import TrainConfig
from mimic_core.base.draws import Draw, draw_batches, uid_words
from mimic_core.features.loading import LoadedBatch
from mimic_core.scoring.training.objectives import LabelObjective
from mimic_core.scoring.training.optimisation import Updater
from mimic_core.scoring.training.step import Aids, Learner, Visit, visit_batch

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Given:
    """The images that are trained on: ``pixels`` (N, 3, H, W), numbers of their classes (N,)."""

    pixels: Tensor
    labels: np.ndarray
    classes: tuple[str, ...]

    @cached_property
    def samples(self) -> pl.DataFrame:
        """``uid`` and ``label`` (N rows)."""
        names = [self.classes[label] for label in self.labels]
        return pl.DataFrame({"uid": [f"{row:032x}" for row in range(len(names))], "label": names})

    @cached_property
    def words(self) -> np.ndarray:
        """Parsed uids (N, 2)."""
        return uid_words(self.samples["uid"])

    def batch(self, rows: np.ndarray) -> LoadedBatch:
        """The images at ``rows`` (B,)."""
        return LoadedBatch(
            rows,
            self.pixels[torch.from_numpy(rows)],
            torch.arange(len(rows)),
            torch.zeros(len(rows), 0, dtype=torch.int64),
            labels=self.samples["label"].gather(rows).to_list(),
        )


def visits(
    module: Any,
    reference: Any,
    given: Given,
    config: TrainConfig,
    aids: Callable[[Draw], Aids] = lambda _: Aids(),
) -> Iterator[tuple[int, Draw, Visit]]:
    """Train ``module`` in place for all epochs; after every update its epoch, batch and visit.

    Args:
        module: A network with the methods of timm's models, as ``reference``, whose last layer is
            gone towards. Its statistics stay as they are, as in every training of the product.
        aids: What a batch is compared with.
    """
    layer = head_weight(reference)
    module.eval().requires_grad_(True)
    learner = Learner(
        module,
        LabelObjective(given.classes, CPU),
        {layer: reference.get_parameter(layer).detach()},
        config,
    )
    total = config.epochs * -(-len(given.labels) // config.batch_size)
    updater = Updater(
        dict(module.named_parameters()), config, total=total, device=CPU, precision="fp32"
    )
    for epoch in range(config.epochs):
        for draw in draw_batches(
            given.words, batch_size=config.batch_size, seed=config.seed, epoch=epoch
        ):
            visit = visit_batch(learner, given.batch(draw.rows), aids(draw))
            updater.update()
            yield epoch, draw, visit


def head_weight(module: Any) -> str:
    """The name of the last layer's weight."""
    weight = module.get_classifier().weight
    names: list[str] = [name for name, value in module.named_parameters() if value is weight]
    return names[0]
