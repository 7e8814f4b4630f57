"""The figures of the reproduction as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Found = Mapping[str, Any]


def as_markdown(found: Found) -> str:
    """All tables of one run of ``reproduce.py``."""
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    lines = [f"{found['seconds']:.0f} s; {machine}", ""]
    lines += [f"{job}: {seconds:.0f} s of processor time" for job, seconds in found["cpu"].items()]
    if found["quick"]:
        lines.append("quick run: the figures mean nothing")
    lines += [f"left out: {text}" for text in found["missing"]]
    if "labels" in found:
        for name, tables in found["labels"].items():
            lines += labels_tables(name, tables)
        lines += ["", "## All data sets: Pearson's r of retained share and noise (means)", ""]
        lines += _correlations(found["retained_on_all"])
    if "pairs" in found:
        lines += pairs_tables(found["pairs"])
    return "\n".join(lines) + "\n"


def labels_tables(name: str, tables: Found) -> list[str]:
    """Of one data set."""
    sizes, own = tables["images"], tables["reference_accuracy"]
    counts = ", ".join(f"{value:,} {part}" for part, value in sizes.items())
    rates = {row["noise"]: row["rate"]["mean"] for row in tables["noise_rate"]}
    lines = ["", f"## {name}: {counts}; learning rate {tables['learning_rate']:g}", ""]
    lines += [f"Reference's accuracy: {own['test']:.3f} (test), {own['scored']:.3f} (scored)", ""]
    lines += ["Test accuracy, mean ± standard deviation:", ""]
    lines += pivot(tables["accuracy"], "noise", "weighting", "accuracy", kind="sd", rates=rates)
    lines += ["", "AUROC of wrong labels:", ""]
    lines += pivot(tables["auroc"], "noise", "score", "auroc", kind="sd", rates=rates)
    lines += ["", "F1 of wrong labels by majority of five epochs:", ""]
    majority = [row for row in tables["detection"] if row["aggregate"] in ("majority", "none")]
    lines += pivot(majority, "noise", "binarise", "f1", kind="mean", rates=rates)
    lines += ["", "F1 by aggregation, mean over injected noise:", "", *_aggregations(tables)]
    lines += ["", "Pearson's r of retained share and noise (means; single runs):", ""]
    lines += _correlations(tables["pearson"])
    lines += ["", "Noise 0.5, other settings, test accuracy:", ""]
    settings = [
        {**row, "setting": f"{row['learning_rate']}, {row['temperature']}"}
        for row in tables["settings"]
    ]
    lines += pivot(settings, "setting", "weighting", "accuracy", kind="sd")
    return lines


def pairs_tables(tables: Found) -> list[str]:
    """Of the demo pool."""
    pool = tables["pool"]
    lines = ["", f"## pairs: {pool['samples']:,}, {pool['held_out']} of them held out", ""]
    lines += ["AUROC of the mean over epochs, mean ± half of the 95 % interval:", ""]
    rows = [{**row, "column": f"{row['mode']}: {row['score']}"} for row in tables["detection"]]
    for mode in dict.fromkeys(row["mode"] for row in rows):
        chosen = [row for row in rows if row["mode"] == mode]
        lines += [f"{mode}:", "", *pivot(chosen, "noise", "score", "auroc", kind="half"), ""]
    lines += ["AUROC of mismatched and junk captions by epoch:", ""]
    epochs = [{**row, "who": f"{row['mode']}: {row['score']}"} for row in tables["by_epoch"]]
    lines += pivot(epochs, "who", "epoch", "auroc", kind="half")
    for start in dict.fromkeys(row["start"] for row in tables["training"]):
        chosen = [row for row in tables["training"] if row["start"] == start]
        lines += ["", f"Training, start: {start}:", ""]
        lines += pivot(chosen, "way", "figure", "value", kind="half")
    return lines


def pivot(
    rows: Iterable[Found],
    down: str,
    across: str,
    value: str,
    *,
    kind: str,
    rates: Mapping[str, float] | None = None,
) -> list[str]:
    """A Markdown table; an empty cell is a dash.

    Args:
        kind: What follows the mean: ``sd``, ``half``, or nothing (``mean``).
        rates: Added to the names of the rows.
    """
    cells = {(row[down], row[across]): _cell(row[value], kind) for row in rows}
    columns = list(dict.fromkeys(column for _, column in cells))
    lines = [_line([down, *columns]), _line(["---"] * (len(columns) + 1))]
    for name in dict.fromkeys(name for name, _ in cells):
        shown = f"{name} ({rates[name]:.2f})" if rates and not name[0].isdigit() else name
        lines.append(_line([shown, *(cells.get((name, column), "–") for column in columns)]))
    return lines


def _cell(found: Found, kind: str) -> str:
    extra = None if kind == "mean" else found[kind]
    return f"{found['mean']:.3f}" + ("" if extra is None else f" ± {extra:.3f}")


def _aggregations(tables: Found) -> list[str]:
    """F1 by binarisation and aggregation, over the rates of injected noise."""
    sums: dict[tuple[str, str], list[float]] = {}
    for row in tables["detection"]:
        if row["noise"][0].isdigit():
            key = row["binarise"], row["aggregate"]
            sums.setdefault(key, []).append(row["f1"]["mean"])
    rows = [
        {"binarise": key[0], "aggregate": key[1], "f1": {"mean": sum(v) / len(v)}}
        for key, v in sums.items()
    ]
    return pivot(rows, "binarise", "aggregate", "f1", kind="mean")


def _correlations(rows: Sequence[Found]) -> list[str]:
    names = list(dict.fromkeys(row["aggregate"] for row in rows))
    cells = {
        (row["binarise"], row["aggregate"]): "; ".join(
            f"{row[name]:.3f}" for name in ("r", "r_means", "r_points") if name in row
        )
        for row in rows
    }
    lines = [_line(["binarise", *names]), _line(["---"] * (len(names) + 1))]
    ways = dict.fromkeys(row["binarise"] for row in rows)
    return lines + [_line([way, *(cells.get((way, name), "–") for name in names)]) for way in ways]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
