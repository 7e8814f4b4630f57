"""Do the scores tell right from wrong? Judged by labels or captions that are wrong on purpose.

Nobody knows which labels of a pool are wrong, but everybody can make some: a sample's own score is
compared with the one that it would have with another sample's label or caption, at the same moment
and in the same batch (a *planted* score). The share of pairs in which an own score is above a
planted one is, but for the wrong labels of the pool itself, the AUROC of the scores for wrong ones.

With w the share of own labels that look like planted ones to the reference, and r the chance that a
planted label is right where the own one is wrong, own scores are a mixture of right and wrong ones,
and so are the planted; therefore ``share - 1/2 = (AUROC - 1/2) (1 - w) / (1 + w r)``.

Letters: N samples, K samples that are planted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from mimic_core.base.draws import Draw, order_words
from mimic_core.base.identity import image_numbers
from mimic_core.stats.agreement import rank_agreement
from mimic_core.stats.detection import auroc

PLANTED_SAMPLES = 4096  # more would not make the figure more certain than 0.01
_TRIES = 64  # captions of one image that follow each other in a random order are few
_KEY = 0x706C616E74  # of the draw, so that it is no batch's order

# Right labels have a better reference loss than nearly all planted ones, wrong ones are spread like
# them: so the wrong ones are counted where the planted ones look worst.
_WORST = 0.25
# Beyond this share of labels that look planted, what is left of the difference cannot be scaled up.
MOST_LIKE_PLANTED = 0.85
# Calibrated by bench/direction.py (docs/direction.md).
GOOD, BAD = 0.8, 0.55
MOST_ERROR = 0.06

Level = Literal["good", "caution", "bad", "unknown"]
_ORDER: tuple[Level, ...] = ("bad", "unknown", "caution", "good")


@dataclass(frozen=True, slots=True)
class Figure:
    """An expected AUROC and its standard error.

    ``above`` is what was counted: the share of pairs in which an own score is above a planted one;
    ``above_error`` is its standard error.
    """

    value: float
    error: float
    above: float
    above_error: float


def planting(
    words: np.ndarray, samples: pl.DataFrame, column: str, *, most: int = PLANTED_SAMPLES
) -> np.ndarray:
    """Whose label or caption each sample is given on purpose.

    Args:
        words: Parsed uids (N, 2) uint64, on which alone the draw depends.
        samples: The N samples.
        column: ``label`` or ``caption``; a planted one always differs from the own, and a caption
            is that of another image.
        most: Samples that are planted.

    Returns:
        (N,) int64 positions; -1 for samples that are not planted.
    """
    drawn = order_words(words, _KEY)[: 2 * most]
    some = samples[drawn]
    codes = some[column].rank("dense").to_numpy()
    followers = next_different(codes)
    if column == "caption":
        followers = other_pairs(codes, image_numbers(some))
    partners = np.full(len(words), -1, np.int64)
    there = np.flatnonzero(followers >= 0)[:most]
    partners[drawn[there]] = drawn[followers[there]]
    return partners


def other_pairs(captions: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The position, in a circle, of the next sample with another caption and another image.

    Args:
        captions, images: Numbers (N,); equal numbers are equal captions, or images.

    Returns:
        (N,) int64; -1 where there is none among the next ``_TRIES``.
    """
    found = next_different(captions)
    for _ in range(_TRIES):
        same = (found >= 0) & ((images[found] == images) | (captions[found] == captions))
        if not same.any():
            return found
        found[same] = (found[same] + 1) % len(found)
    same = (images[found] == images) | (captions[found] == captions)
    return np.where(same, -1, found)


def planted_places(draw: Draw, partners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who of a batch is planted.

    Args:
        partners: (N,) of ``planting``.

    Returns:
        Places in the batch, positions in the pool and the partners' positions there, (K,) each.
    """
    counted = draw.rows[: draw.scored]
    places = np.flatnonzero(partners[counted] >= 0)
    rows = counted[places]
    return places, rows, partners[rows]


def next_different(values: np.ndarray) -> np.ndarray:
    """The position, in a circle, of the first value after each (N,) that is not equal to it.

    Returns:
        (N,) int64; -1 where all values are the same.
    """
    count = len(values)
    twice = np.concatenate([values, values])
    changes = np.flatnonzero(twice[1:] != twice[:-1]) + 1
    if not len(changes):
        return np.full(count, -1, np.int64)
    found: np.ndarray = changes[np.searchsorted(changes, np.arange(count), side="right")] % count
    return found


def like_planted(own: np.ndarray, planted: np.ndarray) -> float:
    """The share of own labels or captions that look like planted ones to the reference.

    Args:
        own, planted: (K,) how well they go with their images according to the reference; the higher
            the better.

    Returns:
        0 where none does; 1 where the reference tells them no better than chance, or worse.
    """
    edge = np.quantile(planted, _WORST)
    among_planted = float((planted <= edge).mean())
    return min(1.0, float((own <= edge).mean()) / among_planted)


def expected_auroc(
    own: np.ndarray, planted: np.ndarray, *, like: float, right_by_chance: float = 0.0
) -> Figure:
    """The AUROC for wrong labels or captions that these scores would have.

    A share below one half is not scaled: that such scores run the wrong way needs no more proof.

    Args:
        own, planted: Scores (K,).
        like: w, from ``like_planted``; taken as ``MOST_LIKE_PLANTED`` where it is more.
        right_by_chance: r.
    """
    scores = np.concatenate([own, planted])
    positive = np.arange(len(scores)) < len(own)
    above = auroc(scores, positive)
    assert above is not None  # both sides have samples
    # Under equal distributions (Mann and Whitney); a clear difference has a smaller error.
    spread = math.sqrt((len(scores) + 1) / (12 * len(own) * len(planted)))
    w = min(like, MOST_LIKE_PLANTED)
    left = (1 - w) / (1 + w * right_by_chance)
    value = above if above < 0.5 else min(1.0, 0.5 + (above - 0.5) / left)
    return Figure(value, spread / left, above, spread)


@dataclass(frozen=True, slots=True, eq=False)
class Control:
    """What planted scores are compared with, of S epochs (or repeats) and K samples.

    ``own``, ``planted``, ``losses`` (S, K): scores and losses with the own label or caption, scores
    with the planted one. ``reference_own``, ``reference_planted`` (K,): how well the two go with
    the image according to the reference; the higher the better. ``right_by_chance`` is r.
    """

    own: np.ndarray
    planted: np.ndarray
    losses: np.ndarray
    reference_own: np.ndarray
    reference_planted: np.ndarray
    right_by_chance: float = 0.0


@dataclass(frozen=True, slots=True)
class EpochFigures:
    """Of one epoch's scores, and of their mean ``until`` then, this epoch included."""

    figure: Figure
    until: Figure
    level_until: Level
    rank_with_loss: float | None
    rank_with_reference: float | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the control says of a run.

    Attributes:
        like: w, the share of labels or captions that look planted to the reference.
        epochs: In order; the last one's ``until`` is the figure of the run.
        turns_at: Index of the first epoch whose scores no longer tell right from wrong, after one
            whose scores do; None where there is none.
        use_epochs: The longest beginning of the run that has the best level, where that is better
            than the level of the whole.
    """

    like: float
    epochs: tuple[EpochFigures, ...]
    turns_at: int | None
    use_epochs: int | None

    @property
    def figure(self) -> Figure:
        """Of the mean over all epochs."""
        return self.epochs[-1].until

    @property
    def level(self) -> Level:
        """Of the mean over all epochs."""
        return self.epochs[-1].level_until


def judge(control: Control) -> Judgement:
    """The figures of every epoch and of the means, and what follows."""
    like = like_planted(control.reference_own, control.reference_planted)
    chance = control.right_by_chance
    found: list[EpochFigures] = []
    sums = np.zeros((2, control.own.shape[1]))
    lowest = math.inf
    for own, planted, losses in zip(control.own, control.planted, control.losses, strict=True):
        sums += own, planted
        figure = expected_auroc(own, planted, like=like, right_by_chance=chance)
        until = expected_auroc(*sums, like=like, right_by_chance=chance)
        lowest = min(lowest, figure.value)
        found.append(
            EpochFigures(
                figure,
                until,
                level_of(until, like=like, lowest=lowest),
                rank_agreement(own, losses),
                rank_agreement(own, control.reference_own),
            )
        )
    values = [one.figure.value for one in found]
    sound = next((place for place, value in enumerate(values) if value >= BAD), len(values))
    turned = (place for place in range(sound, len(values)) if values[place] < BAD)
    turns_at = next(turned, None)
    return Judgement(like, tuple(found), turns_at, _best_beginning(found, turns_at))


def _best_beginning(epochs: Sequence[EpochFigures], turns_at: int | None) -> int | None:
    """How many epochs to use: as many as have the best level, none after the scores have turned."""
    levels = [_ORDER.index(one.level_until) for one in epochs]
    best = max(levels[:turns_at])
    if best <= levels[-1]:
        return None
    return max(count for count in range(1, len(levels[:turns_at]) + 1) if levels[count - 1] == best)


def level_of(figure: Figure, *, like: float, lowest: float) -> Level:
    """What a figure allows to say.

    Args:
        figure: Of the mean over some epochs.
        like: w.
        lowest: The lowest value of these epochs: a mean hides scores that have turned round.
    """
    if figure.above + 2 * figure.above_error < 0.5:
        return "bad"
    if like > MOST_LIKE_PLANTED or figure.error > MOST_ERROR:
        return "unknown"
    if figure.value < BAD:
        return "bad"
    return "good" if figure.value >= GOOD and lowest >= BAD else "caution"
