"""A proof in words: one sentence per comparison, the verdict, and the tables of the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from mimic_core.proofs.power import last_moves, suggested_steps
from mimic_core.proofs.record import (
    Arm,
    ArmKind,
    Comparison,
    HeldOut,
    Interval,
    Outcome,
    Proof,
    ProvedRecipe,
    is_share,
)
from mimic_core.proofs.settings import ProveConfig
from mimic_core.runs.report import aligned


def random_name(recipe: str) -> str:
    """Name of the arm of random subsets of that recipe's size."""
    return f"random, size of {recipe}"


def comparison_text(
    first: str, second: Arm, relative: Interval, outcome: Outcome, *, margin: float, proved: bool
) -> str:
    """Such as ``A is better than all samples: held-out loss 3.1 % lower (95 % ...)``.

    Args:
        proved: Whether the two differ for certain, by the corrected p.
    """
    other = _spoken(second.kind, second.name)
    figures = loss_text(relative)
    if _same(relative):
        return f"{first} and {second.name} train on the same samples."
    match outcome:
        case "better":
            return f"{first} is better than {other}: {figures}."
        case "worse":
            return f"{first} is worse than {other}: {figures}."
        case "not_worse" if proved:  # a proved gain would be "better"
            return f"{first} is worse than {other}, but by less than {_percent(margin)}: {figures}."
        case "not_worse":
            return f"{first} is not worse than {other} (margin {_percent(margin)}): {figures}."
    return f"No difference between {first} and {other} could be shown: {figures}."


def loss_text(relative: Interval) -> str:
    """Such as ``held-out loss 3.1 % lower (95 % interval 1.2 % to 5.0 % lower)``."""
    size = _percent(abs(relative.value))
    if _same(relative):
        return "held-out loss the same"
    way = "lower" if relative.value < 0 else "higher"
    if relative.low < 0 < relative.high:
        span = f"{_percent(-relative.low)} lower to {_percent(relative.high)} higher"
    else:
        ends = sorted((abs(relative.low), abs(relative.high)))
        span = f"{_percent(ends[0])} to {_percent(ends[1])} {way}"
    return f"held-out loss {size} {way} (interval {span})"


def _same(relative: Interval) -> bool:
    """Whether two arms gave the very same figures, which only equal samples do."""
    return relative.value == relative.low == relative.high == 0


def verdict_text(
    recipe: ProvedRecipe, against: Mapping[ArmKind, Comparison], config: ProveConfig
) -> str:
    """One recipe's sentence: how much it drops, and what that does against both baselines."""
    on_all, on_random = (_outcome_text(kind, against[kind], config) for kind in ("all", "random"))
    return f"{recipe.name} {_dropped(recipe)} and {on_all}; {_against_random(on_random)}."


def _outcome_text(kind: ArmKind, found: Comparison, config: ProveConfig) -> str:
    other, size = _spoken(kind, ""), _percent(abs(found.relative.value))
    if _same(found.relative):
        return f"is the same as {other}"
    match found.outcome:
        case "better" | "worse":
            return f"is {found.outcome} than {other} by {size} of the held-out loss"
        case "not_worse" if found.p_corrected <= config.level:
            margin = _percent(config.margin)
            return (
                f"is worse than {other} by {size} of the held-out loss, within the {margin} margin"
            )
        case "not_worse":
            return f"is not worse than {other}"
    return f"no difference from {other} could be shown"


def _against_random(text: str) -> str:
    return text if text.startswith("no ") else f"it {text}"


def _dropped(recipe: ProvedRecipe) -> str:
    dropped = recipe.total - recipe.kept
    if not dropped:
        return "keeps every sample"
    return f"keeps {_percent(dropped / recipe.total)} fewer samples"


def _spoken(kind: ArmKind, name: str) -> str:
    return {
        "all": "training on all samples",
        "random": "a random subset of the same size",
        "recipe": name,
    }[kind]


def _percent(share: float) -> str:
    """Per cent with two significant digits, whole from 10 on."""
    percent = 100 * share
    if percent >= 9.95:
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if percent >= 0.095 or percent == 0 else f"{percent:.2f} %"


def held_out_text(held_out: HeldOut) -> str:
    """Who judges, and what was kept from training, in one sentence or two."""
    leak = held_out.leakage
    text = (
        f"{held_out.held_out:,} samples judge and never train (of {held_out.trusted:,} marked as "
        f"good by {held_out.source})"
    )
    if held_out.set_aside:
        text += f"; {held_out.set_aside:,} others are set aside, so that the rest is as mixed"
    if held_out.unscored:
        text += f"; {held_out.unscored:,} without a score in the run may judge but not train"
    text += f"; {held_out.trainable:,} may train."
    if not leak.removed:
        return f"{text} No duplicate of a judging sample was found among them."
    return (
        f"{text} {leak.removed:,} duplicates of {leak.held_out_touched:,} judging samples were "
        f"kept out of training (same image {leak.same_image:,}, same file {leak.same_file:,}, "
        f"same caption {leak.same_caption:,})."
    )


def recipe_text(proved: ProvedRecipe) -> str:
    """Such as ``A: CLIP score: top 70 % (keeps 1,400 of 2,000)``."""
    said = [named.condition.describe() for named in proved.recipe.conditions]
    conditions = "; and ".join(said) or "no condition"
    return f"{proved.name}: {conditions} (keeps {proved.kept:,} of {proved.total:,})"


def as_lines(proof: Proof) -> list[str]:
    """A proof for the terminal: verdict, recipes, who judged, the table, the comparisons, notes."""
    metrics = list(proof.arms[0].metrics)
    head = ("arm", "trained on", "times seen", *metrics)
    rows = [
        (
            arm.name,
            f"{arm.trained:,}",
            f"{times_seen(proof, arm):.3g}",
            *(interval_text(arm.metrics[m], m) for m in metrics),
        )
        for arm in proof.arms
    ]
    pairs = [
        (c.text, f"p {c.p_corrected:.2g}", f"not worse p {c.p_not_worse_corrected:.2g}")
        for c in proof.comparisons
    ]
    return [
        *proof.verdict,
        "",
        *(recipe_text(recipe) for recipe in proof.recipes),
        "",
        held_out_text(proof.held_out),
        settings_text(proof),
        "",
        *(line.rstrip() for line in aligned([head, *rows])),
        "",
        *(line.rstrip() for line in aligned(pairs)),
        "",
        *(power_text(proof, one) for one in asked_about(proof)),
        *steps_text(proof),
        *(f"note: {note}" for note in proof.notes),
    ]


def times_seen(proof: Proof, arm: Arm) -> float:
    """How often each sample of the arm is trained on, on average; below 1, not all of them are."""
    return proof.config.steps * proof.batch_size / arm.trained


def settings_text(proof: Proof) -> str:
    """How everything was trained and tested, in two sentences."""
    config = proof.config
    seen = [times_seen(proof, arm) for arm in proof.arms]
    column = config.trusted_label_column
    judged = "" if column is None else f" The labels in {column} judge; the pool's own train."
    text = (
        f"{config.seeds} seeds, {config.steps} steps at batch size {proof.batch_size} for every "
        f"arm; intervals at {_percent(1 - config.level)}, p corrected for {len(proof.comparisons)} "
        f"comparisons (Holm). A sample was trained on {min(seen):.3g} times on average in the "
        f"largest arm and {max(seen):.3g} times in the smallest"
    )
    text += "; with fewer than one, give more steps." if min(seen) < 1 else "."
    return text + judged


def asked_about(proof: Proof) -> list[Comparison]:
    """The comparisons whose power is of interest: of a stated difference all, else those that were
    not told apart.
    """
    told = proof.config.detect is None
    return [
        one
        for one in proof.comparisons
        if one.power is not None and not (told and one.p_corrected <= proof.config.level)
    ]


def power_text(proof: Proof, comparison: Comparison) -> str:
    """How many seeds tell a difference apart, and what this proof's seeds can, in words.

    Such as ``To tell a difference of 0.02 between A and B apart: 14 seeds of this length (8 to 40,
    for 5 seeds know the spread but roughly); these 5 find 0.035 and more.``
    """
    power, config = comparison.power, proof.config
    if power is None:
        return ""
    arms = f"{comparison.first} and {comparison.second}"
    now = f"these {config.seeds} find {power.detectable:.2g} and more"
    asked = f"To tell a difference of {power.difference:.2g} between {arms} apart"
    if power.seeds is not None:
        ends = (power.seeds_least, power.seeds_most)
        least, most = ("no number" if end is None else f"{end:,}" for end in ends)
        spread = ""
        if least != most:
            spread = f" ({least} to {most}, for {config.seeds} seeds know the spread but roughly)"
        return f"{asked}: {power.seeds:,} seeds of this length{spread}; {now}."
    end = f"{asked}: no number of seeds; {now}, no number less than {power.limit:.2g}."
    if power.judging is None:
        return f"{end} What other samples would have taught differs by more than that."
    return f"{end} {power.judging:,} samples had to judge for that, not {proof.held_out.groups:,}."


def steps_text(proof: Proof) -> list[str]:
    """Whether more steps, or fewer, would change the arms; no line for proofs that did not look."""
    moves, margin = last_moves(proof), proof.config.margin
    if not moves:
        return []
    quarter = "in the last quarter of the steps"
    low, high = min(moves, key=lambda arm: moves[arm]), max(moves, key=lambda arm: moves[arm])
    lines = []
    if more := suggested_steps(proof):
        lines.append(
            f"The held-out loss still fell {quarter}, by {_percent(-moves[low])} for {low}: try "
            f"{more:,} steps. Whether the arms then differ more or less, only that proof can say."
        )
    if moves[high] > margin:
        steps = min(proof.arm(high).curve, key=lambda point: point[1])[0]
        lines.append(
            f"The held-out loss rose {quarter}, by {_percent(moves[high])} for {high}, and was "
            f"lowest after {steps:,} steps: more steps would show what harms, not what helps."
        )
    if not lines:
        largest = _percent(max(map(abs, moves.values())))
        lines.append(f"The held-out loss moved by {largest} at most {quarter}: more add little.")
    return lines


def interval_text(interval: Interval, metric: str) -> str:
    """Such as ``2.31 (2.25 to 2.38)``; shares in per cent."""
    if not is_share(metric):
        return f"{interval.value:.4g} ({interval.low:.4g} to {interval.high:.4g})"
    value, low, high = (100 * number for number in (interval.value, interval.low, interval.high))
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"
