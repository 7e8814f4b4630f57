"""How long the Filters page takes to answer a click, on a pool of a million samples.

    python bench/filters_page.py [--samples 1000000] [--json FILE]

Writes a made-up run (no images, no map) to a temporary folder, opens the page on it without a
browser and times the script runs that follow each click: what a person waits for, less the way to
the browser and back (0.1 to 0.2 s). The first click of a kind also sorts the column it is about.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from repository import ROOT
from streamlit.testing.v1 import AppTest

from tests.fakes import fake_run


def clicks(app: AppTest) -> list[tuple[str, Callable[[], Any]]]:
    """What is clicked, in order."""
    return [
        ("example: CLIP minus mimic", lambda: app.button(key="example-0").click()),
        ("edit a percentile", lambda: app.button(key="leaf-0-drop").click()),
        ("change it", lambda: app.number_input(key="leaf_percent").set_value(20.0)),
        ("change it again", lambda: app.number_input(key="leaf_percent").set_value(25.0)),
        ("percentile in groups", lambda: app.selectbox(key="leaf_by").set_value("topic")),
        ("to a range", lambda: app.button_group(key="leaf_kind").set_value("absolute")),
        ("change the range", lambda: app.number_input(key="leaf_low").set_value(0.01)),
        ("to an ensemble", lambda: app.button_group(key="leaf_kind").set_value("ensemble")),
        ("another binarisation", lambda: app.selectbox(key="leaf_binarise").set_value("gmm")),
        ("label model", lambda: app.selectbox(key="leaf_aggregate").set_value("label_model")),
        ("to a text", lambda: app.button_group(key="leaf_kind").set_value("text")),
        ("type the text", lambda: app.text_input(key="leaf_contains").set_value("dog")),
        ("curve of another column", lambda: app.selectbox(key="filters_curve").set_value("loss")),
        ("show a quadrant", lambda: app.button(key="show-only_b").click()),
        ("undo", lambda: app.button(key="undo").click()),
    ]


def measure(samples: int) -> dict[str, float]:
    """Seconds that the script takes after each click."""
    with tempfile.TemporaryDirectory() as folder:
        fake_run(Path(folder), n=samples, epochs=5, images=False, with_map=False)
        os.environ["MIMICSCOPE_RUNS"] = folder
        app = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=600)
        app.run()
        found = {}
        start = time.perf_counter()
        app.switch_page("views/filters.py").run()
        found["open the page"] = time.perf_counter() - start
        for name, click in clicks(app):
            widget = click()
            start = time.perf_counter()
            widget.run()
            found[name] = time.perf_counter() - start
            assert not app.exception, name
        return found


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options.samples)
    print(f"{options.samples:,} samples, 5 epochs")
    for name, seconds in found.items():
        print(f"  {name:<28} {seconds:6.3f} s")
    if options.json:
        figures = {"samples": options.samples, "seconds": found}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
