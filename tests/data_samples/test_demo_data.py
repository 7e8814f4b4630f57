"""The committed demo data keeps its promises, and can be made again."""

from __future__ import annotations

import io
import random
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_samples.captions import write_caption
from data_samples.check import PoolSample, auroc, auroc_by_kind, clip_scores, read_pool
from data_samples.make_pool import (
    POOL_SEED,
    POOL_SIZE,
    SMALLEST_POOL,
    plan_pool,
    write_pool,
)
from data_samples.noise import (
    CLEAN,
    MISMATCHED_OR_JUNK,
    NOISE_SHARES,
    share_no_thing,
    wrong_attribute,
)
from data_samples.objects import Thing, all_things, plural, with_article
from data_samples.render import FONT_PATH, render
from data_samples.scenes import Scene, draw_scene
from mimic_core.base.errors import ConfigError
from tests.places import ROOT

DEMO_DIR = ROOT / "data_samples"
REFERENCE = DEMO_DIR / "reference"
MEGABYTE = 1_000_000

needs_font = pytest.mark.skipif(
    not FONT_PATH.is_file(), reason="needs the Debian package fonts-noto-color-emoji"
)


@pytest.fixture(scope="module")
def pool() -> list[PoolSample]:
    return list(read_pool(DEMO_DIR / "pool"))


def test_pool_has_four_shards_of_500_samples_with_keys_that_name_them(
    pool: list[PoolSample],
) -> None:
    shards = sorted(path.name for path in (DEMO_DIR / "pool").iterdir())

    assert shards == ["00000.tar", "00001.tar", "00002.tar", "00003.tar"]
    assert [sample.key for sample in pool] == [
        f"{shard:05d}{number:04d}" for shard in range(4) for number in range(500)
    ]


def test_every_image_of_the_pool_decodes_to_the_size_in_its_metadata(
    pool: list[PoolSample],
) -> None:
    for sample in pool:
        image = Image.open(io.BytesIO(sample.image))
        image.load()
        assert image.size == (sample.meta["width"], sample.meta["height"]), sample.key


def test_uids_are_unique_32_digit_hexadecimal_numbers(pool: list[PoolSample]) -> None:
    uids = [str(sample.meta["uid"]) for sample in pool]

    assert len(set(uids)) == 2000
    assert all(uid == f"{int(uid, 16):032x}" for uid in uids)


def test_three_in_ten_samples_are_noisy_in_the_planned_shares(pool: list[PoolSample]) -> None:
    counts = Counter(sample.meta["noise_kind"] for sample in pool)

    expected = {str(kind): round(share * 2000) for kind, share in NOISE_SHARES.items()}
    assert len(expected) == 11
    assert counts == expected | {CLEAN: 1400}
    assert sum(counts[kind] for kind in MISMATCHED_OR_JUNK) > 300


def test_readme_states_the_number_of_samples_of_each_kind_of_noise() -> None:
    readme = (DEMO_DIR / "README.md").read_text(encoding="utf-8")

    for kind, share in NOISE_SHARES.items():
        assert f"| `{kind}` | {round(share * 2000)} |" in readme


def test_is_noisy_says_the_same_as_noise_kind(pool: list[PoolSample]) -> None:
    for sample in pool:
        assert sample.meta["is_noisy"] is (sample.meta["noise_kind"] != CLEAN), sample.key


def test_clean_captions_name_the_object_and_noisy_ones_are_as_recorded(
    pool: list[PoolSample],
) -> None:
    for sample in pool:
        caption, name = sample.caption.lower(), str(sample.meta["object"])
        named = name in caption or plural(name) in caption
        match sample.meta["noise_kind"]:
            case "clean" | "near_duplicate" | "blurred_image" | "blank_image" | "tiny_image":
                assert named, sample
            case "filename_caption" | "junk_caption":
                assert not named, sample


def test_recorded_copies_point_at_clean_samples_with_the_same_object(
    pool: list[PoolSample],
) -> None:
    by_uid = {sample.meta["uid"]: sample.meta for sample in pool}
    copies = [sample.meta for sample in pool if sample.meta["noise_kind"] == "near_duplicate"]

    assert len(copies) == 30
    for meta in copies:
        twin = by_uid[str(meta["noise_detail"]).removeprefix("copy of ")]
        assert (twin["noise_kind"], twin["object"]) == (CLEAN, meta["object"])


def test_only_overlong_captions_leave_the_context_of_77_tokens(pool: list[PoolSample]) -> None:
    import open_clip

    tokenizer = open_clip.SimpleTokenizer()
    # Two more tokens mark start and end.
    overlong = [
        sample.meta["noise_kind"]
        for sample in pool
        if len(tokenizer.encode(sample.caption)) + 2 > 77
    ]

    assert overlong == ["overlong_caption"] * 30


def test_demo_data_stays_under_25_megabytes() -> None:
    sizes = [path.stat().st_size for path in DEMO_DIR.rglob("*") if path.is_file()]

    assert sum(sizes) <= 25 * MEGABYTE


def test_committed_pool_is_the_one_that_the_scripts_plan(pool: list[PoolSample]) -> None:
    plan = plan_pool(POOL_SIZE, POOL_SEED)

    assert [(sample.uid, sample.caption, sample.noise_kind or CLEAN) for sample in plan] == [
        (sample.meta["uid"], sample.caption, sample.meta["noise_kind"]) for sample in pool
    ]


@needs_font
def test_same_seed_writes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    shards = [
        write_pool(tmp_path / name, size=SMALLEST_POOL, seed=seed)[0].read_bytes()
        for name, seed in (("first", 5), ("second", 5), ("other", 6))
    ]

    assert shards[0] == shards[1]
    assert shards[0] != shards[2]


@needs_font
def test_writing_a_pool_removes_the_shards_of_a_larger_one(tmp_path: Path) -> None:
    (tmp_path / "00001.tar").write_bytes(b"left over")

    write_pool(tmp_path, size=SMALLEST_POOL, seed=5)

    assert [path.name for path in tmp_path.iterdir()] == ["00000.tar"]


def test_smallest_pool_already_holds_every_kind_of_noise() -> None:
    kinds = {sample.noise_kind for sample in plan_pool(SMALLEST_POOL, seed=5)}

    assert kinds == {None, *NOISE_SHARES}


def test_too_small_pool_is_refused_with_the_size_asked_for() -> None:
    with pytest.raises(ConfigError, match="got 99; allowed: at least 100 samples"):
        plan_pool(99, seed=5)


def test_swapped_captions_come_from_pictures_that_show_nothing_in_common() -> None:
    plan = plan_pool(300, seed=5)
    by_uid = {sample.uid: sample for sample in plan}
    swapped = [sample for sample in plan if sample.noise_kind == "swapped_caption"]

    assert len(swapped) == 30
    for sample in swapped:
        owner = by_uid[str(sample.noise_detail).removeprefix("caption of ")]
        assert share_no_thing(sample.scene, owner.scene)


def test_scenes_with_one_thing_in_common_are_not_swapped() -> None:
    first, second, third, fourth = all_things()[:4]
    rng = random.Random(2)
    scene = draw_scene(first, (first, second), rng)

    def showing(*things: Thing) -> Scene:
        template = scene.placements[0]
        return replace(scene, placements=tuple(replace(template, thing=one) for one in things))

    assert share_no_thing(showing(first, second), showing(third, fourth))
    assert not share_no_thing(showing(first, second), showing(third, second))


def test_wrong_attribute_names_the_right_object_and_records_what_is_wrong() -> None:
    rng = random.Random(0)
    things = all_things()
    wrongs = Counter[str]()
    for _ in range(200):
        scene = draw_scene(rng.choice(things), things, rng)
        spoiled = wrong_attribute(scene, rng)
        assert spoiled.detail is not None
        what = spoiled.detail.split()[0].rstrip(",")
        wrongs[what] += 1
        told = spoiled.detail.rsplit("told ")[-1]
        shown = {scene.background.colour, scene.background.second_colour, scene.position}
        assert told not in shown, spoiled
        if what != "position":
            assert told in spoiled.text.lower(), spoiled
    assert set(wrongs) == {"background", "number", "position", "colour"}


def test_captions_tell_background_and_position_when_asked_to() -> None:
    rng = random.Random(3)
    things = all_things()
    scene = draw_scene(things[0], things, rng)
    scene = replace(scene, position="top left", placements=scene.placements[:1])

    for _ in range(30):
        full = write_caption(scene, rng, "full").lower()
        assert scene.background.colour in full
        assert "top left" in full


@needs_font
def test_every_thing_is_drawn_with_its_own_glyph() -> None:
    rng = random.Random(1)
    things = all_things()
    scene = draw_scene(things[0], things, rng)
    template = replace(scene.placements[0], x=0.5, y=0.5, scale=0.8, angle=0.0)
    plain = replace(scene.background, pattern="plain", colour="white", second_colour=None)
    pictures = set()
    for thing in things:
        alone = replace(
            scene, placements=(replace(template, thing=thing),), background=plain, shadow=False
        )
        pictures.add(render(alone).tobytes())

    # A glyph that the font lacks would be drawn as the same box as another one.
    assert len(pictures) == len(things) > 300


def test_spoken_names_are_unique_and_inflected() -> None:
    assert len({thing.name for thing in all_things()}) == len(all_things())
    assert with_article("owl") == "an owl"
    assert with_article("ufo") == "a ufo"
    assert with_article("dice") == "dice"
    assert plural("slice of pizza") == "slices of pizza"
    assert plural("wolf") == "wolves"
    assert plural("strawberry") == "strawberries"


def test_auroc_counts_pairs_in_the_right_order_and_ties_half() -> None:
    assert auroc(np.array([1.0, 3.0]), np.array([2.0, 1.0])) == (0.5 + 0 + 1 + 1) / 4


def test_reference_separates_clean_from_mismatched_captions(pool: list[PoolSample]) -> None:
    wanted = {CLEAN, *MISMATCHED_OR_JUNK}
    # Shuffled by hash already: the first shard is as good a sample as any.
    samples = list(islice((sample for sample in pool if sample.meta["noise_kind"] in wanted), 400))

    kinds = [str(sample.meta["noise_kind"]) for sample in samples]
    result = auroc_by_kind(kinds, clip_scores(samples, REFERENCE))

    assert result["mismatched or junk"] >= 0.95
    assert result["swapped_caption"] >= 0.95


def test_reference_has_its_own_preprocessing_and_a_linear_image_projection() -> None:
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{REFERENCE}")

    assert model.visual.preprocess_cfg["mean"] == [0.55, 0.52, 0.48]
    assert model.visual.preprocess_cfg["resize_mode"] == "squash"
    assert tuple(preprocess(Image.new("RGB", (120, 80))).shape) == (3, 64, 64)
    assert tuple(model.visual.proj.shape) == (192, 128)
