"""From what the trainings gave to a proof: intervals, tests, corrections, words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mimic_core.proofs import intervals, power, words
from mimic_core.proofs.arms import ArmPlan
from mimic_core.proofs.intervals import Resampler, Trained
from mimic_core.proofs.record import (
    ALL_SAMPLES,
    Arm,
    ArmKind,
    Comparison,
    Interval,
    Proof,
    ProvedRecipe,
    is_share,
)
from mimic_core.proofs.settings import ProveConfig
from mimic_core.proofs.split import Split


@dataclass(frozen=True, eq=False)
class _Test:
    """A comparison before the correction."""

    first: str
    second: str
    differences: list[Interval]
    relative: Interval
    p: float
    p_not_worse: float
    errors: tuple[float, float]  # of the loss, over what judges and over what trains


def judge(
    plan: ArmPlan,
    trained: Mapping[str, Trained],
    split: Split,
    config: ProveConfig,
    *,
    metrics: Sequence[str],
    proved: Sequence[ProvedRecipe],
    identity: dict[str, Any],
) -> Proof:
    """The proof of these trainings.

    Args:
        metrics: Their names; the first is the loss, on which all verdicts rest.
        identity: Fields of ``Proof`` that are not worked out here.
    """
    resampler = Resampler(split.groups, seeds=config.seeds, replicates=config.resamples)
    arms = {}
    for name, kind, of in plan.arms:
        found = intervals.intervals(
            resampler.replicates(trained[name]), trained[name].values, config.level
        )
        arms[name] = Arm(
            name=name,
            kind=kind,
            of=of,
            trained=plan.size(name),
            metrics={
                metric: one.within(0, 1) if is_share(metric) else one
                for metric, one in zip(metrics, found, strict=True)
            },
            curve=tuple(sorted(trained[name].curve.items())),
        )
    tests = [_test(first, second, trained, resampler, config) for first, second in _pairs(plan)]
    comparisons = _corrected(tests, arms, metrics, config, groups=split.record.groups)
    return Proof(
        config=config,
        held_out=split.record,
        recipes=tuple(proved),
        arms=tuple(arms.values()),
        comparisons=comparisons,
        verdict=_verdict(proved, comparisons, config),
        **identity,
    )


def _pairs(plan: ArmPlan) -> list[tuple[str, str]]:
    """Which arms are compared: each recipe with both baselines, and recipes with each other."""
    against = [
        (name, other) for name in plan.recipes for other in (ALL_SAMPLES, words.random_name(name))
    ]
    return against + list(combinations(plan.recipes, 2))


def _test(
    first: str,
    second: str,
    trained: Mapping[str, Trained],
    resampler: Resampler,
    config: ProveConfig,
) -> _Test:
    difference = trained[first].minus(trained[second])
    replicates = resampler.replicates(difference)
    found = intervals.intervals(replicates, difference.values, config.level)
    scale = float(np.abs(trained[second].values[0])) or 1.0
    loss = replicates[:, 0]
    return _Test(
        first,
        second,
        found,
        Interval(**{name: value / scale for name, value in found[0]}),
        intervals.two_sided_p(loss),
        intervals.not_worse_p(loss, config.margin * scale),
        (
            float(resampler.held_out_errors(difference)[0]),
            float(intervals.training_error(difference)[0]),
        ),
    )


def _corrected(
    tests: Sequence[_Test],
    arms: Mapping[str, Arm],
    metrics: Sequence[str],
    config: ProveConfig,
    *,
    groups: int,
) -> tuple[Comparison, ...]:
    p = intervals.holm([test.p for test in tests])
    p_not_worse = intervals.holm([test.p_not_worse for test in tests])
    out = []
    for test, one, other in zip(tests, p, p_not_worse, strict=True):
        outcome = intervals.outcome(test.relative, one, other, config)
        out.append(
            Comparison(
                first=test.first,
                second=test.second,
                differences={
                    metric: found.within(-1, 1) if is_share(metric) else found
                    for metric, found in zip(metrics, test.differences, strict=True)
                },
                relative=test.relative,
                p=test.p,
                p_corrected=one,
                p_not_worse=test.p_not_worse,
                p_not_worse_corrected=other,
                outcome=outcome,
                text=words.comparison_text(
                    test.first,
                    arms[test.second],
                    test.relative,
                    outcome,
                    margin=config.margin,
                    proved=one <= config.level,
                ),
                power=power.planned(
                    power.asked_difference(
                        config.detect, config.margin, arms[test.second].metrics[metrics[0]].value
                    ),
                    *test.errors,
                    seeds=config.seeds,
                    level=config.level / len(tests),
                    groups=groups,
                ),
            )
        )
    return tuple(out)


def _verdict(
    proved: Sequence[ProvedRecipe], comparisons: Sequence[Comparison], config: ProveConfig
) -> tuple[str, ...]:
    """One sentence for each recipe against the baselines, then those for pairs of recipes."""
    found = {(c.first, c.second): c for c in comparisons}
    sentences = []
    for recipe in proved:
        against: dict[ArmKind, Comparison] = {
            "all": found[recipe.name, ALL_SAMPLES],
            "random": found[recipe.name, words.random_name(recipe.name)],
        }
        sentences.append(words.verdict_text(recipe, against, config))
    names = {recipe.name for recipe in proved}
    return (*sentences, *(c.text for c in comparisons if c.second in names))
