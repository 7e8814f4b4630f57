"""How small a difference a proof finds: the formula against simulated proofs, and its laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mimic_core.__main__ import main
from mimic_core.filters.recipe import Recipe
from mimic_core.proofs import power, words
from mimic_core.proofs import prove as proving
from mimic_core.proofs.intervals import Resampler, Trained, two_sided_p
from mimic_core.proofs.prove import prove
from mimic_core.proofs.record import Comparison, Proof, proof_file, read_proof
from mimic_core.proofs.settings import ProveConfig
from mimic_core.runs.run import Run
from tests.fakes import fake_run
from tests.recipes import keeping

QUICK = {"seeds": 3, "steps": 8, "resamples": 1000, "duplicate_cosine": 0.9999}
CLEAN = keeping("is_noisy", False)
ERRORS = st.floats(0.001, 100)


@pytest.mark.parametrize("seeds", [2, 3, 5, 20, 300])
@pytest.mark.parametrize("level", [0.05, 0.0005])
def test_without_held_out_error_it_is_the_noncentral_t_test(seeds: int, level: float) -> None:
    """scipy's own distribution, in its right tail; the other one is below 1e-5 there."""
    critical = stats.t.isf(level / 2, seeds)
    for shift in (3.0, 5.0, 9.0):
        found = power.chance(shift * 0.2, 0.0, 0.2, seeds=seeds, level=level)
        assert found == pytest.approx(stats.nct.sf(critical, seeds, shift), abs=1e-4)


def test_without_training_error_it_is_the_normal_test_by_hand() -> None:
    by_hand = 1.9599640 + 0.8416212  # the quantiles of 0.975 and 0.8
    assert power.detectable(2.0, 0.0, seeds=2, level=0.05) == pytest.approx(2 * by_hand, rel=1e-5)
    assert power.limit(2.0, 0.0, level=0.05) == pytest.approx(2 * by_hand, rel=1e-7)
    assert power.limit(1.2, 1.6, level=0.05) == pytest.approx(2 * by_hand, rel=1e-7)


@pytest.mark.parametrize(
    ("held_out_error", "training_error", "seeds", "level"),
    [(0.05, 0.1, 5, 0.05), (0.1, 0.1, 3, 0.01), (0.1, 0.03, 4, 0.05), (0.02, 0.1, 20, 0.01)],
)
def test_simulated_proofs_find_as_many_as_is_said(
    held_out_error: float, training_error: float, seeds: int, level: float
) -> None:
    """The statistics of a proof themselves, over what else could have judged and trained."""
    judges, trials = 200, 1000
    rng = np.random.default_rng(3)
    resampler = Resampler(np.arange(judges), seeds=seeds, replicates=4000)
    difference = power.detectable(held_out_error, training_error, seeds=seeds, level=level)
    found = 0
    for _ in range(trials):
        shift = difference + training_error * rng.normal()
        contributions = shift + held_out_error * np.sqrt(judges) * rng.normal(size=(1, judges))
        halves = training_error * np.sqrt(2) * rng.normal(size=(1, seeds, 2))
        found += two_sided_p(resampler.replicates(Trained(contributions, halves))[:, 0]) <= level
    assert found / trials == pytest.approx(power.POWER, abs=0.05)  # four standard deviations


def test_held_out_errors_are_those_of_the_bootstrap() -> None:
    rng = np.random.default_rng(4)
    groups = rng.integers(0, 40, size=120)
    trained = Trained(rng.normal(size=(2, 120)), np.zeros((2, 3, 2)))
    resampler = Resampler(groups, seeds=3, replicates=40_000)
    spread = resampler.replicates(trained).std(0)
    assert resampler.held_out_errors(trained) == pytest.approx(spread, rel=0.03)


@settings(max_examples=15, deadline=None)
@given(ERRORS, ERRORS, st.integers(2, 40), st.sampled_from([0.05, 0.01, 0.0002]))
def test_laws(held_out_error: float, training_error: float, seeds: int, level: float) -> None:
    at = power.detectable(held_out_error, training_error, seeds=seeds, level=level)
    chance = power.chance(at, held_out_error, training_error, seeds=seeds, level=level)
    assert chance == pytest.approx(power.POWER, abs=1e-6)
    # As many seeds find it, and one fewer do not; further ones find more, down to the limit.
    needed = power.seeds_needed(at * (1 + 1e-4), held_out_error, training_error, level=level)
    assert needed is not None
    assert needed <= seeds
    more = power.detectable(held_out_error, training_error, seeds=seeds + 1, level=level)
    limit = power.limit(held_out_error, training_error, level=level)
    assert limit * (1 - 1e-3) <= more <= at * (1 + 1e-6)
    assert power.seeds_needed(0.99 * limit, held_out_error, training_error, level=level) is None
    twice = power.detectable(2 * held_out_error, 2 * training_error, seeds=seeds, level=level)
    assert twice == pytest.approx(2 * at, rel=1e-6)


def test_the_fewest_seeds_by_going_through_all() -> None:
    wanted = 0.4
    enough = [
        seeds
        for seeds in range(2, 60)
        if stats.nct.sf(stats.t.isf(0.005, seeds), seeds, wanted / 0.1) >= power.POWER
    ]
    assert power.seeds_needed(wanted, 0.0, 0.1, level=0.01) == enough[0]


def test_so_many_judges_bring_the_limit_down() -> None:
    found = power.planned(0.05, 0.1, 0.01, seeds=5, level=0.01, groups=100)
    assert found is not None
    assert found.seeds is None
    assert found.judging is not None
    smaller = 0.1 * np.sqrt(100 / found.judging)
    assert power.limit(smaller, 0.01, level=0.01) == pytest.approx(0.05, rel=1e-2)
    none = power.planned(0.05, 0.1, 0.1, seeds=5, level=0.01, groups=100)
    assert none is not None
    assert none.judging is None
    assert power.planned(0.05, 0.0, 0.0, seeds=5, level=0.01, groups=100) is None


def test_the_loss_is_looked_at_after_every_quarter() -> None:
    assert power.curve_steps(100) == (25, 50, 75, 100)
    assert power.curve_steps(10) == (3, 5, 8, 10)
    assert power.curve_steps(2) == (1, 2)
    assert power.curve_steps(1) == (1,)


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Proof]:
    run = fake_run(tmp_path_factory.mktemp("power"), n=300)
    config = ProveConfig.for_run(run.record.config, trusted="is_noisy=false", **QUICK)
    return run, prove(run, {"clean": CLEAN, "all": Recipe()}, config)


def test_a_proof_keeps_what_its_comparisons_could_find(proof: tuple[Run, Proof]) -> None:
    run, made = proof
    assert read_proof(proof_file(run.path, made.proof_id)) == made
    for one in made.comparisons:
        if one.first == "all" and one.second != "clean":
            assert one.power is None  # both train on the same samples
            continue
        assert one.power is not None
        loss = made.arm(one.second).metrics["held-out loss"].value
        assert one.power.difference == pytest.approx(0.01 * loss)
        assert one.power.level == 0.05 / len(made.comparisons)
        assert one.power.limit < one.power.detectable
    for arm in made.arms:
        assert [at for at, _ in arm.curve] == [2, 4, 6, 8]
        assert arm.curve[-1][1] == pytest.approx(arm.metrics["held-out loss"].value)


def test_the_curve_is_that_of_shorter_trainings(proof: tuple[Run, Proof]) -> None:
    run, made = proof
    shorter = made.config.model_copy(update={"steps": 4})
    half = prove(run.features, {"clean": CLEAN}, shorter)
    losses = dict(made.arm("all samples").curve)
    assert losses[4] == pytest.approx(half.arm("all samples").metrics["held-out loss"].value)


def test_another_difference_is_worked_out_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fake_run(tmp_path, n=200)
    (tmp_path / "clean.yaml").write_text(CLEAN.to_yaml())
    command = ["prove", run.id, "--runs", str(tmp_path), "--recipe", str(tmp_path / "clean.yaml")]
    command += ["--trusted", "is_noisy=false", "--steps", "3", "--seeds", "2"]
    assert main(command) == 0
    before = capsys.readouterr().out
    file = next((run.path / "proofs").iterdir())
    text = file.read_text()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(proving, "train_arms", never)
    assert main([*command, "--detect", "1000"]) == 0
    said = capsys.readouterr().out
    for other in ("all samples", "random, size of clean"):
        assert f"To tell a difference of 1e+03 between clean and {other} apart: 2 seeds" in said
    asked = read_proof(file)
    assert asked.config.detect == 1000
    assert [c.power.seeds for c in asked.comparisons if c.power] == [2, 2]
    assert main(command) == 0
    assert capsys.readouterr().out == before
    assert file.read_text() == text


def compared(made: Proof, **changes: object) -> Comparison:
    """The first comparison, with other figures of its power."""
    one = made.comparisons[0]
    assert one.power is not None
    found = one.power.model_copy(update={"difference": 0.02, "detectable": 0.035} | changes)
    return one.model_copy(update={"power": found})


def test_the_words(proof: tuple[Run, Proof]) -> None:
    _, made = proof
    asked = "To tell a difference of 0.02 between clean and all samples apart"
    found = compared(made, seeds=14, seeds_least=8, seeds_most=None)
    assert words.power_text(made, found) == (
        f"{asked}: 14 seeds of this length (8 to no number, for 3 seeds know the spread but "
        "roughly); these 3 find 0.035 and more."
    )
    certain = compared(made, seeds=2, seeds_least=2, seeds_most=2)
    assert words.power_text(made, certain) == (
        f"{asked}: 2 seeds of this length; these 3 find 0.035 and more."
    )
    none = compared(made, seeds=None, limit=0.03, judging=1234)
    assert words.power_text(made, none) == (
        f"{asked}: no number of seeds; these 3 find 0.035 and more, no number less than 0.03. "
        f"1,234 samples had to judge for that, not {made.held_out.groups:,}."
    )
    lost = compared(made, seeds=None, limit=0.03, judging=None)
    assert words.power_text(made, lost).endswith(
        "What other samples would have taught differs by more than that."
    )
    assert words.power_text(made, made.comparisons[0].model_copy(update={"power": None})) == ""


@pytest.mark.parametrize(
    ("curves", "said", "steps"),
    [
        (
            [((75, 1.0), (100, 0.95)), ((75, 1.0), (100, 1.0))],
            "still fell in the last quarter of the steps, by 5.0 % for all samples: try 16 steps",
            16,
        ),
        (
            [((50, 0.8), (75, 1.0), (100, 1.25)), ((75, 1.0), (100, 1.0))],
            "rose in the last quarter of the steps, by 25 % for all samples, and was lowest",
            None,
        ),
        ([((75, 1.0), (100, 0.992)), ((75, 1.0), (100, 1.0))], "moved by 0.8 % at most", None),
        ([(), ()], "", None),
    ],
)
def test_what_is_said_of_steps(
    proof: tuple[Run, Proof],
    curves: list[tuple[tuple[int, float], ...]],
    said: str,
    steps: int | None,
) -> None:
    _, made = proof
    arms = [
        arm.model_copy(update={"curve": curve})
        for arm, curve in zip(made.arms[:2], curves, strict=True)
    ]
    made = made.model_copy(update={"arms": tuple(arms)})
    lines = words.steps_text(made)
    assert len(lines) == bool(said)
    assert said in "".join(lines)
    assert power.suggested_steps(made) == steps


def test_older_proofs_without_power_are_read_and_said(proof: tuple[Run, Proof]) -> None:
    _, made = proof
    values = made.model_dump()
    for one in values["comparisons"]:
        del one["power"]
    for arm in values["arms"]:
        del arm["curve"]
    old = Proof.model_validate(values)
    assert words.asked_about(old) == []
    assert not any("To tell a difference" in line for line in words.as_lines(old))
    assert power.replanned(old, 0.5).comparisons == old.comparisons
