"""The weight decay of a reference head: folds, the choice, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from mimic_core.base.config import HeadConfig
from mimic_core.scoring.labels import regularisation
from mimic_core.scoring.labels.logistic import fit_logistic
from mimic_core.scoring.labels.reference_head import make_reference
from mimic_core.scoring.labels.regularisation import (
    GRID,
    USUAL,
    chosen_weight_decay,
    left_out_folds,
)
from tests.core.feature_sets import labelled_features
from tests.core.scoring.labels.test_reference_head import image_model
from tests.core.scoring_pool import uid_of

CPU = torch.device("cpu")


def samples(
    count: int, *, noise: float, width: int = 6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, pl.Series]:
    """Features (T, F) float32, class numbers (T,) of three classes, and uids."""
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % 3
    x = rng.normal(size=(3, width))[targets] + noise * rng.normal(size=(count, width))
    return x.astype(np.float32), targets, pl.Series("uid", [uid_of(n) for n in range(count)])


def chosen(x: np.ndarray, targets: np.ndarray, uids: pl.Series) -> float:
    features = torch.from_numpy(x)
    return chosen_weight_decay(
        lambda rows: features[rows], targets, uids, classes=3, width=x.shape[1]
    )


def their_loss(x: np.ndarray, targets: np.ndarray, folds: np.ndarray, decay: float) -> float:
    """Mean loss of what was left out, by scikit-learn."""
    total = 0.0
    for fold in range(5):
        train, out = folds != fold, folds == fold
        centre = x[train].mean(0)
        scale = np.sqrt(np.square(x[train] - centre).mean())
        fit = LogisticRegression(C=1 / (decay * train.sum()), tol=1e-8, max_iter=5000)
        fit.fit((x[train] - centre) / scale, targets[train])
        guess = fit.predict_proba((x[out] - centre) / scale)
        total += out.sum() * log_loss(targets[out], guess, labels=[0, 1, 2])
    return total / len(targets)


@pytest.mark.parametrize(("noise", "seed"), [(0.3, 1), (1.0, 2), (4.0, 3)])
def test_the_choice_has_the_least_loss_by_scikit_learn(noise: float, seed: int) -> None:
    x, targets, uids = samples(90, noise=noise, seed=seed)
    folds = left_out_folds(uids, targets)
    best = min(GRID, key=lambda decay: their_loss(x, targets, folds, decay))
    assert chosen(x, targets, uids) == best


def test_more_noise_asks_for_more_decay() -> None:
    assert chosen(*samples(90, noise=0.3)) < chosen(*samples(90, noise=4.0))


def test_the_choice_depends_on_the_uids_and_not_on_the_order() -> None:
    x, targets, uids = samples(60, noise=2.0)
    order = np.random.default_rng(0).permutation(60)
    mixed = left_out_folds(uids.gather(order), targets[order])
    assert (mixed == left_out_folds(uids, targets)[order]).all()
    assert chosen(x[order], targets[order], uids.gather(order)) == chosen(x, targets, uids)


def test_every_class_is_dealt_out_evenly_and_its_only_sample_never_left_out() -> None:
    targets = np.array([0] * 11 + [1] * 2 + [2])
    uids = pl.Series("uid", [uid_of(n) for n in range(14)])
    folds = left_out_folds(uids, targets)
    assert sorted(np.bincount(folds[:11]).tolist()) == [2, 2, 2, 2, 3]
    assert len(set(folds[11:13].tolist())) == 2
    assert folds[13] == -1


def test_without_two_samples_of_a_class_the_usual_decay_is_taken() -> None:
    x, targets, uids = samples(3, noise=1.0)
    assert chosen(x, targets, uids) == USUAL


def test_many_samples_are_judged_by_one_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []

    def counted(take: Any, targets: np.ndarray, **options: Any) -> Any:
        fitted.append(len(targets))
        return fit_logistic(take, targets, **options)

    monkeypatch.setattr(regularisation, "fit_logistic", counted)
    monkeypatch.setattr(regularisation, "ONE_FOLD", 60)
    chosen(*samples(60, noise=2.0))
    assert set(fitted) == {48}
    assert len(fitted) <= len(GRID)


def test_a_fit_that_begins_elsewhere_ends_at_the_same_place() -> None:
    x, targets, _ = samples(60, noise=1.0)

    def fit(**options: Any) -> Any:
        return fit_logistic(
            lambda rows: torch.from_numpy(x[rows]),
            targets,
            classes=3,
            width=6,
            **options,
        )

    end = fit(weight_decay=0.1)
    again = fit(weight_decay=0.1, begin=fit(weight_decay=1.0))
    torch.testing.assert_close(again.weight, end.weight, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(again.bias, end.bias, rtol=1e-3, atol=1e-4)
    there = fit(weight_decay=0.1, begin=end, tolerance=1.0)  # ends where it begins
    torch.testing.assert_close(there.weight, end.weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(there.bias, end.bias, rtol=1e-5, atol=1e-6)


def test_the_record_says_which_decay_and_why(tmp_path: Path) -> None:
    features = labelled_features(tmp_path / "features")
    trust: dict[str, Any] = {"trusted": "is_checked", "trusted_label_column": "clean"}
    free = make_reference(features, HeadConfig(**trust), image_model(), CPU).record
    assert free.weight_decay in GRID
    assert free.weight_decay_origin == "cross_validation"
    said = f"with weight decay {free.weight_decay:g} (chosen by cross-validation)"
    assert said in free.as_sentence()
    config = HeadConfig(**trust, weight_decay=0.02)
    given = make_reference(features, config, image_model(), CPU).record
    assert (given.weight_decay, given.weight_decay_origin) == (0.02, "given")
    assert "with weight decay 0.02 (as given)" in given.as_sentence()
    each = features.samples.group_by("clean").agg(pl.col("number").first())["number"].to_list()
    object.__setattr__(
        features, "samples", features.samples.with_columns(one=pl.col("number").is_in(each))
    )
    config = HeadConfig(trusted="one", trusted_label_column="clean")
    few = make_reference(features, config, image_model(), CPU).record
    assert (few.weight_decay, few.weight_decay_origin) == (USUAL, "too_few")
