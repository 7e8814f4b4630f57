"""Who trains in which arm: what the recipes keep, random subsets of their sizes, and all.

Random subsets are drawn anew by every seed, from all samples that may train. Halves are cut the
same way for every arm: a sample that two arms share is in the same half of both, so what they have
in common cancels.

Letters: N samples of the pool, C that may train, n samples of an arm.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from mimic_core.base.draws import order_words
from mimic_core.base.errors import ConfigError
from mimic_core.filters.recipe import Selection
from mimic_core.proofs.record import ALL_SAMPLES, ArmKind
from mimic_core.proofs.words import random_name

# Two arms a recipe and one more, a bit each in an int64; and comparisons grow with the square.
MAX_RECIPES = 20
_SUBSET_KEY, _HALF_KEY = 0x737562, 0x68616C66  # keep these draws apart


@dataclass(frozen=True, eq=False)
class ArmPlan:
    """The arms of a proof.

    Attributes:
        trainable: Rows (C,) that may train, ascending.
        recipes: Rows (n,) of each recipe's arm, ascending.
    """

    trainable: np.ndarray
    recipes: dict[str, np.ndarray]

    @property
    def arms(self) -> list[tuple[str, ArmKind, str | None]]:
        """(name, kind, recipe) of every arm, in the order of the report."""
        arms: list[tuple[str, ArmKind, str | None]] = [(ALL_SAMPLES, "all", None)]
        for name in self.recipes:
            arms += [(name, "recipe", None), (random_name(name), "random", name)]
        return arms

    @property
    def names(self) -> list[str]:
        """Names of the arms."""
        return [name for name, _, _ in self.arms]

    def size(self, name: str) -> int:
        """Number of samples of an arm."""
        kind, of = next((kind, of) for arm, kind, of in self.arms if arm == name)
        if kind == "all":
            return len(self.trainable)
        return len(self.recipes[of or name])


def check_names(names: Collection[str]) -> None:
    """Refuse recipes that cannot be told from the other arms, or are too many.

    Raises:
        ConfigError: There is none, there are too many, or a name is that of another arm.
    """
    if not 1 <= len(names) <= MAX_RECIPES:
        raise ConfigError(
            "too many recipes for one proof" if names else "there is no recipe to prove",
            got=len(names),
            allowed=f"1 to {MAX_RECIPES} recipes",
            next_step="give a recipe with --recipe FILE, or leave some to another proof",
        )
    taken = [name for name in names if name == ALL_SAMPLES or name.startswith(random_name(""))]
    if taken:
        raise ConfigError(
            "a recipe has the name of another arm of the proof",
            got=taken[0],
            allowed=f"any name but {ALL_SAMPLES!r}, and none that begins with {random_name('')!r}",
            next_step="rename the recipe's file",
        )


def plan_arms(
    selections: Mapping[str, Selection], uids: pl.Series, trainable: np.ndarray
) -> ArmPlan:
    """The arms of these selections, each cut down to the rows that may train.

    Args:
        selections: What the recipes keep of a table, which need not hold all samples of the pool.
        uids: Of the pool (N,).
        trainable: Rows (C,) of the pool, ascending.
    """
    may_train = uids.gather(trainable)
    return ArmPlan(
        trainable,
        {
            name: trainable[may_train.is_in(one.uids.implode()).to_numpy()]
            for name, one in selections.items()
        },
    )


def seed_rows(plan: ArmPlan, words: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Rows of every arm under one seed.

    Args:
        words: Parsed uids (N, 2) of the pool.
    """
    drawn = plan.trainable[order_words(words[plan.trainable], _SUBSET_KEY, seed)]
    rows = {ALL_SAMPLES: plan.trainable}
    for name, kept in plan.recipes.items():
        rows[name] = kept
        rows[random_name(name)] = np.sort(drawn[: len(kept)])
    return rows


def split_halves(
    rows: dict[str, np.ndarray], words: np.ndarray, seed: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Two halves of every arm that share no sample, nearly equal in size.

    Samples that are in the same arms are dealt out in turn, in the order of a hash.
    """
    pattern = np.zeros(len(words), np.int64)
    for bit, kept in enumerate(rows.values()):
        pattern[kept] |= 1 << bit
    everyone = rows[ALL_SAMPLES]
    ranked = everyone[order_words(words[everyone], _HALF_KEY, seed)]
    ranked = ranked[np.argsort(pattern[ranked], kind="stable")]
    second = np.zeros(len(words), bool)
    second[ranked[1::2]] = True
    return {name: (kept[~second[kept]], kept[second[kept]]) for name, kept in rows.items()}


def smallest_half(plan: ArmPlan, words: np.ndarray, seeds: Iterable[int]) -> int:
    """Size of the smallest half of any arm under any of the seeds."""
    return min(
        len(half)
        for seed in seeds
        for halves in split_halves(seed_rows(plan, words, seed), words, seed).values()
        for half in halves
    )
