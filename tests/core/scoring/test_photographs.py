"""Real photographs go all the way: scored in both modes, opened again with their images."""

from __future__ import annotations

from pathlib import Path

import pytest

from mimic_core.base.config import RunConfig
from mimic_core.features.loading import locator_of
from mimic_core.models.names import parse_spec
from mimic_core.models.open_clip_models import needs_quick_gelu
from mimic_core.runs.run import open_run
from mimic_core.runs.table import run_table
from mimic_core.scoring.pipeline import score_pool
from mimic_core.sources.images import decode_image
from mimic_core.sources.reading import read_image
from tests.places import DATA, ROOT

PHOTOGRAPHS = DATA / "flickr8k_1k"
REFERENCE = ROOT / "data_samples" / "reference"

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"no pool at {PHOTOGRAPHS}")
@pytest.mark.parametrize("reference", [str(REFERENCE), "ViT-S-32:random:0"], ids=["demo", "vit"])
@pytest.mark.parametrize("mode", ["probe", "snapshot"])
def test_photographs_are_scored_and_opened_again(tmp_path: Path, mode: str, reference: str) -> None:
    config = RunConfig.parse(
        {
            "source": {"path": str(PHOTOGRAPHS), "sample": 6},
            "reference": reference,
            mode: {"batch_size": 3},
        }
    )
    run = open_run(score_pool(config, runs_root=tmp_path, device="cpu").path)
    assert run.record.self_check["relative_difference"] < 1e-4
    assert run.record.direction_check is not None
    table = run_table(run)
    assert table.height == 6
    assert table["mimic_score"].null_count() == 0
    row = table.row(0, named=True)
    image = decode_image(read_image(run.features.source_root(), locator_of(row)))
    assert image.size == (row["width"], row["height"])


def test_a_moved_pool_is_found_again(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("first", "second"):
        folder = tmp_path / name / "pool"
        folder.mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8), (number * 60, 0, 0)).save(folder / f"{number}.png")
        rows = "".join(f"{number}.png,caption {number}\n" for number in range(4))
        (folder / "captions.csv").write_text(f"filename,caption\n{rows}")
    configs = [
        RunConfig.parse(
            {
                "source": {"path": str(tmp_path / name / "pool")},
                "reference": str(REFERENCE),
                "probe": {"batch_size": 4},
            }
        )
        for name in ("first", "second")
    ]
    roots = tmp_path / "elsewhere" / "runs"
    first = score_pool(configs[0], runs_root=roots, device="cpu")
    was_at = first.features.source_root()
    second = score_pool(configs[1], runs_root=roots, device="cpu")
    assert second.features.id == first.features.id
    assert was_at == tmp_path / "first" / "pool"
    assert second.features.source_root() == tmp_path / "second" / "pool"


@pytest.mark.parametrize(("tag", "quick"), [("openai", True), ("laion2b_s32b_b82k", False)])
def test_the_activation_is_that_of_the_published_weights(tag: str, quick: bool) -> None:
    assert needs_quick_gelu(parse_spec(f"ViT-L-14:{tag}")) is quick
