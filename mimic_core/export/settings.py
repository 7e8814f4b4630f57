"""The settings of an export; pydantic alone is needed to read them, as for those of a run."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from mimic_core.base.config import Frozen
from mimic_core.base.fields import Otherwise

ExportFormat = Literal[
    "parquet",
    "csv",
    "jsonl",
    "datacomp",
    "webdataset",
    "imagefolder",
    "hf_parquet",
    "open_clip",
    "files",
    "links",
    "classes",
    "keep_column",
]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
# Those that are one file have its suffix; ``keep_column`` has that of the table it repeats.
SUFFIXES: dict[ExportFormat, str] = {
    "parquet": ".parquet",
    "csv": ".csv",
    "jsonl": ".jsonl",
    "datacomp": ".npy",
    "open_clip": ".tsv",
    "files": ".txt",
}
FOLDERS: tuple[ExportFormat, ...] = ("webdataset", "imagefolder", "hf_parquet", "links", "classes")
# Made of the run's table alone, whole in memory: what can be downloaded.
TABLES: tuple[ExportFormat, ...] = ("parquet", "csv", "jsonl", "datacomp")
# Which formats a setting is for; of the others it is refused.
USED_BY: dict[str, tuple[ExportFormat, ...]] = {
    "shard_size": ("webdataset", "hf_parquet"),
    "split_column": ("imagefolder", "hf_parquet", "classes"),
    "no_splits": ("imagefolder", "hf_parquet", "classes"),
    "repeats": ("datacomp",),
    "repeats_total": ("datacomp",),
    "repeats_penalty": ("datacomp",),
    "table": ("keep_column",),
}


class ExportConfig(Frozen):
    """What is written, and how."""

    format: ExportFormat
    """What to write."""
    shard_size: int = Field(default=10_000, ge=1, le=1_000_000, title="Samples in a shard")
    """Samples in a shard of webdataset, or in a file of hf_parquet."""
    split_column: Annotated[str | None, Otherwise("split, where there is one")] = Field(
        default=None, title="Split column"
    )
    """Column whose values are the splits of imagefolder, hf_parquet and classes."""
    no_splits: bool = Field(default=False, title="Leave splits together")
    """Leave splits together, whatever columns there are."""
    repeats: Annotated[str | None, Otherwise("each uid once")] = None
    """Column that says how often each uid is written for DataComp: whole numbers, or, with a total,
    a score."""
    repeats_total: int | None = Field(default=None, ge=1, title="Uids altogether")
    """Uids to write altogether (a soft cap): place after place goes to the sample whose score, less
    the penalty for every place that it has, is highest; ties by uid."""
    repeats_penalty: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, title="Penalty of a repeat"
    )
    """What a sample's score loses with every place that it gets, in units of the score."""
    table: Annotated[str | None, Otherwise("the pool's own table")] = None
    """For keep_column: a table with a column uid that gets the column, such as DataComp's
    metadata."""

    @model_validator(mode="after")
    def _belongs_together(self) -> ExportConfig:
        for name, formats in USED_BY.items():
            given = getattr(self, name) != type(self).model_fields[name].default
            if given and self.format not in formats:
                raise ValueError(f"{name} is for {' and '.join(formats)}, not for {self.format}")
        if self.no_splits and self.split_column is not None:
            raise ValueError("give split_column or no_splits, not both")
        capped = self.repeats_total is not None
        if capped != (self.repeats_penalty is not None) or (capped and self.repeats is None):
            raise ValueError(
                "a soft cap needs all three: repeats, repeats_total and repeats_penalty"
            )
        return self
