"""How a job is carried out; pydantic alone is needed to read it, as for the settings of a run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mimic_core.base.config import Frozen
from mimic_core.base.fields import Otherwise


class JobOptions(Frozen):
    """How a job is carried out; nothing here changes its scores.

    ``map_of`` is the directory of a finished run that lacks its map alone: nothing is scored, so
    neither the pool nor the reference has to be where it was.
    """

    device: Annotated[str | None, Otherwise("automatic")] = None
    """Where to compute: cpu, cuda, mps, or another, such as cuda:1. Automatic takes CUDA, then MPS,
    then the CPU."""
    workers: Annotated[int | None, Otherwise("automatic")] = Field(default=None, ge=0, le=1024)
    """Processes that read and decode images. Automatic goes by the size of the pool; 0 reads them
    in the job's own process. Scores do not depend on it."""
    sweep: bool = Field(default=False, title="Compare mimic layers")
    """Compare mimic layers too: extends the direction check by scores of a small part of the pool
    with several candidates."""
    map: bool = Field(default=False, title="Make the map")
    """Make the map too: a 2-D picture of the pool (UMAP), which takes a minute or more after
    scoring. It can be made later as well."""
    join: tuple[str, ...] = Field(default=(), title="Columns of other files")
    """A file whose columns are joined by uid once the pool is scored, such as other people's
    scores: Parquet, CSV, TSV, JSONL or .npy. They change no score."""
    epochs_used: Annotated[int | None, Otherwise("all")] = Field(
        default=None, ge=1, title="Epochs used"
    )
    """Means, votes, filters and exports look at the first so many epochs (or repeats) alone. All
    are stored, so a later choice is as good: the command runs use, or a click on Explore."""
    cache_limit: Annotated[float | None, Otherwise("20, or MIMICSCOPE_CACHE_LIMIT")] = Field(
        default=None, gt=0, allow_inf_nan=False, title="Cache, GiB"
    )
    """For pools in object storage: how much of what was read is kept on this machine's disk at
    most, in GiB."""
    map_of: str | None = None
