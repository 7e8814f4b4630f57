"""What a proof says: its words claim no more, and no less, than its corrected p-values."""

from __future__ import annotations

import pytest

from mimic_core.filters.conditions import Absolute, Percentile
from mimic_core.filters.recipe import Recipe
from mimic_core.proofs.record import (
    Arm,
    ArmKind,
    Comparison,
    HeldOut,
    Interval,
    Leakage,
    Outcome,
    Proof,
    ProvedRecipe,
)
from mimic_core.proofs.settings import ProveConfig
from mimic_core.proofs.words import (
    as_lines,
    comparison_text,
    recipe_text,
    settings_text,
    verdict_text,
)

CONFIG = ProveConfig(trusted="x", margin=0.01)
RECIPE = (
    Recipe()
    .with_condition("a", Percentile(column="clip_score", lower=30))
    .with_condition("b", Absolute(column="mimic_score", min=0.5))
)
PROVED = ProvedRecipe(name="A", recipe=RECIPE, kept=700, total=1000, trained=500, uids_sha256="0")
LOSS = Interval(value=1.0, low=0.9, high=1.1)


def compared(second: str, outcome: Outcome, value: float, p: float) -> Comparison:
    relative = Interval(value=value, low=value - 0.001, high=value + 0.001)
    return Comparison(
        first="A",
        second=second,
        differences={"held-out loss": relative},
        relative=relative,
        p=p,
        p_corrected=p,
        p_not_worse=0.5,
        p_not_worse_corrected=0.5,
        outcome=outcome,
        text="",
    )


def headline(outcome: Outcome, value: float, p: float) -> str:
    against: dict[ArmKind, Comparison] = {
        "all": compared("all samples", outcome, value, p),
        "random": compared("random, size of A", "open", 0.0, 1.0),
    }
    return verdict_text(PROVED, against, CONFIG)


@pytest.mark.parametrize(
    ("outcome", "value", "p", "said"),
    [
        ("better", -0.2, 0.01, "is better than training on all samples by 20 % of the"),
        ("worse", 0.2, 0.01, "is worse than training on all samples by 20 % of the"),
        ("not_worse", 0.004, 0.2, "is not worse than training on all samples;"),
        (
            "not_worse",
            0.004,
            0.01,
            "is worse than training on all samples by 0.4 % of the held-out loss, within the 1.0 %",
        ),
        ("open", 0.004, 0.2, "no difference from training on all samples could be shown;"),
    ],
)
def test_the_headline_does_not_hide_a_proved_loss(
    outcome: Outcome, value: float, p: float, said: str
) -> None:
    text = headline(outcome, value, p)
    assert text.startswith(f"A keeps 30 % fewer samples and {said}")
    assert text.endswith("no difference from a random subset of the same size could be shown.")


@pytest.mark.parametrize(("proved", "said"), [(True, "but by less than 1.0 %"), (False, "not wor")])
def test_only_a_corrected_p_proves_a_small_loss(proved: bool, said: str) -> None:
    all_samples = Arm(name="all samples", kind="all", trained=1, metrics={"held-out loss": LOSS})
    interval = Interval(value=0.004, low=0.001, high=0.007)  # wholly above zero either way
    text = comparison_text("A", all_samples, interval, "not_worse", margin=0.01, proved=proved)
    assert said in text


def proof(steps: int) -> Proof:
    none = Leakage(same_image=0, same_file=0, same_caption=0, removed=0, held_out_touched=0)
    held_out = HeldOut(
        source="x",
        trusted=40,
        held_out=20,
        groups=20,
        set_aside=0,
        trainable=1000,
        uids_sha256="0",
        leakage=none,
    )
    sizes: list[tuple[str, ArmKind, int]] = [("all samples", "all", 1000), ("A", "recipe", 500)]
    metrics = {"held-out loss": LOSS}
    return Proof(
        proof_id="p",
        run="r",
        feature_set="f",
        task="pairs",
        config=CONFIG.model_copy(update={"steps": steps}),
        batch_size=50,
        held_out=held_out,
        recipes=(PROVED,),
        arms=tuple(Arm(name=n, kind=k, trained=size, metrics=metrics) for n, k, size in sizes),
        comparisons=(),
        verdict=("said",),
    )


def test_the_report_says_how_often_samples_were_seen() -> None:
    assert settings_text(proof(100)).endswith(
        "trained on 5 times on average in the largest arm and 10 times in the smallest."
    )
    assert settings_text(proof(10)).endswith("; with fewer than one, give more steps.")
    lines = as_lines(proof(100))
    (row,) = [line for line in lines if line.startswith("all samples")]
    assert row.split()[2:4] == ["1,000", "5"]


def test_the_report_says_what_each_recipe_was() -> None:
    expected = "A: CLIP score: top 70 %; and mimic score >= 0.5 (keeps 700 of 1,000)"
    assert recipe_text(PROVED) == expected
    assert expected in as_lines(proof(100))
    empty = PROVED.model_copy(update={"recipe": Recipe()})
    assert recipe_text(empty) == "A: no condition (keeps 700 of 1,000)"
