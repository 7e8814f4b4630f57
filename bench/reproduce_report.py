"""The figures of the reproduction as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Found = Mapping[str, Any]


# What rows and columns are called in print.
SHOWN = {
    "noisy_aggre": "people, aggregated",
    "noisy_label": "people, first",
    "noisy_random2": "people, second",
    "noisy_random3": "people, third",
    "noisy_worse": "people, worst",
    "uniform": "plain",
    "mimic": "Grad-Mimic",
    "grand": "GraNd",
    "agra": "AGRA",
    "grad_match": "Grad-Match",
    "grad_match_single": "Grad-Match, single",
    "rho": "Rho-loss",
    "rho_attached": "Rho-loss, attached",
}
FAR = "batch 256: "
# Of the larger batch the ways to vote that are offered first; the figures have all.
FAR_WAYS = tuple(f"{FAR}{way}" for way in ("weight >= 1/B", "k-means on scores", "GMM on scores"))


def as_markdown(found: Found) -> str:
    """All tables of one run of ``reproduce.py``."""
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    lines = [machine, ""]
    lines += [f"{parts}: {value:.0f} s" for parts, value in found["seconds"].items()]
    lines += [f"{job}: {value:.0f} s of processor time" for job, value in found["cpu"].items()]
    if found["quick"]:
        lines.append("quick run: the figures mean nothing")
    lines += [f"left out: {text}" for text in found["missing"]]
    if "labels" in found:
        for name, tables in found["labels"].items():
            lines += labels_tables(name, tables)
        lines += ["", "## All data sets: Pearson's r of retained share and noise (means)", ""]
        lines += _correlations(found["retained_on_all"])
        lines += ["", "## Pairs of runs ahead of Grad-Mimic, and mean difference", ""]
        lines += ahead_table(found["ahead"])
    for part, tables in PARTS.items():
        if part in found:
            lines += tables(found[part])
    for part in ("fine_tuning", "pairs"):
        if part in found:
            lines += pairs_tables(part, found[part])
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
    lines += ["", "F1 of wrong labels, majority of five epochs at batch 32:", ""]
    majority = [row for row in tables["detection"] if row["aggregate"] == "majority"]
    near = [row for row in majority if not row["binarise"].startswith(FAR)]
    lines += pivot(near, "noise", "binarise", "f1", kind="sd", rates=rates)
    lines += ["", "F1 of wrong labels at batch 256, and by what the reference says:", ""]
    far = [row for row in majority if row["binarise"] in FAR_WAYS]
    far += [row for row in tables["detection"] if row["aggregate"] == "none"]
    lines += pivot(far, "noise", "binarise", "f1", kind="sd", rates=rates)
    if any(not row["noise"][0].isdigit() for row in majority):
        lines += ["", "F1 of wrong labels that people gave:", "", *peoples_table(tables)]
    lines += ["", "F1 by aggregation, mean over injected noise:", "", *_aggregations(tables)]
    lines += ["", "Pearson's r of retained share and noise (means; single runs):", ""]
    lines += _correlations(tables["pearson"])
    return lines


def peoples_table(tables: Found) -> list[str]:
    """F1 of every filter on the labels that people gave: a column for each set of labels."""
    rates = {row["noise"]: row["rate"]["mean"] for row in tables["noise_rate"]}
    rows = [
        {**row, "labels": f"{SHOWN[row['noise']]} ({rates[row['noise']]:.2f})"}
        for row in tables["detection"]
        if row["aggregate"] in ("majority", "none") and not row["noise"][0].isdigit()
    ]
    asked = [row for row in rows if row["aggregate"] == "none"]
    votes = [row for row in rows if row["aggregate"] == "majority"]
    return pivot(asked + votes, "binarise", "labels", "f1", kind="sd")


def ahead_table(rows: Sequence[Found]) -> list[str]:
    """How often each weighting is ahead of Grad-Mimic, by data set and over all of them."""
    columns = list(dict.fromkeys((row["data"], row["noise"]) for row in rows))
    head = ["weighting", *(f"{data}, {noise}" for data, noise in columns), "all"]
    lines = [_line(head), _line(["---"] * len(head))]
    for weighting in dict.fromkeys(row["weighting"] for row in rows):
        mine = {(row["data"], row["noise"]): row for row in rows if row["weighting"] == weighting}
        pairs, won = (sum(row[name] for row in mine.values()) for name in ("pairs", "ahead"))
        gain = sum(row["gain"] * row["pairs"] for row in mine.values()) / pairs
        cells = [
            f"{mine[key]['ahead']} of {mine[key]['pairs']}, {mine[key]['gain']:+.3f}"
            if key in mine
            else "–"
            for key in columns
        ]
        shown = SHOWN.get(weighting, weighting)
        lines.append(_line([shown, *cells, f"{won} of {pairs}, {gain:+.3f}"]))
    return lines


def members_tables(found: Mapping[str, Sequence[Found]]) -> list[str]:
    """Who trained the reference, by data set, backbone and decay."""
    rows, right = [], []
    for name, table in found.items():
        for row in table:
            setting = f"{name}, {row['backbone']}, decay {row['weight_decay']:g}"
            rows += [{"setting": setting, **one} for one in row["auroc"]]
            right += [{"setting": setting, **one} for one in row["right"]]
    lines = ["", "## Did a sample train the reference? AUROC, mean ± standard deviation", ""]
    lines += pivot(rows, "setting", "way", "auroc", kind="sd")
    lines += ["", "Accuracy of that reference:", ""]
    return lines + pivot(right, "setting", "half", "share", kind="sd")


def temperatures_tables(found: Mapping[str, Sequence[Found]]) -> list[str]:
    """Accuracy of the weightings, and what Grad-Mimic's scores are worth, by temperature."""
    lines = []
    for name, table in found.items():
        rows = [
            {
                **row,
                "setting": f"{SHOWN.get(row['noise'], row['noise'])}, {row['learning_rate']}",
                "column": _temperature_column(row),
            }
            for row in table
        ]
        plain = [row for row in rows if row["weighting"] == "uniform"]
        lines += ["", f"## {name}: temperatures; noise, learning rate", "", "Test accuracy:", ""]
        accuracy = plain + [r for r in rows if r["figure"] == "accuracy" and r not in plain]
        lines += pivot(accuracy, "setting", "column", "value", kind="sd")
        for figure in dict.fromkeys(row["figure"] for row in rows if row["figure"] != "accuracy"):
            chosen = [row for row in rows if row["figure"] == figure]
            lines += ["", f"{figure}, Grad-Mimic:", ""]
            lines += pivot(chosen, "setting", "temperature", "value", kind="sd")
    return lines


def _temperature_column(row: Found) -> str:
    weighting: str = row["weighting"]
    shown = SHOWN.get(weighting, weighting)
    return shown if weighting == "uniform" else f"{shown}, {row['temperature']}"


def retention_tables(found: Mapping[str, Sequence[Found]]) -> list[str]:
    """Kept shares by backbone, for each way to vote."""
    rows = [
        {
            "backbone": f"{name}, {row['backbone']} ({row['accuracy']['scored']:.2f})",
            "r": row["pearson"][one["binarise"]],
            **one,
        }
        for name, table in found.items()
        for row in table
        for one in row["retained"]
    ]
    lines = ["", "## Kept share by noise and backbone (accuracy on the scored part)"]
    for vote in dict.fromkeys(row["binarise"] for row in rows):
        chosen = [row for row in rows if row["binarise"] == vote]
        lines += ["", f"{vote}, majority:", ""]
        lines += pivot(chosen, "backbone", "noise", "share", kind="sd")
    return lines


def networks_tables(found: Mapping[str, Sequence[Found]]) -> list[str]:
    """Whole networks: every way to train, and what each reference's head reads."""
    lines = ["", "## Accuracy of each reference's head on features", ""]
    lines += pivot(found["reading"], "reference", "figure", "value", kind="mean")
    keys = dict.fromkeys((row["noise"], row["start"]) for row in found["trainings"])
    for noise, start in keys:
        rows = [r for r in found["trainings"] if (r["noise"], r["start"]) == (noise, start)]
        shown = "" if start == "–" else f", {start}"
        lines += ["", f"Whole networks, noise {SHOWN.get(noise, noise)}{shown}:", ""]
        lines += pivot(rows, "way", "figure", "value", kind="sd")
    return lines


def photographs_tables(found: Sequence[Found]) -> list[str]:
    """Swapped captions of photographs."""
    lines = ["", "## Photographs: swapped captions, mean ± standard deviation", ""]
    return lines + pivot(found, "figure", "noise", "value", kind="sd")


PARTS: dict[str, Callable[[Any], list[str]]] = {
    "members": members_tables,
    "temperatures": temperatures_tables,
    "retention": retention_tables,
    "networks": networks_tables,
    "photographs": photographs_tables,
}


def pairs_tables(part: str, tables: Found) -> list[str]:
    """Of the demo pool."""
    pool = tables["pool"]
    lines = ["", f"## {part}: {pool['samples']:,}, {pool['held_out']} of them held out", ""]
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
    head = [down, *(SHOWN.get(column, column) for column in columns)]
    lines = [_line(head), _line(["---"] * len(head))]
    for name in dict.fromkeys(name for name, _ in cells):
        shown = SHOWN.get(name, name)
        shown += f" ({rates[name]:.2f})" if rates and not name[0].isdigit() else ""
        lines.append(_line([shown, *(cells.get((name, column), "–") for column in columns)]))
    return lines


def _cell(found: Found, kind: str) -> str:
    extra = None if kind == "mean" else found[kind]
    return f"{found['mean']:.3f}" + ("" if extra is None else f" ± {extra:.3f}")


def _aggregations(tables: Found) -> list[str]:
    """F1 by binarisation and aggregation, over the rates of injected noise."""
    sums: dict[tuple[str, str], list[float]] = {}
    for row in tables["detection"]:
        if row["noise"][0].isdigit() and not row["binarise"].startswith(FAR):
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
