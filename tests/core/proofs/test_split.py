"""Who is trusted, who is held out, and that no duplicate of a held-out sample trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mimic_core.base.errors import ConfigError
from mimic_core.proofs import split as splitting
from mimic_core.proofs.settings import ProveConfig
from mimic_core.proofs.split import Split, split_pool
from mimic_core.proofs.trusted import held_out_mask, trusted_candidates, trusted_mask
from mimic_core.runs.featureset import FeatureSet
from tests.core.feature_sets import learnable, proving_set
from tests.core.scoring_pool import uid_of

CONFIG = ProveConfig(trusted="good", duplicate_cosine=0.999)
TABLE = pl.DataFrame(
    {
        "uid": [uid_of(n) for n in range(4)],
        "good": [True, False, None, True],
        "is_noisy": [False, True, False, None],
        "kind": ["clean", "swap", None, "clean"],
        "votes": [0, 2, 0, 1],
        "free text": ["a", "b", "c", "d"],
    }
)


@pytest.mark.parametrize(
    ("spec", "rows"),
    [
        ("good", [0, 3]),
        ("good=true", [0, 3]),
        ("good=no", [1]),
        ("is_noisy=false", [0, 2]),
        ("is_noisy = True", [1]),
        ("kind=clean", [0, 3]),
        ("votes=0", [0, 2]),
    ],
)
def test_a_column_marks_the_good_samples(spec: str, rows: list[int]) -> None:
    assert np.flatnonzero(trusted_mask(TABLE, spec)).tolist() == rows


@pytest.mark.parametrize(
    ("spec", "problem", "got", "allowed"),
    [
        ("nothing", "no such column", "'nothing'", "good, good=false, is_noisy=false, kind=clean"),
        ("kind", "does not say true or false", "'String'", "kind=swap"),
        ("is_noisy", "marks noisy samples", "'is_noisy'", "is_noisy=false"),
        ("good=maybe", "cannot hold that value", "'maybe'", "good=false"),
        ("votes=many", "cannot hold that value", "'many'", "good"),
        ("kind=gone", "no sample has that value", "'gone'", "clean, swap"),
    ],
)
def test_a_wrong_mark_is_refused_with_candidates(
    spec: str, problem: str, got: str, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        trusted_mask(TABLE, spec)
    assert problem in caught.value.problem
    assert caught.value.got == got
    assert allowed in (caught.value.allowed or "")


def test_candidates_are_the_values_of_columns_with_few() -> None:
    found = trusted_candidates(TABLE.drop("free text"))
    assert found == ["good", "good=false", "is_noisy=false", "kind=clean", "kind=swap"]


def test_unknown_held_out_uids_are_refused() -> None:
    assert held_out_mask(TABLE, TABLE["uid"][[2, 1]]).tolist() == [False, True, True, False]
    with pytest.raises(ConfigError, match="1 of 2 held-out uids"):
        held_out_mask(TABLE, pl.Series([TABLE["uid"][0], uid_of(99)]))


# --- the split ---


def split(
    features: FeatureSet,
    trusted: np.ndarray,
    config: ProveConfig = CONFIG,
    *,
    whole: bool = False,
    scored: np.ndarray | None = None,
) -> Split:
    return split_pool(
        features,
        trusted,
        config,
        usable=np.ones(features.samples.height, bool),
        scored=np.ones(features.samples.height, bool) if scored is None else scored,
        whole=whole,
        source="good",
        check=lambda: None,
    )


def marks(count: int) -> np.ndarray:
    return np.arange(count) % 3 != 0


def test_the_same_share_of_others_is_set_aside(tmp_path: Path) -> None:
    features = proving_set(tmp_path / "f", learnable(300, seed=0))
    config = CONFIG.model_copy(update={"duplicate_cosine": 1.0})
    found = split(features, marks(300), config)
    assert found.record.model_dump(include={"trusted", "held_out", "set_aside", "trainable"}) == {
        "trusted": 200,
        "held_out": 50,
        "set_aside": 25,
        "trainable": 225,
    }
    assert marks(300)[found.held_out].all()
    assert not set(found.held_out) & set(found.trainable)
    assert marks(300)[found.trainable].sum() == 150  # the rest of the trusted may train


def test_the_limit_cuts_both_shares(tmp_path: Path) -> None:
    features = proving_set(tmp_path / "f", learnable(300, seed=0))
    few = CONFIG.model_copy(update={"held_out_limit": 20, "duplicate_cosine": 1.0})
    found = split(features, marks(300), few)
    assert (found.record.held_out, found.record.set_aside) == (20, 10)


def test_the_split_depends_on_uids_alone(tmp_path: Path) -> None:
    arrays = learnable(300, seed=0)
    order = np.random.default_rng(3).permutation(300)
    plain = proving_set(tmp_path / "a", arrays)
    moved = proving_set(tmp_path / "b", arrays, order=order)
    uids = [
        set(features.samples["uid"].gather(split(features, mask).held_out))
        for features, mask in ((plain, marks(300)), (moved, marks(300)[order]))
    ]
    assert uids[0] == uids[1]


def test_a_file_holds_out_exactly_its_samples_and_sets_nobody_aside(tmp_path: Path) -> None:
    features = proving_set(tmp_path / "f", learnable(100, seed=0))
    chosen = np.zeros(100, bool)
    chosen[10:35] = True
    config = CONFIG.model_copy(update={"duplicate_cosine": 1.0})
    found = split(features, chosen, config, whole=True)
    assert sorted(found.held_out) == list(range(10, 35))
    assert found.record.set_aside == 0
    assert len(found.trainable) == 75


def test_samples_without_a_score_may_judge_and_never_train(tmp_path: Path) -> None:
    features = proving_set(tmp_path / "f", learnable(300, seed=0))
    config = CONFIG.model_copy(update={"duplicate_cosine": 1.0})
    everyone = split(features, marks(300), config)
    scored = np.ones(300, bool)
    scored[everyone.held_out[:30]] = False  # judges, and
    scored[everyone.trainable[:45]] = False  # 30 trusted samples and 15 others
    found = split(features, marks(300), config, scored=scored)
    assert np.array_equal(found.held_out, everyone.held_out)
    assert scored[found.trainable].all()
    # Of 140 trusted samples with a score 20 judge, so 1/7 of the 85 others are set aside.
    assert (found.record.unscored, found.record.set_aside) == (75, 12)
    assert len(found.trainable) == 120 + 73
    none = split(features, marks(300), config, scored=~marks(300))
    assert (none.record.set_aside, len(none.trainable)) == (0, 100)


def test_planted_duplicates_are_caught_counted_and_kept_from_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splitting, "BLOCK_CELLS", 300)  # several blocks
    arrays = learnable(200, seed=1)
    plain = split(proving_set(tmp_path / "a", arrays), marks(200))
    assert plain.record.leakage.removed == 0
    held, free = plain.held_out, plain.trainable
    twin, near, place, words = (int(row) for row in free[:4])
    for name in ("image_features", "image_embedding"):
        arrays[name][twin] = arrays[name][held[0]]
    close = arrays["image_embedding"][held[1]] + 0.003
    arrays["image_embedding"][near] = close / np.linalg.norm(close)
    captions = [f"caption {n}" for n in range(200)]
    captions[words] = f"  Caption\t{held[2]} "
    paths = [f"{n}.png" for n in range(200)]
    paths[place] = paths[held[3]]
    columns = {"caption": captions, "image_path": paths, "image_kind": ["file"] * 200}
    found = split(proving_set(tmp_path / "b", arrays, columns=columns), marks(200))
    assert np.array_equal(found.held_out, held)
    assert set(free) - set(found.trainable) == {twin, near, place, words}
    assert found.record.leakage.model_dump() == {
        "same_image": 2,
        "same_file": 1,
        "same_caption": 1,
        "removed": 4,
        "held_out_touched": 4,
    }
    generic = CONFIG.model_copy(update={"caption_limit": 1})
    kept = split(proving_set(tmp_path / "c", arrays, columns=columns), marks(200), generic)
    assert kept.record.leakage.same_caption == 0  # two samples share it: too many
    assert words in kept.trainable


def test_duplicates_among_the_held_out_are_one_group(tmp_path: Path) -> None:
    arrays = learnable(200, seed=1)
    held = split(proving_set(tmp_path / "a", arrays), marks(200)).held_out
    arrays["image_embedding"][held[1]] = arrays["image_embedding"][held[0]]
    paths = [f"{n}.png" for n in range(200)]
    paths[held[2]] = paths[held[1]]
    columns = {"image_path": paths, "image_kind": ["file"] * 200}
    found = split(proving_set(tmp_path / "b", arrays, columns=columns), marks(200))
    assert len(set(found.groups[:3])) == 1
    assert found.record.groups == len(held) - 2


def test_the_same_caption_joins_judges_unless_it_is_generic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splitting, "BLOCK_CELLS", 1)  # one sample at a time
    arrays = learnable(200, seed=1)
    held = split(proving_set(tmp_path / "a", arrays), marks(200)).held_out
    captions = [f"caption {n}" for n in range(200)]
    captions[held[1]] = f" CAPTION {held[0]}"
    for row in held[5:11]:
        captions[row] = "image"  # six: too many to tell
    for row in held[11:13]:
        captions[row] = None  # type: ignore[call-overload]
    arrays["image_embedding"][held[2]] = arrays["image_embedding"][held[1]]
    found = split(proving_set(tmp_path / "b", arrays, columns={"caption": captions}), marks(200))
    assert len(set(found.groups[:3])) == 1
    assert found.record.groups == len(held) - 2


def test_too_many_uids_in_a_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splitting, "MAX_HELD_OUT", 30)
    features = proving_set(tmp_path / "f", learnable(90, seed=0))
    with pytest.raises(ConfigError) as caught:
        split(features, marks(90), whole=True)
    assert caught.value.got == repr("60 usable samples of the held-out file")
    assert caught.value.allowed == "20 to 30"


def test_too_few_to_judge_is_refused(tmp_path: Path) -> None:
    features = proving_set(tmp_path / "f", learnable(90, seed=0))
    with pytest.raises(ConfigError) as caught:
        split(features, marks(90))
    assert caught.value.got == repr("15 of 60 trusted samples (share 0.25)")
    assert caught.value.allowed == "at least 20"
