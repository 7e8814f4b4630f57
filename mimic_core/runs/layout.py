"""The map: the pool's embeddings in two dimensions, made once per feature set.

UMAP compiles for most of a minute in every new process, so it runs in a worker; readers find the
coordinates in ``map.parquet`` and the settings that made them in ``map.json``. A map of images lays
out each distinct image once: all samples of an image are at its point. Fixed seeds make the
map repeatable on one machine; other versions or processors may give another, equally good one.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from mimic_core.base import draws, files
from mimic_core.base.config import Frozen
from mimic_core.base.errors import MimicError
from mimic_core.base.progress import Progress, Silent
from mimic_core.base.specification import OWN_FEATURES
from mimic_core.runs import stored
from mimic_core.runs.featureset import FeatureSet
from mimic_core.runs.table import MAP_CONFIG_FILE, MAP_FILE, map_config

PCA_WIDTH = 50  # more dimensions cost time and change little; distances beyond them are noise
SMALLEST_UMAP = 4
SMALL_POOL = 10_000  # below it, more epochs are affordable and needed
FEW_EPOCHS, MANY_EPOCHS = 100, 200

Embedding = Literal["image", "text", "pair"]
Method = Literal["pca", "umap", "umap+neighbours"]


class MapConfig(Frozen):
    """What decides a map.

    Attributes:
        embedding: Lay out by image, by caption, or by both ("pair": the two side by side).
        n_neighbors, min_dist: UMAP's.
        seed: Of UMAP, and of the drawn subset.
        max_fit: Larger pools are fitted on a subset of this size, drawn by uid hash; every other
            sample goes to the weighted mean of its nearest fitted samples.
        epochs: Optimisation passes; None chooses by the size of the pool.
    """

    embedding: Embedding = "image"
    n_neighbors: int = Field(default=15, ge=2, le=200)
    min_dist: float = Field(default=0.1, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    max_fit: int = Field(default=50_000, ge=SMALLEST_UMAP)
    epochs: int | None = Field(default=None, ge=1)


def map_method(count: int, config: MapConfig) -> Method:
    """How a pool of ``count`` samples is laid out: too few for neighbourhoods get plain PCA."""
    if count < SMALLEST_UMAP or min(count, config.max_fit) <= config.n_neighbors:
        return "pca"
    return "umap" if count <= config.max_fit else "umap+neighbours"


def ensure_map(
    features: FeatureSet, config: MapConfig, progress: Progress | None = None
) -> pl.DataFrame:
    """The map of a finished feature set: the one on disk if ``config`` made it, else a new one.

    Returns:
        Columns uid, map_x, map_y (float32), rows as in ``features.samples``.

    Raises:
        Interrupted: ``progress`` asked to stop; nothing was changed.
    """
    progress = progress or Silent()
    first = _first_at_point(features, config)
    points, point = np.unique(first, return_inverse=True)
    method = map_method(len(points), config)
    wanted = {**config.model_dump(mode="json"), "method": method}
    if len(points) < len(first):
        wanted["images"] = len(points)
    path = features.path / MAP_FILE
    if path.exists() and map_config(features) == wanted:
        return stored.read_table(path, {"uid": pl.String()}, remedy=stored.MAP_REMEDY)
    uids = features.samples["uid"]
    progress.phase("map", len(uids))
    if method == "pca":
        progress.note(f"{len(points)} samples are too few for UMAP: the map shows two PCA axes")
    progress.check()
    embedding = _embedding(features, config, points)
    place = umap_map(embedding, config, uids=uids.gather(points))[point]
    progress.check()
    frame = pl.DataFrame({"uid": uids, "map_x": place[:, 0], "map_y": place[:, 1]})
    # The settings go first and come back last, so that they never describe another map.
    (features.path / MAP_CONFIG_FILE).unlink(missing_ok=True)
    files.write_parquet(path, frame)
    files.write_json(features.path / MAP_CONFIG_FILE, wanted)
    progress.advance(len(uids))
    return frame


def umap_map(
    embedding: np.ndarray, config: MapConfig, *, uids: pl.Series | None = None
) -> np.ndarray:
    """Lay N embeddings out in two dimensions.

    Args:
        embedding: (N, D), finite.
        uids: (N,) which samples they are; needed above ``config.max_fit`` to draw the subset.

    Returns:
        (N, 2) float32.
    """
    x = np.asarray(embedding, np.float32)
    if not np.isfinite(x).all():
        raise MimicError(
            "an embedding holds a number that is not finite",
            got=f"row {int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])}",
            next_step="score the pool again with another precision",
        )
    method = map_method(len(x), config)
    if method == "pca" or (x == x[0]).all():  # UMAP cannot start from points that coincide
        return _pca(x, x, 2, config.seed)
    if method == "umap":
        return _umap(_pca(x, x, PCA_WIDTH, config.seed), config, total=len(x))
    if uids is None:
        raise MimicError(
            f"{len(x)} samples are mapped from a subset, which is drawn by uid",
            next_step="give the uids, or raise max_fit",
        )
    fitted = np.sort(draws.order(uids, config.seed)[: config.max_fit])
    x = _pca(x[fitted], x, PCA_WIDTH, config.seed)
    place = np.empty((len(x), 2), np.float32)
    place[fitted] = _umap(x[fitted], config, total=len(x))
    rest = np.setdiff1d(np.arange(len(x)), fitted)
    place[rest] = _beside_neighbours(x[rest], x[fitted], place[fitted], config)
    return place


def _first_at_point(features: FeatureSet, config: MapConfig) -> np.ndarray:
    """The first sample (N,) int64 of each sample's point: of its image, in a map of images."""
    own = str(features.info.get("model_spec", "")).startswith(OWN_FEATURES)
    if config.embedding != "image" or own:  # a user's own may differ where the image does not
        return np.arange(len(features.samples))
    return features.first_with_image


def _embedding(features: FeatureSet, config: MapConfig, rows: np.ndarray) -> np.ndarray:
    """The embeddings (M, D) of samples to lay out, or (M, 2 D) for pairs."""
    sides = ["image", "text"] if config.embedding == "pair" else [config.embedding]
    if sides != ["image"] and features.info.get("task") == "labels":
        raise MimicError(
            "labelled images have no captions to be laid out by",
            got=config.embedding,
            allowed="image",
            next_step="leave --embedding away",
        )
    if sides == ["image"] and not features.has_array("image_embedding"):
        unit = features.array("image_features").take(rows).astype(np.float32)
        lengths = np.linalg.norm(unit, axis=1, keepdims=True)
        return np.asarray(unit / np.maximum(lengths, np.finfo(np.float32).tiny))
    parts = [features.array(f"{side}_embedding").take(rows).astype(np.float32) for side in sides]
    return np.concatenate(parts, axis=1)


def _pca(fit: np.ndarray, x: np.ndarray, width: int, seed: int) -> np.ndarray:
    """Principal axes of ``fit`` (M, D) applied to ``x`` (N, D): (N, W), W >= 2, at most ``width``.

    Embeddings no wider than ``width`` > 2 come back as they are; missing axes are zero.
    """
    if width > 2 and x.shape[1] <= width:
        return x
    out = np.zeros((len(x), max(2, min(width, len(fit), x.shape[1]))), np.float32)
    if (fit == fit[:1]).all():
        return out
    from sklearn.decomposition import PCA

    components = min(width, len(fit), x.shape[1])
    model = PCA(components, svd_solver="covariance_eigh", random_state=seed).fit(fit)
    out[:, :components] = model.transform(x)
    return out


def _umap(x: np.ndarray, config: MapConfig, *, total: int) -> np.ndarray:
    """UMAP of (M, W), started from the first principal axes, as (M, 2)."""
    from umap import UMAP

    chosen = MANY_EPOCHS if total < SMALL_POOL else FEW_EPOCHS
    model = UMAP(
        n_neighbors=config.n_neighbors,
        min_dist=config.min_dist,
        n_epochs=config.epochs or chosen,
        init="pca",  # the spectral default is slow and erratic on clustered data
        random_state=config.seed,
        n_jobs=1,  # what a fixed seed implies; saying so avoids a warning
    )
    return np.asarray(model.fit_transform(x), np.float32)


def _beside_neighbours(
    x: np.ndarray, fitted: np.ndarray, place: np.ndarray, config: MapConfig
) -> np.ndarray:
    """Mean place (R, 2) of the nearest of ``fitted`` (M, W) for each of ``x`` (R, W).

    Weights fall with the distance relative to the nearest one's, so a copy of a fitted sample
    lands on it.
    """
    from pynndescent import NNDescent

    index = NNDescent(fitted, n_neighbors=config.n_neighbors, random_state=config.seed, n_jobs=1)
    neighbours, distances = index.query(x, k=config.n_neighbors)
    weights = 1.0 / np.maximum(distances, 1e-6)
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    placed: np.ndarray = (place[neighbours] * weights[:, :, None]).sum(axis=1)
    return placed
