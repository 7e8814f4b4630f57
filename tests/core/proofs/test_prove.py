"""Proofs from end to end on pools whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mimic_core.__main__ import main
from mimic_core.base.config import ProbeConfig, RunConfig, SourceConfig
from mimic_core.base.draws import uid_words
from mimic_core.base.errors import ConfigError, FilterError, Interrupted, RunError
from mimic_core.base.progress import Silent
from mimic_core.features.stored import Rows
from mimic_core.filters.conditions import Percentile
from mimic_core.filters.recipe import Recipe
from mimic_core.proofs import prove as proving
from mimic_core.proofs.arms import MAX_RECIPES, ArmPlan, plan_arms, seed_rows, split_halves
from mimic_core.proofs.prove import prove
from mimic_core.proofs.record import Proof, read_proof, stored_proofs
from mimic_core.proofs.settings import ProveConfig
from mimic_core.proofs.tasks import PairsTask
from mimic_core.proofs.words import as_lines, loss_text
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.run import Run
from tests.core.feature_sets import labelled_features, spoiled_set
from tests.fakes import fake_run
from tests.recipes import keeping

CONFIG = ProveConfig(
    trusted="good",
    seeds=3,
    steps=60,
    batch_size=32,
    learning_rate=2e-2,
    resamples=2000,
    duplicate_cosine=0.9999,
)
GOOD, SPOILED = keeping("good", True), keeping("good", False)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    return spoiled_set(tmp_path_factory.mktemp("prove") / "f", 600)


@pytest.fixture(scope="module")
def proof(features: FeatureSet) -> Proof:
    recipes = {"good": GOOD, "heads": keeping("coin", True), "tails": keeping("coin", False)}
    return prove(features, recipes, CONFIG)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return fake_run(tmp_path / "runs", n=400)


RUN_CONFIG = CONFIG.model_copy(update={"trusted": "is_noisy=false", "steps": 5})


def outcome(proof: Proof, first: str, second: str) -> str:
    (found,) = [c.outcome for c in proof.comparisons if (c.first, c.second) == (first, second)]
    return found


def test_a_planted_harmful_half_is_found(proof: Proof) -> None:
    assert outcome(proof, "good", "random, size of good") == "better"
    assert outcome(proof, "good", "all samples") == "better"
    assert outcome(proof, "good", "heads") == "better"
    assert proof.verdict[0].startswith("good keeps 50 % fewer samples and is better than training")
    arm = proof.arm("good")
    assert (
        arm.metrics["image to text recall@1"].value
        > proof.arm("heads").metrics["image to text recall@1"].value
    )


def test_keeping_the_harmful_half_is_found_to_be_worse(features: FeatureSet) -> None:
    found = prove(features, {"spoiled": SPOILED}, CONFIG)
    assert outcome(found, "spoiled", "all samples") == "worse"
    assert "is worse than training on all samples" in found.verdict[0]


def test_two_equal_halves_are_not_told_apart_here(proof: Proof) -> None:
    assert outcome(proof, "heads", "tails") == "open"
    assert proof.verdict[-1].startswith("No difference between heads and tails could be shown")


def test_all_that_is_compared_is_there(proof: Proof) -> None:
    assert [arm.name for arm in proof.arms] == [
        "all samples",
        *(name for r in ("good", "heads", "tails") for name in (r, f"random, size of {r}")),
    ]
    assert len(proof.comparisons) == 3 * 2 + 3
    for recipe in proof.recipes:
        assert proof.arm(recipe.name).trained == recipe.trained
        assert proof.arm(f"random, size of {recipe.name}").trained == recipe.trained
    for comparison in proof.comparisons:
        assert comparison.p <= comparison.p_corrected
        loss = comparison.differences["held-out loss"]
        arms = (
            proof.arm(name).metrics["held-out loss"].value
            for name in (comparison.first, comparison.second)
        )
        first, second = arms
        assert loss.value == pytest.approx(first - second)
        assert loss.low <= loss.value <= loss.high
        assert comparison.relative.value == pytest.approx((first - second) / second)


def test_a_recipe_that_keeps_all_is_no_different_from_all(features: FeatureSet) -> None:
    found = prove(features, {"everything": Recipe()}, CONFIG)
    for comparison in found.comparisons:
        assert comparison.outcome == "not_worse"
        assert comparison.relative.low == comparison.relative.high == 0
        assert comparison.p == 1
    assert found.verdict[0] == (
        "everything keeps every sample and is the same as training on all samples; "
        "it is the same as a random subset of the same size."
    )
    assert found.comparisons[0].text == "everything and all samples train on the same samples."


def test_the_held_out_part_never_trains(
    features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from both ends: the rows that a training is given, and those whose features it reads."""
    given: set[int] = set()
    read: list[set[int]] = []
    judging: set[int] = set()
    fit, take, judge = PairsTask.fit, Rows.take, PairsTask.contributions

    def spied_fit(self: PairsTask, rows: np.ndarray, **options: object) -> object:
        given.update(rows.tolist())
        return fit(self, rows, **options)  # type: ignore[arg-type]

    def spied_take(self: Rows, rows: np.ndarray) -> torch.Tensor:
        read.append(set(rows.tolist()))
        return take(self, rows)

    def spied_judge(self: PairsTask, model: object, held_out: np.ndarray) -> np.ndarray:
        judging.update(held_out.tolist())
        return judge(self, model, held_out)  # type: ignore[arg-type]

    monkeypatch.setattr(PairsTask, "fit", spied_fit)
    monkeypatch.setattr(Rows, "take", spied_take)
    monkeypatch.setattr(PairsTask, "contributions", spied_judge)
    found = prove(features, {"good": GOOD, "spoiled": SPOILED}, CONFIG)
    assert len(judging) == found.held_out.held_out == 75
    assert features.samples["good"].gather(sorted(judging)).all()
    assert len(given) == found.held_out.trainable
    assert not given & judging
    trained_on = [rows for rows in read if rows != judging]
    assert trained_on
    assert not any(rows & judging for rows in trained_on)


def test_a_harmful_part_of_a_labelled_pool_is_found(tmp_path: Path) -> None:
    pool = labelled_features(tmp_path / "f", samples=600, scale=0.7)
    right = (pool.samples["label"] == pool.samples["clean"]).alias("right")
    pool.__dict__["samples"] = pool.samples.with_columns(right)
    config = CONFIG.model_copy(update={"trusted": "right", "steps": 150})
    found = prove(pool, {"right": keeping("right", True)}, config)
    assert found.task == "labels"
    assert list(found.arms[0].metrics) == ["held-out loss", "accuracy"]
    assert outcome(found, "right", "all samples") == "better"
    assert outcome(found, "right", "random, size of right") == "better"


def test_expert_labels_judge_in_place_of_the_pools_own(tmp_path: Path) -> None:
    pool = labelled_features(tmp_path / "f", samples=600, scale=0.7)
    expert = pl.when(pl.int_range(pl.len()) % 2 == 0).then("clean").alias("expert")
    pool.__dict__["samples"] = pool.samples.with_columns(
        expert, right=pl.col("label") == pl.col("clean")
    )
    recipes = {"right": keeping("right", True)}
    config = CONFIG.model_copy(update={"trusted": None, "steps": 100})
    found = prove(pool, recipes, config.model_copy(update={"trusted_label_column": "expert"}))
    assert (found.held_out.trusted, found.held_out.held_out) == (300, 75)
    assert found.held_out.source == "a label in expert"
    assert "The labels in expert judge" in "\n".join(as_lines(found))
    everyone = pl.Series("uid", pool.samples["uid"])
    by_pool = prove(pool, recipes, config, held_out=everyone.gather_every(2).head(75))
    by_expert = prove(
        pool,
        recipes,
        config.model_copy(update={"trusted_label_column": "expert"}),
        held_out=everyone.gather_every(2).head(75),
    )
    accuracy = [p.arm("right").metrics["accuracy"].value for p in (by_pool, by_expert)]
    assert accuracy[1] > accuracy[0] + 0.1  # a third of the pool's own labels were drawn anew


def test_trusted_labels_must_be_classes_and_pairs_have_none(
    features: FeatureSet, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"trusted": None, "trusted_label_column": "number"})
    pool = labelled_features(tmp_path / "f")
    with pytest.raises(ConfigError, match="no class of the pool") as caught:
        prove(pool, {"all": Recipe()}, config)
    assert caught.value.allowed == "cat, dog, owl"
    with pytest.raises(ConfigError, match="pairs have no labels"):
        prove(features, {"all": Recipe()}, config)


# --- arms ---


def plan_of(features: FeatureSet) -> tuple[ArmPlan, np.ndarray]:
    selections = {
        name: proving.filters.apply(recipe, features.samples)
        for name, recipe in (("good", GOOD), ("heads", keeping("coin", True)))
    }
    words = uid_words(features.samples["uid"])
    return plan_arms(selections, features.samples["uid"], np.arange(50, 600)), words


def test_halves_are_cut_right_with_as_many_recipes_as_are_allowed(features: FeatureSet) -> None:
    selection = proving.filters.apply(GOOD, features.samples)
    uids = features.samples["uid"]
    many = plan_arms({f"r{n}": selection for n in range(MAX_RECIPES)}, uids, np.arange(600))
    words = uid_words(uids)
    rows = seed_rows(many, words, 0)
    halves = split_halves(rows, words, 0)
    assert len(halves) == 2 * MAX_RECIPES + 1 == 41
    sizes = {len(half) for name in many.recipes for half in halves[name]}
    assert sizes == {150}


def test_random_subsets_are_as_large_and_drawn_anew_by_every_seed(features: FeatureSet) -> None:
    plan, words = plan_of(features)
    first, second = (seed_rows(plan, words, seed) for seed in (0, 1))
    for name in plan.recipes:
        random = f"random, size of {name}"
        assert len(first[random]) == len(first[name]) == plan.size(random)
        assert np.array_equal(first[name], second[name])
        assert not np.array_equal(first[random], second[random])
        assert set(first[random]) <= set(plan.trainable)


def test_halves_share_no_sample_and_are_cut_alike_in_every_arm(features: FeatureSet) -> None:
    plan, words = plan_of(features)
    rows = seed_rows(plan, words, 0)
    halves = split_halves(rows, words, 0)
    for name, (one, other) in halves.items():
        assert sorted([*one, *other]) == sorted(rows[name])
        assert abs(len(one) - len(other)) <= 2 ** len(rows) // 2
    shared = set(rows["good"]) & set(rows["heads"])
    assert shared & set(halves["good"][0]) == shared & set(halves["heads"][0])
    assert not np.array_equal(halves["good"][0], split_halves(rows, words, 1)["good"][0])


# --- stored proofs ---


def test_a_proof_repeats_itself_byte_for_byte_and_is_found_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = {"clean": keeping("is_noisy", False)}
    first = prove(run, recipes, RUN_CONFIG)
    (stored,) = (run.path / "proofs").iterdir()
    before = stored.read_bytes()
    assert read_proof(stored) == first
    assert stored.name == f"{first.proof_id}.json"
    stored.unlink()
    assert prove(run, recipes, RUN_CONFIG) == first
    assert stored.read_bytes() == before
    monkeypatch.setattr(proving, "train_arms", lambda *a, **k: pytest.fail("trained again"))
    assert prove(run, recipes, RUN_CONFIG) == first
    assert stored_proofs(run.path) == ([first], [])
    for changed in (
        (recipes, RUN_CONFIG.model_copy(update={"seeds": 4})),
        ({"other name": recipes["clean"]}, RUN_CONFIG),
        ({"clean": keeping("topic", "beach")}, RUN_CONFIG),
    ):
        with pytest.raises((pytest.fail.Exception, FilterError, ConfigError)):
            prove(run, *changed)


def test_a_damaged_proof_is_named(run: Run) -> None:
    folder = run.path / "proofs"
    folder.mkdir()
    (folder / "a.json").write_text("{}")
    (folder / "b.json").write_text("no")
    proofs, damaged = stored_proofs(run.path)
    assert proofs == []
    assert len(damaged) == 2
    with pytest.raises(RunError, match="another version"):
        read_proof(folder / "a.json")


def test_an_interrupted_proof_stores_nothing(run: Run) -> None:
    class Stopping(Silent):
        trained = 0

        def advance(self, count: int, *, skipped: int = 0) -> None:
            self.trained += count

        def check(self) -> None:
            if self.trained > 4:
                raise Interrupted

    with pytest.raises(Interrupted):
        prove(run, {"clean": keeping("is_noisy", False)}, RUN_CONFIG, progress=Stopping())
    assert not (run.path / "proofs").exists()
    assert torch.get_num_threads() >= 1


def test_progress_ends_where_it_said(features: FeatureSet) -> None:
    class Counting(Silent):
        total = done = 0

        def phase(self, name: str, total: int, *, done: int = 0, unit: str = "samples") -> None:
            self.total += total

        def advance(self, count: int, *, skipped: int = 0) -> None:
            self.done += count

    say = Counting()
    quick = CONFIG.model_copy(update={"steps": 2})
    prove(features, {"good": GOOD, "all": Recipe()}, quick, progress=say)
    assert say.done == say.total == 3 * 3 * 5


# --- settings and errors ---


def test_a_run_lends_its_optimiser_to_its_proofs() -> None:
    config = RunConfig(
        source=SourceConfig(path="x"),
        reference="y",
        probe=ProbeConfig(side="text", batch_size=64, learning_rate=0.5, weight_decay=0.25),
    )
    made = ProveConfig.for_run(config, seeds=7, steps=None)
    assert made == ProveConfig(
        side="text", batch_size=64, learning_rate=0.5, weight_decay=0.25, seeds=7
    )
    with pytest.raises(ConfigError, match="setting seeds"):
        ProveConfig.for_run(config, seeds=1)


def test_a_small_recipe_makes_the_batch_smaller_for_all(features: FeatureSet) -> None:
    recipe = Recipe().with_condition("few", Percentile(column="key_number", lower=90))
    table = features.samples.with_columns(key_number=pl.col("key").cast(pl.Int64))
    features.__dict__["samples"] = table
    found = prove(features, {"few": recipe}, CONFIG.model_copy(update={"steps": 2}))
    assert 16 <= found.batch_size < 32
    assert f"The batch size is {found.batch_size} instead of 32 in every arm" in found.notes[0]


@pytest.mark.parametrize(
    ("recipes", "changes", "held_out", "problem"),
    [
        ({}, {}, None, "no recipe"),
        ({"all samples": GOOD}, {}, None, "name of another arm"),
        ({"good": GOOD, "random, size of good": SPOILED}, {}, None, "name of another arm"),
        ({f"r{n}": GOOD for n in range(21)}, {}, None, "too many recipes"),
        ({"a": Recipe()}, {"trusted": None}, None, "known to be good"),
        ({"a": Recipe()}, {}, pl.Series("uid", ["x"]), "named twice"),
        ({"a": Recipe()}, {"trusted": "gone"}, None, "no such column"),
    ],
)
def test_what_cannot_be_proved_is_refused(
    features: FeatureSet,
    recipes: dict[str, Recipe],
    changes: dict[str, object],
    held_out: pl.Series | None,
    problem: str,
) -> None:
    with pytest.raises(ConfigError, match=problem):
        prove(features, recipes, CONFIG.model_copy(update=changes), held_out=held_out)


def test_a_recipe_that_keeps_too_few_is_named(features: FeatureSet) -> None:
    from mimic_core.filters.conditions import TopK

    tiny = Recipe().with_condition("few", TopK(column="number", k=10))
    features.__dict__["samples"] = features.samples.with_columns(
        number=pl.int_range(pl.len(), dtype=pl.Int64)
    )
    with pytest.raises(ConfigError, match="tiny keeps too few") as caught:
        prove(features, {"tiny": tiny}, CONFIG)
    assert "that may train" in (caught.value.got or "")


def test_words_for_intervals() -> None:
    from mimic_core.proofs.record import Interval

    def said(value: float, low: float, high: float) -> str:
        return loss_text(Interval(value=value, low=low, high=high))

    assert said(-0.061, -0.083, -0.04) == (
        "held-out loss 6.1 % lower (interval 4.0 % to 8.3 % lower)"
    )
    assert said(0.25, 0.004, 0.5) == "held-out loss 25 % higher (interval 0.4 % to 50 % higher)"
    assert said(0.0, -0.01, 0.02) == (
        "held-out loss 0.0 % higher (interval 1.0 % lower to 2.0 % higher)"
    )
    assert said(0, 0, 0) == "held-out loss the same"


def test_the_report_says_who_judged_and_what_was_removed(proof: Proof) -> None:
    text = "\n".join(as_lines(proof))
    assert "75 samples judge and never train (of 300 marked as good by good)" in text
    assert "No duplicate of a judging sample was found" in text
    assert "p corrected for 9 comparisons (Holm)" in text


# --- the command line ---


def write_recipe(folder: Path, name: str, recipe: Recipe) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(recipe.to_yaml(), "utf-8")
    return str(path)


def command(run: Run, *options: str) -> list[str]:
    few = ["--seeds", "2", "--steps", "3", "--batch-size", "32", "--duplicate-cosine", "0.9999"]
    return ["prove", run.id, "--runs", str(run.path.parent), *few, *options]


def test_the_command_prints_stores_and_writes(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, "clean", keeping("is_noisy", False))
    out, data = tmp_path / "report.txt", tmp_path / "proof.json"
    options = ["--recipe", recipe, "--trusted", "is_noisy=false", "--seed", "5"]
    arguments = command(run, *options, "--out", str(out), "--json", str(data))
    assert main(arguments) == 0
    printed = capsys.readouterr()
    (stored,) = (run.path / "proofs").iterdir()
    assert stored.read_bytes() == data.read_bytes()
    assert printed.out == out.read_text("utf-8")
    assert printed.out.startswith("clean keeps ")
    assert f"stored: {stored}" in printed.err
    config = json.loads(data.read_text("utf-8"))["config"]
    assert (config["seeds"], config["steps"], config["seed"]) == (2, 3, 5)
    assert main(arguments) == 0
    assert "is there already" in capsys.readouterr().err


def test_the_command_takes_a_held_out_file(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, "all", Recipe())
    uids = run.features.samples.filter(~pl.col("is_noisy"))["uid"].head(40)
    chosen = tmp_path / "held.txt"
    chosen.write_text("\n".join(uids), "utf-8")
    assert main(command(run, "--recipe", recipe, "--held-out", str(chosen))) == 0
    assert "40 samples judge and never train (of 40 marked as good by a file of 40 uids)" in (
        capsys.readouterr().out
    )


def test_the_command_asks_for_trust_with_candidates(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, "all", Recipe())
    assert main(command(run, "--recipe", recipe)) == 1
    said = capsys.readouterr().err
    assert "needs samples that are known to be good" in said
    assert "is_noisy=false" in said
    assert "noise_kind=clean" in said


def other_folder(folder: Path) -> Path:
    path = folder / "other"
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("recipes", "problem"),
    [
        (lambda folder: [], "there is no recipe to prove"),
        (lambda folder: [str(folder / "gone.yaml")], "the recipe cannot be read"),
        (
            lambda folder: [
                write_recipe(folder, "a", Recipe()),
                write_recipe(other_folder(folder), "a", Recipe()),
            ],
            "two recipes have the same file name",
        ),
    ],
)
def test_the_command_refuses_what_is_no_recipe(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recipes: Callable[[Path], Sequence[str]],
    problem: str,
) -> None:
    options = [part for path in recipes(tmp_path) for part in ("--recipe", path)]
    assert main(command(run, *options, "--trusted", "is_noisy=false")) == 1
    assert problem in capsys.readouterr().err
