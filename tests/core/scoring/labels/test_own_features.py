"""Features of a user's own: read, matched by uid, and scored as those of a model are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from mimic_core.__main__ import main
from mimic_core.base.config import RunConfig
from mimic_core.base.errors import ConfigError, ModelError
from mimic_core.features.own import read_own_features
from mimic_core.features.stored import read_ends
from mimic_core.runs.run import Run, open_run
from mimic_core.runs.table import run_table
from mimic_core.scoring.pipeline import score_pool
from mimic_core.scoring.tuning import tune_run
from tests.core.scoring_pool import caption_of, uid_of

COUNT, WIDTH = 40, 5
PROBE: dict[str, Any] = {"epochs": 2, "batch_size": 16, "temperature": 1.0}


def values(seed: int = 0) -> np.ndarray:
    """Features (N, F) float32, a class each two apart."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(2, WIDTH))
    return (centres[np.arange(COUNT) % 2] + rng.normal(size=(COUNT, WIDTH))).astype(np.float32)


def parquet(path: Path, rows: Any, array: np.ndarray, *, fixed: bool = False) -> Path:
    column = pl.Series("image_features", array.tolist(), pl.List(pl.Float32))
    if fixed:
        column = column.list.to_array(array.shape[1])
    pl.DataFrame({"uid": [uid_of(n) for n in rows], "image_features": column}).write_parquet(path)
    return path


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A listing of labelled images, none of which can be decoded: none is read."""
    for number in range(COUNT):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    table = pl.DataFrame(
        {
            "uid": [uid_of(n) for n in range(COUNT)],
            "image": [f"{n}.png" for n in range(COUNT)],
            "label": ["ab"[n % 2 if n % 7 else 1 - n % 2] for n in range(COUNT)],
            "ok": [n % 5 == 1 for n in range(COUNT)],
        }
    )
    table.write_csv(tmp_path / "pool.csv")
    return tmp_path / "pool.csv"


def scored(pool: Path, features: Path, **changes: Any) -> Run:
    settings = {
        "source": {"path": str(pool)},
        "reference": f"features:{features}",
        "head": {"trusted": "ok"},
        "probe": PROBE,
    }
    config: RunConfig = RunConfig.parse({**settings, **changes})
    return score_pool(config, runs_root=pool.parent / "runs", device="cpu", workers=0)


def test_a_pool_is_scored_without_a_model_or_an_image(pool: Path, tmp_path: Path) -> None:
    array = values()
    # rows in another order; samples 0 to 2 have none, and two rows are of no sample
    rows = [*range(COUNT - 1, 2, -1), 900, 901]
    own = np.vstack([array[rows[:-2]], array[:2]])
    run = scored(pool, parquet(tmp_path / "own.parquet", rows, own))
    assert run.features.skipped.select("key", "reason", "detail").rows() == [
        (run_key(run, n), "no_features", f"uid {uid_of(n)}") for n in range(3)
    ]
    samples = run.features.samples
    assert samples["uid"].to_list() == [uid_of(n) for n in range(3, COUNT)]
    stored = run.features.array("image_features").read()
    assert (stored == array[3:].astype(np.float16)).all()
    record = run.record
    assert (record.samples, record.skipped, record.held_out) == (30, 3, 7)
    assert record.reference_head is not None
    assert (record.reference_head.origin, record.reference_head.trusted) == ("trusted", 7)
    table = run_table(run)
    assert table["reference_agrees"].null_count() == table["mimic_score"].null_count() == 0
    assert table["width"].null_count() == table["clip_score"].null_count() == 30
    assert run.scores().equals(tune_run(run, record.config.probe))  # type: ignore[arg-type]


def test_the_first_epochs_alone_are_shown_where_that_is_asked_for(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By command and from Python; the run is the same one, with all of its scores."""
    features = parquet(tmp_path / "own.parquet", range(COUNT), values())
    command = ["score", str(pool), "--features", str(features), "--trusted", "ok", "--epochs", "3"]
    command += ["--batch-size", "16", "--device", "cpu", "--workers", "0"]
    command += ["--out", str(tmp_path / "runs")]
    assert main(command) == 0
    run = open_run(Path(capsys.readouterr().out.strip()))
    stored = [path.read_bytes() for path in run.epoch_files()]
    assert main([*command, "--epochs-used", "2"]) == 0
    said = capsys.readouterr()
    assert Path(said.out.strip()) == run.path
    assert "the first 2 of 3" in said.err
    used = open_run(run.path)
    assert used.record == run.record.model_copy(update={"epochs_used": 2})
    assert [path.read_bytes() for path in run.epoch_files()] == stored
    first = pl.concat(pl.read_parquet(path) for path in run.epoch_files()[:2])
    means = first.group_by("uid").agg(pl.col("mimic_score").cast(pl.Float64).mean()).sort("uid")
    table = run_table(used).sort("uid")
    np.testing.assert_allclose(table["mimic_score"], means["mimic_score"], rtol=1e-6)
    assert main(command) == 0  # says nothing of epochs, and so changes nothing
    assert open_run(run.path).record.epochs_used == 2
    config = run.record.config
    again = score_pool(config, runs_root=tmp_path / "runs", device="cpu", epochs_used=3)
    assert (again.id, again.record.epochs_used) == (run.id, 3)
    capsys.readouterr()
    assert main([*command, "--epochs-used", "4"]) == 1
    assert "the run has no such epochs" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no such epochs"):
        score_pool(config, runs_root=tmp_path / "elsewhere", epochs_used=4)
    assert not (tmp_path / "elsewhere").exists()  # refused before anything is done


def run_key(run: Run, number: int) -> str:
    """The key of a sample, as the index of the run's features has it."""
    samples = run.features.index_samples()
    return str(samples.filter(samples["uid"] == uid_of(number))["key"][0])


def test_the_form_of_the_file_and_the_order_of_its_rows_make_no_difference(
    pool: Path, tmp_path: Path
) -> None:
    array, order = values(), np.random.default_rng(1).permutation(COUNT)
    run = scored(pool, parquet(tmp_path / "own.parquet", range(COUNT), array))
    fixed = parquet(tmp_path / "fixed.parquet", order, array[order], fixed=True)
    np.save(tmp_path / "own.npy", array[order])
    (tmp_path / "own.uids.txt").write_text("\n".join(uid_of(n) for n in order) + "\n")
    for file in (fixed, tmp_path / "own.npy"):
        again = scored(pool, file)
        assert again.id == run.id
    other = scored(pool, parquet(tmp_path / "other.parquet", range(COUNT), array + 1))
    assert other.record.feature_set != run.record.feature_set


def test_a_head_from_a_file_scores_everybody(pool: Path, tmp_path: Path) -> None:
    file = parquet(tmp_path / "own.parquet", range(COUNT), values())
    head = scored(pool, file).path / "reference_head.safetensors"
    run = scored(pool, file, head={"file": str(head)})
    assert run.record.samples == COUNT
    with pytest.raises(ModelError, match="no trained classifier of its own, so it cannot serve"):
        scored(pool, file, head=None)


def test_what_needs_a_model_is_refused(pool: Path, tmp_path: Path) -> None:
    file = parquet(tmp_path / "own.parquet", range(COUNT), values())
    with pytest.raises(ConfigError, match="cannot be used here") as caught:
        scored(pool, file, preprocess="openai")
    assert "--preprocess" in str(caught.value.got)
    with pytest.raises(ConfigError, match="captions need a projection"):
        scored(pairs(pool), file, head=None)
    with pytest.raises(ConfigError, match="this pool has captions"):
        scored(pairs(pool), file)


def pairs(pool: Path) -> Path:
    """The same images with captions."""
    captions = pl.Series([caption_of(n) for n in range(COUNT)])
    pl.read_csv(pool).select("uid", "image", caption=captions).write_csv(pool.parent / "pairs.csv")
    return pool.parent / "pairs.csv"


def test_captions_are_scored_by_features_and_a_projection(pool: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    image = values()
    weight, bias = rng.normal(size=(3, WIDTH)), rng.normal(size=3)
    text = image @ weight.T + bias + 0.2 * rng.normal(size=(COUNT, 3))
    text[:8] = text[[1, 2, 3, 4, 5, 6, 7, 0]]  # of each other
    file = parquet(tmp_path / "own.parquet", range(COUNT), image)
    both = pl.read_parquet(file).with_columns(pl.Series("text_features", text.tolist()))
    both.write_parquet(file)
    head = {"weight": weight, "bias": bias, "logit_scale": np.array(20.0)}
    tensors = {name: torch.from_numpy(value).float() for name, value in head.items()}
    save_file(tensors, tmp_path / "projection.safetensors")
    wanted = {"file": str(tmp_path / "projection.safetensors")}
    run = scored(pairs(pool), file, head=wanted)
    assert (run.record.samples, run.record.mimic_layers) == (COUNT, ("projection.weight",))
    stored = image.astype(np.float16).astype(np.float64) @ weight.T + bias
    half = text.astype(np.float16).astype(np.float64)
    cosines = (stored * half).sum(1) / np.linalg.norm(stored, axis=1) / np.linalg.norm(half, axis=1)
    table = run_table(run)
    np.testing.assert_allclose(table["clip_score"].to_numpy(), cosines, atol=1e-5)
    assert table["caption_length"].to_list() == [len(caption_of(n)) for n in range(COUNT)]
    ends = read_ends(run.features)
    assert ends.scaling.scale == 20
    np.testing.assert_allclose(ends.projections["image"].weight.numpy(), weight.T, rtol=1e-6)
    assert run.scores().equals(tune_run(run, run.record.config.probe))  # type: ignore[arg-type]
    for name, value, says in (
        ("weight", torch.ones(WIDTH, 3), "weight should be"),
        ("logit_scale", torch.tensor(0.0), "lacks weight, or a positive logit_scale"),
        ("bias", torch.full((3,), torch.nan), "non-finite"),
    ):
        save_file({**tensors, name: value}, tmp_path / "projection.safetensors")
        with pytest.raises(ModelError, match=says):
            scored(pairs(pool), file, head=wanted)


def test_features_of_another_pool_are_refused(pool: Path, tmp_path: Path) -> None:
    file = parquet(tmp_path / "own.parquet", range(500, 500 + COUNT), values())
    with pytest.raises(ModelError, match="not of the samples of this pool") as caught:
        scored(pool, file)
    first = min(uid_of(n) for n in range(500, 500 + COUNT))
    assert caught.value.got == f"'0 common uids; file: {first}, ...; pool: {uid_of(0)}, ...'"


def spoilt(path: Path, how: str) -> Path:
    rows, array = list(range(4)), values()[:4]
    if how == "twice":
        rows[1] = rows[0]
    if how == "nan":
        array[2, 1] = np.nan
    if how == "large":
        array[2, 1] = 1e6
    file = parquet(path / "own.parquet", rows, array)
    table = pl.read_parquet(file)
    if how == "ragged":
        lists = [*array.tolist()[:3], [1.0, 1.0]]
        table = table.with_columns(pl.Series("image_features", lists))
    if how == "missing number":
        lists = [*array.tolist()[:3], [None, 1.0, 1.0, 1.0, 1.0]]
        table = table.with_columns(pl.Series("image_features", lists))
    if how == "text":
        table = table.with_columns(image_features=pl.lit("1 2 3"))
    if how == "no column":
        table = table.drop("image_features")
    if how == "no uids":
        np.save(path / "own.npy", array)
        return path / "own.npy"
    table.write_parquet(file)
    return path / "gone.parquet" if how == "gone" else file


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("gone", "does not exist"),
        ("twice", "missing or there twice"),
        ("nan", "not finite"),
        ("large", "beyond 65,504"),
        ("ragged", "differ in length"),
        ("missing number", "a number is missing"),
        ("text", "no lists of numbers"),
        ("no column", "cannot be read"),
        ("no uids", "uids of its rows are not beside it"),
    ],
)
def test_a_file_that_holds_no_features_is_refused(tmp_path: Path, how: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        read_own_features(spoilt(tmp_path, how))
