from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from mimic_core.base import draws
from mimic_core.base.errors import Interrupted, MimicError
from mimic_core.base.progress import Silent
from mimic_core.base.schema import IMAGE_COLUMNS
from mimic_core.runs import layout
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.layout import MapConfig, ensure_map, map_method, umap_map
from mimic_core.runs.table import map_config, run_table
from tests.fakes import fake_run
from tests.places import ROOT


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    return fake_run(tmp_path, n=40, with_map=False).features


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Stands in for UMAP: the first two columns; remembers what it was given."""
    given: list[np.ndarray] = []

    def fake_umap(x: np.ndarray, config: MapConfig, *, total: int) -> np.ndarray:
        given.append(x)
        return np.ascontiguousarray(x[:, :2])

    monkeypatch.setattr(layout, "_umap", fake_umap)
    return given


@pytest.mark.parametrize(
    ("count", "method"),
    [(1, "pca"), (3, "pca"), (15, "pca"), (16, "umap"), (20, "umap"), (21, "umap+neighbours")],
)
def test_the_size_of_the_pool_decides_the_method(count: int, method: str) -> None:
    assert map_method(count, MapConfig(max_fit=20)) == method


def test_a_subset_smaller_than_a_neighbourhood_is_not_fitted() -> None:
    assert map_method(100, MapConfig(max_fit=10)) == "pca"


def test_a_tiny_pool_is_laid_out_on_its_principal_axes() -> None:
    line = np.outer([-3.0, -1.0, 1.0, 3.0], [0.6, 0.8, 0.0])
    place = umap_map(line, MapConfig())
    assert place.dtype == np.float32
    assert np.abs(place[:, 0]).tolist() == pytest.approx([3, 1, 1, 3], abs=1e-5)
    assert place[:, 1].tolist() == pytest.approx([0, 0, 0, 0], abs=1e-5)


@pytest.mark.parametrize("shape", [(1, 8), (2, 8), (3, 1), (30, 8)])
def test_samples_that_coincide_share_a_place(shape: tuple[int, int]) -> None:
    assert umap_map(np.ones(shape), MapConfig()).tolist() == [[0.0, 0.0]] * shape[0]


def test_wide_embeddings_are_reduced_before_umap(fits: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    umap_map(rng.normal(size=(80, 60)), MapConfig())
    umap_map(rng.normal(size=(80, 12)), MapConfig())
    umap_map(rng.normal(size=(20, 60)), MapConfig())
    assert [x.shape for x in fits] == [(80, 50), (80, 12), (20, 20)]


def test_the_reduction_keeps_distances(fits: list[np.ndarray]) -> None:
    flat = np.random.default_rng(0).normal(size=(80, 10)) @ np.eye(10, 60)
    umap_map(flat, MapConfig())
    before, after = (np.linalg.norm(x[:1] - x, axis=1) for x in (flat, fits[0]))
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_an_embedding_that_is_not_finite_is_refused() -> None:
    spoilt = np.ones((5, 4))
    spoilt[3, 1] = np.nan
    with pytest.raises(MimicError, match="not finite; got 'row 3'"):
        umap_map(spoilt, MapConfig())


def test_the_fitted_subset_is_drawn_by_uid_hash_whatever_the_order(
    fits: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        layout, "_beside_neighbours", lambda x, fitted, place, config: x[:, :2] + 100
    )
    uids = pl.Series([f"{i:032x}" for i in range(40)])
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    config = MapConfig(max_fit=30, n_neighbors=5, seed=7)
    place = umap_map(x, config, uids=uids)
    drawn = np.sort(draws.order(uids, 7)[:30])
    assert fits[0].tolist() == x[drawn].tolist()
    assert np.flatnonzero((place == x[:, :2]).all(axis=1)).tolist() == drawn.tolist()
    assert umap_map(x[::-1], config, uids=uids.reverse()).tolist() == place[::-1].tolist()


def test_a_subset_cannot_be_drawn_without_uids(fits: list[np.ndarray]) -> None:
    with pytest.raises(MimicError, match="give the uids"):
        umap_map(np.random.default_rng(0).normal(size=(40, 8)), MapConfig(max_fit=30))


@pytest.mark.parametrize(("embedding", "width"), [("image", 16), ("text", 16), ("pair", 32)])
def test_the_map_is_of_image_text_or_both(
    features: FeatureSet, fits: list[np.ndarray], embedding: str, width: int
) -> None:
    ensure_map(features, MapConfig.parse({"embedding": embedding}), Silent())
    assert fits[0].shape == (40, width)
    side = "image" if embedding == "pair" else embedding
    stored = features.array(f"{side}_embedding").read().astype(np.float32)
    assert (fits[0][:, :16] == stored).all()


def sharing(features: FeatureSet) -> FeatureSet:
    """The same set where samples 0, 7 and 30, and also 1 and 2, have one image, by place."""
    same = {7: 0, 30: 0, 2: 1}
    samples = features.samples
    row = [same.get(n, n) for n in range(len(samples))]
    places = samples.select(IMAGE_COLUMNS.keys())[row]
    for shard in features.shards:
        here = (samples["shard"] == shard).to_numpy()
        path = features.path / "samples" / f"{shard}.parquet"
        samples.with_columns(*places.get_columns()).filter(pl.Series(here)).write_parquet(path)
    return FeatureSet.open(features.path)


def test_a_map_of_images_lays_out_each_image_once(
    features: FeatureSet, fits: list[np.ndarray]
) -> None:
    samples_of_one = sharing(features)
    frame = ensure_map(samples_of_one, MapConfig())
    stored = features.array("image_embedding").read().astype(np.float32)
    points = [n for n in range(40) if n not in (2, 7, 30)]
    assert (fits[0] == stored[points]).all()
    place = frame.select("map_x", "map_y").to_numpy()
    assert place.tolist() == [stored[{7: 0, 30: 0, 2: 1}.get(n, n), :2].tolist() for n in range(40)]
    assert frame["uid"].equals(features.samples["uid"])
    assert map_config(features) == {**MapConfig().model_dump(), "method": "umap", "images": 37}
    assert ensure_map(samples_of_one, MapConfig()).equals(frame)
    assert len(fits) == 1
    ensure_map(samples_of_one, MapConfig(embedding="text"))
    assert len(fits[1]) == 40  # captions have points of their own


def test_features_of_a_users_own_have_a_point_each(
    features: FeatureSet, fits: list[np.ndarray]
) -> None:
    file = features.path / "features.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps({**said, "model_spec": "features:own.parquet"}))
    ensure_map(sharing(features), MapConfig())
    assert len(fits[0]) == 40


def test_the_map_is_stored_with_its_settings_and_read_by_the_table(
    tmp_path: Path, fits: list[np.ndarray]
) -> None:
    run = fake_run(tmp_path, n=40, with_map=False)
    frame = ensure_map(run.features, MapConfig(seed=3))
    assert frame["uid"].equals(run.features.samples["uid"])
    assert frame.schema == {"uid": pl.String, "map_x": pl.Float32, "map_y": pl.Float32}
    said = json.loads((run.features.path / "map.json").read_bytes())
    assert said == {**MapConfig(seed=3).model_dump(), "method": "umap"}
    assert map_config(run.features) == said
    assert run_table(run).select(frame.columns).equals(frame)


def test_the_same_map_is_not_made_twice_but_another_is(
    features: FeatureSet, fits: list[np.ndarray]
) -> None:
    one = ensure_map(features, MapConfig())
    assert ensure_map(features, MapConfig()).equals(one)
    assert len(fits) == 1
    ensure_map(features, MapConfig(min_dist=0.5))
    assert len(fits) == 2


def test_settings_on_disk_never_describe_another_map(
    features: FeatureSet, fits: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_map(features, MapConfig())

    def fail(path: Path, value: object) -> None:
        raise OSError(f"disk full while writing {path.name}")

    with monkeypatch.context() as patch:
        patch.setattr(layout.files, "write_json", fail)
        with pytest.raises(OSError, match=r"map\.json"):
            ensure_map(features, MapConfig(seed=1))
    assert map_config(features) is None
    ensure_map(features, MapConfig())
    assert len(fits) == 3


class Teller(Silent):
    """Keeps what it is told; stops at the given check."""

    def __init__(self, stop_at: int = 0) -> None:
        self.told: list[object] = []
        self.checks_left = stop_at

    def phase(self, name: str, total: int, *, done: int = 0, unit: str = "samples") -> None:
        self.told.append((name, total))

    def advance(self, count: int, *, skipped: int = 0) -> None:
        self.told.append(count)

    def note(self, text: str) -> None:
        self.told.append(text)

    def check(self) -> None:
        self.checks_left -= 1
        if self.checks_left == 0:
            raise Interrupted


def test_progress_is_told_and_a_small_pool_noted(tmp_path: Path) -> None:
    small = fake_run(tmp_path, n=10, with_map=False).features
    teller = Teller()
    ensure_map(small, MapConfig(), teller)
    note = "10 samples are too few for UMAP: the map shows two PCA axes"
    assert teller.told == [("map", 10), note, 10]


@pytest.mark.parametrize("stop_at", [1, 2])
def test_an_interrupted_map_leaves_nothing_behind(
    features: FeatureSet, fits: list[np.ndarray], stop_at: int
) -> None:
    with pytest.raises(Interrupted):
        ensure_map(features, MapConfig(), Teller(stop_at))
    assert map_config(features) is None
    assert not (features.path / "map.parquet").exists()


def test_importing_it_loads_neither_umap_nor_torch() -> None:
    code = (
        "import sys, mimic_core.runs.layout, mimic_core.export.export, "
        "mimic_core.stats, tests.fakes;"
        "heavy = {'umap', 'numba', 'torch', 'sklearn', 'scipy', 'streamlit', 'plotly'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert found.stdout == "[]\n"


def clusters() -> tuple[np.ndarray, np.ndarray]:
    """Ninety embeddings (90, 8) in three clusters far apart, and the cluster (90,) of each."""
    cluster = np.arange(90) % 3
    noise = np.random.default_rng(0).normal(size=(90, 8))
    return 10 * np.eye(3, 8)[cluster] + 0.3 * noise, cluster


def assert_apart(place: np.ndarray, cluster: np.ndarray) -> None:
    """Every sample lies nearest to the middle of its own cluster."""
    assert place.shape == (len(cluster), 2)
    assert np.isfinite(place).all()
    centres = np.stack([np.median(place[cluster == c], axis=0) for c in range(3)])
    nearest = np.linalg.norm(place[:, None] - centres[None], axis=2).argmin(axis=1)
    assert (nearest == cluster).all()


@pytest.mark.filterwarnings("ignore")  # of umap and numba themselves
def test_umap_separates_clusters_and_repeats() -> None:
    """UMAP as plain Python, by ``tests/conftest.py``: the same numbers without compiling."""
    x, cluster = clusters()
    config = MapConfig(n_neighbors=6, epochs=60)
    place = umap_map(x, config)
    assert_apart(place, cluster)
    assert umap_map(x, config).tobytes() == place.tobytes()
    assert umap_map(x, config.model_copy(update={"seed": 1})).tobytes() != place.tobytes()


class ExactNeighbours:
    """What ``NNDescent`` estimates, by all distances."""

    def __init__(self, fitted: np.ndarray, **settings: int) -> None:
        assert settings == {"n_neighbors": settings["n_neighbors"], "random_state": 0, "n_jobs": 1}
        self.fitted = fitted

    def query(self, x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        apart = np.linalg.norm(x[:, None] - self.fitted[None], axis=2)
        nearest = np.argsort(apart, axis=1)[:, :k]
        return nearest, np.take_along_axis(apart, nearest, axis=1)


@pytest.fixture
def exact_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for pynndescent, which compiles for a minute."""
    monkeypatch.setitem(sys.modules, "pynndescent", SimpleNamespace(NNDescent=ExactNeighbours))


def test_a_sample_lies_at_the_weighted_mean_of_its_nearest(exact_neighbours: None) -> None:
    fitted = np.array([[0.0], [1.0], [4.0]], np.float32)
    place = np.array([[90, 90], [30, 0], [0, 60]], np.float32)
    x = np.array([[3.0], [4.0], [-2.0]], np.float32)  # 1 and 2 away; on one; 2 and 3 away
    found = layout._beside_neighbours(x, fitted, place, MapConfig(n_neighbors=2))
    np.testing.assert_allclose(found, [[10, 40], [0, 60], [66, 54]], rtol=1e-4, atol=1e-3)
    assert found.dtype == np.float32


def test_the_rest_is_placed_beside_its_own(fits: list[np.ndarray], exact_neighbours: None) -> None:
    x, cluster = clusters()
    uids = pl.Series([f"{i:032x}" for i in range(90)])
    place = umap_map(x, MapConfig(n_neighbors=6, max_fit=60), uids=uids)
    assert [len(fitted) for fitted in fits] == [60]
    assert_apart(place, cluster)


def _lay_out_compiled() -> None:
    """The two libraries as a user's map has them: what is fitted, and the rest beside it."""
    warnings.simplefilter("ignore")  # of umap, pynndescent and numba themselves
    x, cluster = clusters()
    uids = pl.Series([f"{i:032x}" for i in range(90)])
    config = MapConfig(n_neighbors=6, max_fit=60, epochs=60)
    place = umap_map(x, config, uids=uids)
    assert_apart(place, cluster)
    drawn = np.sort(draws.order(uids, 0)[:60])
    fitted = x[drawn].astype(np.float32)
    copies = layout._beside_neighbours(fitted, fitted, place[drawn], config)
    np.testing.assert_allclose(copies, place[drawn], atol=1e-3)  # a copy lands on its original
    assert umap_map(x, config, uids=uids).tobytes() == place.tobytes()


@pytest.mark.slow
def test_the_compiled_libraries_lay_out_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "0")  # read when numba is imported
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        process.submit(_lay_out_compiled).result()
