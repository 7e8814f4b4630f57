"""Pools with rows that have no image, on every page: they are counted apart and break nothing."""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl
import pytest

from mimic_core.base.schema import NO_IMAGE
from mimic_core.runs import imageless
from mimic_core.runs.run import Run
from mimic_core.runs.table import run_table
from tests.app.conftest import OpenApp
from tests.fakes import fake_run

N, BARE = 60, 7


@pytest.fixture(scope="module")
def bare_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 60 samples and seven rows without an image."""
    run = fake_run(tmp_path_factory.mktemp("imageless"), n=N)
    shard = run.features.shards[-1]
    rows = run.features.finished(shard).head(BARE)
    nothing = ("width", "height", "clip_score", "image_member")
    kinds = pl.lit(NO_IMAGE.kind).alias("image_kind")
    rows = rows.with_columns(
        kinds,
        pl.concat_str(pl.lit("f" * 8), pl.col("uid").str.slice(8)).alias("uid"),
        *(pl.lit(None, rows.schema[name]).alias(name) for name in nothing),
    )
    target = imageless.file_of(run.features, shard)
    target.parent.mkdir()
    rows.write_parquet(target)
    return run


@pytest.mark.parametrize("page", ["explore", "dynamics", "filters", "prove", "export"])
def test_every_page_opens(bare_run: Run, open_app: OpenApp, page: str) -> None:
    app = open_app(bare_run.path.parent, page)
    said = "\n".join(one.value for one in [*app.caption, *app.markdown])
    if page in ("explore", "dynamics"):
        assert f"{N} samples · {BARE} rows without an image" in said
    if page == "dynamics":
        noisy = int(run_table(bare_run).head(N)["is_noisy"].sum())
        assert re.search(rf"keeps .* of {N}.* among them \d+ of {noisy} known noisy", said)
    if page != "prove":
        assert f"{N + BARE} of {N + BARE}" in [one.value for one in app.metric]


def test_a_run_of_several_pools_is_called_after_all(
    bare_run: Run, open_app: OpenApp, tmp_path: Path
) -> None:
    source = bare_run.record.config.source
    more = source.model_copy(update={"also": (str(tmp_path),)})
    changed = bare_run.record.config.model_copy(update={"source": more})
    before = bare_run.record
    try:
        bare_run.update(config=changed)
        app = open_app(bare_run.path.parent, "explore")
        assert app.title[0].value.endswith(" and 1 more")
    finally:
        bare_run.update(config=before.config)
