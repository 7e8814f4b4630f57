"""A run in a few figures: what the command line prints and a script reads as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from mimic_core.base.config import Frozen
from mimic_core.runs import imageless, stored
from mimic_core.runs.means import score_summary
from mimic_core.runs.metrics import as_sentence
from mimic_core.runs.record import RunRecord
from mimic_core.runs.run import Run

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class RunSummary(Frozen):
    """Counts and the distribution of the mimic score, its mean over epochs or repeats per sample.

    ``without_image`` rows of the pool stand in the table and have no scores.
    ``quantiles`` holds (probability, score). Both are None while the run is unfinished.
    """

    skipped_by_reason: dict[str, int]
    without_image: int = 0
    mean: float | None = None
    quantiles: tuple[tuple[float, float], ...] | None = None


def summarise(run: Run) -> RunSummary:
    """The figures of ``run``; without scores while it is unfinished."""
    if not run.done:
        return RunSummary(skipped_by_reason={})
    counts = run.features.skipped.group_by("reason").len().sort("reason")
    with stored.intact(run.tables):
        scores = score_summary(run.epoch_scores, ["mimic_score"])["mimic_score"].cast(pl.Float64)
    quantiles = [(q, scores.quantile(q, "linear")) for q in QUANTILES]
    return RunSummary(
        skipped_by_reason=dict(counts.iter_rows()),
        without_image=imageless.count(run.features),
        mean=float(scores.mean()),  # type: ignore[arg-type]  # polars types it as any literal
        quantiles=tuple((q, float(value)) for q, value in quantiles if value is not None),
    )


def as_json(run: Run) -> dict[str, Any]:
    """``run.json`` with the folder and the figures of ``summarise``, ready for JSON."""
    record = run.record.model_dump(mode="json")
    return {**record, "path": str(run.path), "summary": summarise(run).model_dump(mode="json")}


def as_lines(run: Run) -> list[str]:
    """The same for people, as aligned lines."""
    record, summary = run.record, summarise(run)
    scorer = record.config.scorer
    rows = [
        ("run", run.id),
        ("folder", str(run.path)),
        ("status", record.status),
        ("pool", ", ".join(record.config.source.paths)),
        ("reference model", record.config.reference),
        ("mode", record.config.mode),
        *(
            (name.replace("_", " "), str(value))
            for name, value in scorer
            if value is not None and name != "mimic_layers"  # those used are named below
        ),
        ("mimic layers", ", ".join(record.mimic_layers) or "-"),
        ("samples", f"{record.samples:,}"),
        *([_without(record)] if record.held_out else []),
        *([("without image", f"{summary.without_image:,} rows")] if summary.without_image else []),
        ("skipped", _skipped(record.skipped, summary)),
    ]
    if summary.mean is not None and summary.quantiles is not None:
        spread = ", ".join(f"{q:.0%} {value:.4g}" for q, value in summary.quantiles)
        rows += [("mimic score", f"mean {summary.mean:.4g}"), ("quantiles", spread)]
    rows += _measured(run)
    if record.reference_head is not None:
        rows.append(("reference head", record.reference_head.as_sentence()))
        warning = record.reference_head.warning
        rows += [] if warning is None else [("warning", warning)]
    if record.epochs_used is not None:
        rows.append(("epochs used", f"the first {record.epochs_used} of {record.epochs}"))
    rows += [("joined columns", ". ".join(one.as_sentences())) for one in record.joins]
    check = record.direction_check
    if check is not None:
        rows.append(("direction check", f"{check.level}: {check.verdict}"))
    if record.timings:
        times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in record.timings.items())
        rows.append(("timings", times))
    return aligned(rows)


def _measured(run: Run) -> list[tuple[str, str]]:
    """Held-out metrics of a training run: before training, and after the last epoch."""
    if run.record.config.training is None or not run.done:
        return []
    rows = run.metrics().sort("step", maintain_order=True).to_dicts()
    return [("at the start", as_sentence(rows[0])), ("at the end", as_sentence(rows[-1]))]


def _without(record: RunRecord) -> tuple[str, str]:
    return "without scores", f"{record.held_out:,} (held out, or trusted)"


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """``rows`` of cells as lines with aligned columns; the last column is left as it is."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]


def _skipped(total: int, summary: RunSummary) -> str:
    reasons = ", ".join(f"{name} {count:,}" for name, count in summary.skipped_by_reason.items())
    return f"{total:,} ({reasons})" if reasons else f"{total:,}"
