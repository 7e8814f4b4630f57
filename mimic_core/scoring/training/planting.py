"""Who is scored a second time in training, with a label or caption that is wrong on purpose.

``mimic_core.stats.direction`` says what for. Letters: N trained samples, B batch, K of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mimic_core.base.draws import Draw
from mimic_core.base.identity import image_numbers
from mimic_core.base.schema import Planted
from mimic_core.scoring.training.tracing import Swap
from mimic_core.stats.direction import other_pairs, planted_places, planting


class Planting:
    """Which samples are scored once more with a label or caption that is wrong on purpose.

    A label is that of a sample of the pool; a caption that of a sample in the same batch, whose
    text has been read and encoded with it.

    Args:
        words: Parsed uids (N, 2) of the trained samples.
        samples: These N samples.
        classes: What the model's outputs stand for; empty for pairs.
    """

    def __init__(self, words: np.ndarray, samples: pl.DataFrame, classes: Sequence[str]) -> None:
        self._labels: np.ndarray | None = None
        if classes:
            numbers = {name: number for number, name in enumerate(classes)}
            self._labels = np.array([numbers[label] for label in samples["label"]], np.int64)
            self._partners = planting(words, samples, "label")
        else:
            self._captions = samples["caption"].rank("dense").to_numpy()
            self._images = image_numbers(samples)
            self._partners = planting(words, samples, "caption")

    def swap(self, draw: Draw, device: torch.device) -> Swap | None:
        """What of a batch is scored again; None where nothing is."""
        places, partners = self._drawn(draw)
        if not len(places):
            return None
        at = torch.from_numpy(places).to(device)
        if self._labels is None:
            return Swap(at, partners=torch.from_numpy(partners).to(device))
        return Swap(at, labels=torch.from_numpy(self._labels[partners]).to(device))

    def planted(self, draw: Draw, scores: Tensor) -> Planted:
        """The scores (K,) of ``swap``, as they are kept."""
        places, partners = self._drawn(draw)
        whose = draw.rows[partners] if self._labels is None else partners
        return Planted(draw.rows[places], whose, scores.detach().float().cpu().numpy())

    def _drawn(self, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """Places in the batch (K,), and partners: positions for labels, places for captions."""
        places, _, partners = planted_places(draw, self._partners)
        if self._labels is not None:
            return places, partners
        others = other_pairs(self._captions[draw.rows], self._images[draw.rows])[places]
        return places[others >= 0], others[others >= 0]
