from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mimic_core.base.errors import RunError, ScoreError
from mimic_core.runs.history import History, in_order
from mimic_core.stats import dynamics

# Three steps of four samples.
VALUES = np.array(
    [[1.0, 4.0, 2.0, 0.0], [2.0, 4.0, -2.0, 0.0], [3.0, 1.0, 0.0, 0.0]], dtype=np.float32
)
VOTES = np.array(
    [[True, True, False, False], [True, False, True, False], [True, True, False, True]]
)

shapes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
any_votes = hnp.arrays(bool, shapes)
any_values = hnp.arrays(
    np.float32, shapes, elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False)
)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", [2.0, 3.0, 0.0, 0.0]),
        ("last", [3.0, 1.0, 0.0, 0.0]),
        ("first", [1.0, 4.0, 2.0, 0.0]),
        ("change", [2.0, -3.0, -2.0, 0.0]),
        ("spread", [np.sqrt(2 / 3), np.sqrt(2), np.sqrt(8 / 3), 0.0]),
    ],
)
def test_a_measure_over_the_steps(how: dynamics.Measure, expected: list[float]) -> None:
    assert dynamics.summarise(VALUES, how) == pytest.approx(expected)


@given(any_values)
def test_the_spread_is_numpys_standard_deviation(values: np.ndarray) -> None:
    found = dynamics.summarise(values, "spread")
    assert found == pytest.approx(values.astype(np.float64).std(axis=0), abs=1e-6)


def test_flips_are_counted_from_step_to_step() -> None:
    changes = dynamics.flips(VOTES)
    assert changes.tolist() == [0, 2, 2, 1]


@given(any_votes)
def test_flips_do_not_change_with_the_side_or_the_direction(votes: np.ndarray) -> None:
    changes = dynamics.flips(votes)
    assert (dynamics.flips(~votes) == changes).all()
    assert (dynamics.flips(votes[::-1]) == changes).all()
    by_hand = [sum(a != b for a, b in pairwise(one)) for one in votes.T.tolist()]
    assert changes.tolist() == by_hand


def test_undecided_are_those_with_most_flips_then_with_the_closest_vote() -> None:
    votes = np.array(
        [[1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 1, 1], [1, 0, 1, 0]], dtype=bool
    )  # columns: 4:0; 2:2 with one flip; 3:1 with two flips; 3:1 with one flip
    doubt = dynamics.undecided(votes)
    assert np.argsort(-doubt).tolist() == [2, 1, 3, 0]
    assert doubt.tolist() == [0, 1 + 2 / 5, 2 + 1 / 5, 1 + 1 / 5]


@given(any_votes)
def test_doubt_never_overrules_a_flip(votes: np.ndarray) -> None:
    assert (np.floor(dynamics.undecided(votes)) == dynamics.flips(votes)).all()


def test_bands_are_quantiles_of_each_step() -> None:
    bands = dynamics.quantile_bands(VALUES, (0.0, 50.0, 100.0))
    assert bands.levels == (0.0, 50.0, 100.0)
    assert bands.values.tolist() == [[0, -2, 0], [1.5, 1, 0.5], [4, 4, 3]]


@given(any_values)
def test_bands_rise_with_their_level_and_agree_with_numpy(values: np.ndarray) -> None:
    bands = dynamics.quantile_bands(values)
    assert (np.diff(bands.values, axis=0) >= 0).all()
    levels = np.array(dynamics.BAND_LEVELS) / 100
    assert bands.values == pytest.approx(np.quantile(values, levels, axis=1), abs=1e-3)


def test_histograms_count_each_step_over_shared_edges() -> None:
    edges = np.array([0.0, 1.0, 2.0, 3.0])
    found = dynamics.step_histograms(VALUES, edges)
    assert found.counts.tolist() == [[1, 1, 1], [1, 0, 1], [2, 1, 1]]
    assert found.below.tolist() == [0, 1, 0]
    assert found.above.tolist() == [1, 1, 0]
    assert found.totals.tolist() == [4, 4, 4]


def test_histograms_of_some_samples() -> None:
    edges = np.array([-2.0, 0.0, 4.0])
    found = dynamics.step_histograms(VALUES, edges, among=np.array([True, False, True, False]))
    assert found.counts.tolist() == [[0, 2], [1, 1], [0, 2]]


@given(any_values)
def test_every_value_is_in_a_bin_or_outside(values: np.ndarray) -> None:
    edges = dynamics.step_edges(values, 7)
    assert (np.diff(edges) > 0).all()
    assert len(edges) <= 8
    found = dynamics.step_histograms(values, edges)
    assert (found.totals == values.shape[1]).all()


def test_edges_leave_out_a_thousandth_at_each_end() -> None:
    values = np.concatenate([np.zeros(1), np.full(5000, 10.0), [1e9]])[None].astype(np.float32)
    values[0, 1:5001] = np.linspace(10, 20, 5000)
    edges = dynamics.step_edges(values, 10)
    assert 9.9 < edges[0] < 10.1
    assert 19.9 < edges[-1] < 20.1
    found = dynamics.step_histograms(values, edges)
    assert found.totals[0] == 5002
    assert found.above[0] >= 1


def test_logarithmic_edges_have_equal_ratios_and_leave_out_zero() -> None:
    values = np.array([[0.0, 1e-4, 1e-2, 1.0]], dtype=np.float32)
    edges = dynamics.step_edges(values, 4, logarithmic=True)
    assert (edges > 0).all()
    assert edges[1:] / edges[:-1] == pytest.approx(np.full(4, edges[1] / edges[0]))
    assert dynamics.step_histograms(values, edges).below[0] >= 1


@pytest.mark.parametrize(("value", "ends"), [(0.0, [-0.5, 0.5]), (2.0, [1.98, 2.02])])
def test_constant_values_get_one_bin(value: float, ends: list[float]) -> None:
    edges = dynamics.step_edges(np.full((2, 3), value, np.float32))
    assert edges == pytest.approx(ends)


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ScoreError, match="nothing to draw"):
        dynamics.step_edges(np.zeros((2, 0), np.float32))
    with pytest.raises(ScoreError, match="nothing to draw"):
        dynamics.step_edges(np.zeros((2, 3), np.float32), logarithmic=True)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_the_area_under_a_density_is_one(logarithmic: bool) -> None:
    values = np.geomspace(1, 100, 500, dtype=np.float32)[None]
    edges = np.geomspace(0.9, 101, 21)
    density = dynamics.densities(dynamics.step_histograms(values, edges), logarithmic=logarithmic)
    width = np.diff(np.log10(edges) if logarithmic else edges)
    assert float((density * width).sum()) == pytest.approx(1)
    if logarithmic:  # equal ratios are equally likely here
        inner = density[0, 2:-2]
        assert inner.std() / inner.mean() < 0.1


@given(st.integers(0, 500), st.integers(1, 50))
def test_bins_are_nearly_equal_and_never_empty(total: int, most: int) -> None:
    edges = dynamics.bin_edges(total, most)
    sizes = np.diff(edges)
    assert (edges[0], edges[-1]) == (0, total)
    assert len(sizes) == min(total, most)
    if len(sizes):
        assert sizes.min() >= 1
        assert sizes.max() - sizes.min() <= 1


def test_the_heat_map_shows_each_sample_while_there_is_room() -> None:
    heat = dynamics.heat_map(VALUES, np.array([2, 0]), most_rows=10)
    assert heat.means.tolist() == [[2, -2, 0], [1, 2, 3]]
    assert heat.row_edges.tolist() == [0, 1, 2]
    assert heat.step_edges.tolist() == [0, 1, 2, 3]


def test_the_heat_map_takes_means_of_neighbours() -> None:
    heat = dynamics.heat_map(VALUES, np.array([0, 1, 2, 3]), most_rows=2, most_steps=2)
    assert heat.row_edges.tolist() == [0, 2, 4]
    assert heat.step_edges.tolist() == [0, 1, 3]
    assert heat.means.tolist() == [[2.5, 2.5], [1.0, -0.5]]


def test_the_heat_map_of_votes_is_the_share_in_favour() -> None:
    heat = dynamics.heat_map(VOTES, np.arange(4), most_rows=1)
    assert heat.means.tolist() == [[0.5, 0.5, 0.75]]


@given(any_values, st.integers(1, 6), st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_binned_heat_map_keeps_the_sum(
    values: np.ndarray, most_rows: int, most_steps: int, random: object
) -> None:
    rows = np.arange(values.shape[1])
    random.shuffle(rows)  # type: ignore[attr-defined]  # a random.Random
    heat = dynamics.heat_map(values, rows, most_rows=most_rows, most_steps=most_steps)
    sizes = np.diff(heat.row_edges)[:, None] * np.diff(heat.step_edges)
    whole = values.astype(np.float64)
    assert float((heat.means * sizes).sum()) == pytest.approx(float(whole.sum()), abs=1e-2)
    for r, (start, stop) in enumerate(zip(heat.row_edges, heat.row_edges[1:], strict=False)):
        for c, (first, end) in enumerate(zip(heat.step_edges, heat.step_edges[1:], strict=False)):
            by_hand = whole[first:end][:, rows[start:stop]].mean()
            assert heat.means[r, c] == pytest.approx(by_hand, abs=1e-6)


def test_no_rows_are_an_empty_heat_map() -> None:
    heat = dynamics.heat_map(VALUES, np.zeros(0, np.int64), most_rows=5)
    assert heat.means.shape == (0, 3)
    assert dynamics.bin_means(VALUES[0], np.zeros(0, np.int64), np.zeros(1, np.int64)).size == 0


def test_ties_are_broken_by_uid() -> None:
    uids = pl.Series(["c", "a", "b", "d"])
    by_uid = uids.arg_sort().to_numpy()
    order = dynamics.ascending(np.array([1.0, 1.0, 0.0, 1.0]), by_uid)
    assert uids.gather(order).to_list() == ["b", "a", "c", "d"]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_ascending_agrees_with_sorting_pairs(values: list[int]) -> None:
    uids = [f"{(7 * i) % len(values):03d}{i}" for i in range(len(values))]
    by_uid = pl.Series(uids).arg_sort().to_numpy()
    expected = sorted(range(len(values)), key=lambda i: (values[i], uids[i]))
    assert dynamics.ascending(np.array(values, np.float64), by_uid).tolist() == expected


def history(uids: list[str]) -> History:
    return History(pl.Series("uid", uids), VALUES, VALUES + 10, VALUES + 20, (0, 1, 2), 2)


def test_a_history_follows_the_order_of_a_table() -> None:
    found = in_order(history(["a", "b", "c", "d"]), pl.Series("uid", ["d", "b", "a", "c"]))
    assert found.uids.to_list() == ["d", "b", "a", "c"]
    assert found.mimic_score.tolist() == VALUES[:, [3, 1, 0, 2]].tolist()
    assert found.loss.tolist() == (VALUES[:, [3, 1, 0, 2]] + 20).tolist()
    assert found.epochs == (0, 1, 2)


def test_a_history_in_order_is_left_alone() -> None:
    one = history(["a", "b", "c", "d"])
    assert in_order(one, one.uids) is one


@pytest.mark.parametrize("uids", [["a", "b", "c"], ["a", "b", "c", "x"]])
def test_a_history_of_other_samples_is_refused(uids: list[str]) -> None:
    with pytest.raises(RunError, match="do not hold the same samples"):
        in_order(history(["a", "b", "c", "d"]), pl.Series("uid", uids))
