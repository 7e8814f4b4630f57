from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from mimic_core.filters.ensembles.splits import (
    BINS,
    Mixture,
    _binned,
    _crossing,
    kmeans_cut,
    mixture,
    mixture_cut,
    top_cut,
)

few_values = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=25)
any_values = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=25)


def ascending(values: list[float] | np.ndarray) -> np.ndarray:
    return np.sort(np.asarray(values, np.float32))


def squared_error(values: np.ndarray, cut: float) -> float:
    """Sum of squared distances to the means of the two sides of ``cut``."""
    exact = values.astype(np.float64)
    sides = (exact[values < cut], exact[values >= cut])
    return sum(float(((side - side.mean()) ** 2).sum()) for side in sides if len(side))


@settings(max_examples=300)
@given(st.one_of(few_values, any_values))
def test_kmeans_is_the_best_of_all_splits(values: list[float]) -> None:
    x = ascending(values)
    cut = kmeans_cut(x)
    best = min(squared_error(x, float(other)) for other in x)
    assert cut in x
    scale = squared_error(x, float(x[0])) + 1e-30
    assert squared_error(x, float(cut)) <= best + 1e-9 * scale


def distributions() -> dict[str, np.ndarray]:
    """Values that bins could get wrong, 20,000 of each: more than there are bins."""
    random = np.random.default_rng(0)
    size = 20_000
    normal = random.normal(size=size)
    return {
        "one hump": normal,
        "two humps": normal * 0.4 + (random.random(size) < 0.3),
        "an outlier": np.append(normal, 60.0),
        "an outlier that stretches everything": np.append(normal, 1e5),
        "many outliers": np.append(normal, random.normal(size=20) * 500),
        "point masses": random.choice([0.0, 0.1, 5.0], size, p=[0.9, 0.05, 0.05]),
        "mass at zero and a long tail": np.maximum(0, normal) ** 4,
        "far from zero": normal * 1e-3 + 1000,
        "far from zero and two humps": (random.random(size) < 0.2) * 0.01 + normal * 1e-3 + 100,
        "log-normal weights": np.exp(2 * normal) / 256,
        "two values": np.append(np.zeros(size), 1.0),
    }


@pytest.mark.parametrize("name", distributions())
def test_kmeans_is_exact_for_more_values_than_bins(name: str) -> None:
    x = ascending(distributions()[name])
    assert len(x) > BINS
    exact = x.astype(np.float64) - x.astype(np.float64).mean()
    sums, counts = np.cumsum(exact)[:-1], np.arange(1, len(x))
    gains = sums**2 / (counts * (len(x) - counts))
    gains[x[1:] == x[:-1]] = -1
    found = int(np.searchsorted(x, kmeans_cut(x)))
    assert gains[found - 1] == pytest.approx(gains.max(), rel=1e-9)
    assert kmeans_cut(x) == x[1 + np.argmax(gains)]


@pytest.mark.parametrize("name", ["one hump", "two humps", "an outlier", "log-normal weights"])
def test_kmeans_is_at_least_as_good_as_scikit_learns(name: str) -> None:
    x = ascending(distributions()[name])
    theirs = KMeans(2, n_init=5, random_state=0, tol=0).fit(x[:, None].astype(np.float64))
    ours = squared_error(x, float(kmeans_cut(x)))
    assert ours <= theirs.inertia_ * (1 + 1e-9)
    assert ours == pytest.approx(theirs.inertia_, rel=1e-4)


@pytest.mark.parametrize("values", [[3.0], [2.0, 2.0, 2.0], [0.0] * 10_000])
def test_values_that_are_all_equal_are_all_kept(values: list[float]) -> None:
    x = ascending(values)
    assert kmeans_cut(x) == x[0]
    assert mixture_cut(x) == x[0]
    assert mixture(x) is None


@given(any_values)
def test_the_mixture_of_any_values_has_a_finite_cutoff(values: list[float]) -> None:
    assert np.isfinite(mixture_cut(ascending(values)))


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 0.0, 5.0]])
def test_a_few_values_are_told_apart(values: list[float]) -> None:
    x = ascending(values)
    assert kmeans_cut(x) == x[-1]
    assert 0 < mixture_cut(x) <= x[-1]


def scikit_mixture(x: np.ndarray) -> GaussianMixture:
    """scikit-learn's mixture on standardised values: it adds an absolute 1e-6 to variances."""
    return GaussianMixture(2, tol=1e-9, max_iter=5000, reg_covar=1e-9, random_state=0).fit(x)


@pytest.mark.parametrize(("share", "apart", "wide"), [(0.3, 3, 1), (0.5, 2.5, 2), (0.1, 5, 0.5)])
def test_the_mixture_is_scikit_learns(share: float, apart: float, wide: float) -> None:
    random = np.random.default_rng(1)
    upper = random.random(30_000) < share
    x = ascending(random.normal(size=30_000) * np.where(upper, wide, 1) + apart * upper)
    found = mixture(x)
    assert found is not None
    theirs = scikit_mixture(x[:, None].astype(np.float64))
    low, high = np.argsort(theirs.means_[:, 0])
    assert found.low_mean == pytest.approx(theirs.means_[low, 0], abs=2e-3)
    assert found.high_mean == pytest.approx(theirs.means_[high, 0], abs=2e-3)
    deviations = np.sqrt(theirs.covariances_[:, 0, 0])
    assert found.low_deviation == pytest.approx(deviations[low], abs=2e-3)
    assert found.high_deviation == pytest.approx(deviations[high], abs=2e-3)
    assert found.share == pytest.approx(theirs.weights_[high], abs=2e-3)
    grid = np.linspace(found.low_mean, found.high_mean, 20_001)
    first = grid[np.argmax(theirs.predict(grid[:, None]) == high)]
    assert mixture_cut(x) == pytest.approx(first, abs=3e-3)


def test_the_mixture_finds_the_parameters_that_made_it() -> None:
    random = np.random.default_rng(2)
    upper = random.random(1_000_000) < 0.4
    x = ascending(random.normal(size=1_000_000) + 3 * upper)
    found = mixture(x)
    assert found is not None
    parts = (found.low_mean, found.low_deviation, found.high_mean, found.high_deviation)
    assert parts == pytest.approx((0, 1, 3, 1), abs=0.01)
    # equal deviations: the posteriors cross at half way plus log odds over the distance
    assert mixture_cut(x) == pytest.approx(1.5 + np.log(0.6 / 0.4) / 3, abs=0.01)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_cutoffs_move_with_the_scores(shift: float, scale: float) -> None:
    x = distributions()["two humps"]
    moved = ascending(x * scale + shift)
    tolerance = 1e-2 * scale + 1e-6 * abs(shift)  # float32 has seven digits
    for cut in (kmeans_cut, mixture_cut):
        assert cut(moved) == pytest.approx(cut(ascending(x)) * scale + shift, abs=tolerance)


@pytest.mark.parametrize("outlier", [50.0, 1e4, 1e8, -1e8])
def test_one_outlier_does_not_blind_the_bins(outlier: float) -> None:
    """The mixture may give the outlier a component, but the bins still resolve the rest."""
    x = ascending(np.append(distributions()["two humps"], outlier))
    bins = _binned(x)
    assert bins.count.max() <= len(x) / (BINS // 4) + 1
    assert bins.count.sum() == len(x)
    assert (bins.total.sum(), bins.mean) == pytest.approx((0, x.mean(dtype=np.float64)), abs=1e-3)


@pytest.mark.parametrize("name", distributions())
def test_bins_are_narrow_and_light_or_hold_a_single_value(name: str) -> None:
    x = ascending(distributions()[name])
    bins = _binned(x)
    first, last = x[bins.edges[:-1]].astype(float), x[bins.edges[1:] - 1].astype(float)
    assert (last - first).max() <= (x[-1].astype(float) - x[0]) / (BINS // 2) * (1 + 1e-3)
    several = first < last
    assert (bins.count[several] <= len(x) / (BINS // 4) + 1).all()
    exact = [x[a:b].astype(float) for a, b in zip(bins.edges[:-1], bins.edges[1:], strict=True)]
    np.testing.assert_allclose(
        bins.total, [float((part - bins.mean).sum()) for part in exact], atol=1e-6 * np.ptp(x)
    )
    np.testing.assert_allclose(
        bins.square,
        [float(((part - bins.mean) ** 2).sum()) for part in exact],
        rtol=1e-6,
        atol=1e-6 * np.var(x),
    )


def test_a_wide_lower_component_does_not_claim_the_top() -> None:
    """Ten standard deviations wide and low: beyond the narrow upper one it is the likelier."""
    random = np.random.default_rng(3)
    wide = random.normal(size=5000) * 10
    narrow = random.normal(size=15_000) * 0.5 + 3
    x = ascending(np.concatenate([wide, narrow]))
    found = mixture(x)
    assert found is not None
    assert found.low_deviation > 5 * found.high_deviation
    top = found.high_mean + 20 * found.high_deviation
    densities = [
        weight * norm.pdf(top, mean, deviation)
        for weight, mean, deviation in (
            (1 - found.share, found.low_mean, found.low_deviation),
            (found.share, found.high_mean, found.high_deviation),
        )
    ]
    assert densities[0] > densities[1]  # by its density the top would be dropped
    cut = mixture_cut(x)
    assert found.low_mean < cut < found.high_mean
    at_cut = [
        (1 - found.share) * norm.pdf(cut, found.low_mean, found.low_deviation),
        found.share * norm.pdf(cut, found.high_mean, found.high_deviation),
    ]
    assert at_cut[0] == pytest.approx(at_cut[1], rel=1e-3)


def log_odds(found: Mixture, x: float) -> float:
    upper = norm.logpdf(x, found.high_mean, found.high_deviation) + np.log(found.share)
    lower = norm.logpdf(x, found.low_mean, found.low_deviation) + np.log1p(-found.share)
    return float(upper - lower)


@pytest.mark.parametrize(
    ("found", "side"),
    [
        (Mixture(0, 1, 3, 1, 0.5), "between"),
        (Mixture(0, 1, 3, 2, 0.2), "between"),
        (Mixture(-5, 3, 5, 0.5, 0.7), "between"),
        (Mixture(0, 1, 0.5, 1, 0.9), "below"),  # the upper one wins at both means
        (Mixture(0, 3, 1, 1, 0.9), "below"),
        (Mixture(0, 1, 0.5, 1, 0.1), "above"),  # the lower one does
        (Mixture(0, 1, 1, 3, 0.1), "above"),
        (Mixture(0, 3, 1, 1, 0.05), "never"),
        (Mixture(0, 1, 0.1, 3, 0.95), "never"),
    ],
)
def test_the_cutoff_of_a_mixture_is_the_crossing_on_the_side_of_its_better_mean(
    found: Mixture, side: str
) -> None:
    crossing = _crossing(found)
    if side == "never":
        assert crossing is None
        wins = log_odds(found, found.high_mean) > 0
        beyond = np.linspace(0, -40 if wins else 40, 401) + found.high_mean
        assert {log_odds(found, x) > 0 for x in beyond} == {wins}
        return
    assert crossing is not None
    assert log_odds(found, crossing) == pytest.approx(0, abs=1e-6)
    low, high = found.low_mean, found.high_mean
    assert {"between": low < crossing < high, "below": crossing <= low, "above": crossing >= high}[
        side
    ]
    # between the cutoff and the better mean nobody else crosses
    inside = np.linspace(crossing, high, 101)[1:-1]
    assert len({log_odds(found, x) > 0 for x in inside}) == 1


@given(any_values, st.floats(0, 100))
def test_a_top_share_keeps_that_many_and_ties(values: list[float], percent: float) -> None:
    x = np.asarray(values, np.float32)
    wanted = int(np.floor(percent * len(x) / 100 + 1e-6))
    kept = x >= top_cut(x, percent)
    assert kept.sum() >= wanted
    if wanted == 0:
        assert not kept.any()
    else:
        assert kept.sum() == (x >= np.sort(x)[-wanted]).sum()
