"""Feeds one parser with inputs that reach new code, by atheris, and writes down what breaks it.

    python -m tests.hostile.fuzz tar --seconds 600

Each input must end in rows or in a ``MimicError``, within ``SECONDS`` and ``MEMORY``, and its
oracle must agree (``parsers.py``). What does not is a finding: the input and the way to it are
written to the folder of findings, one for each place in the code, and the search goes on; a crash
of a library ends the process that reads, and another one goes on from what it has learned.

atheris is no requirement of Mimicscope (``pip install atheris``; Linux, and not the newest Python):
only this module asks for it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path

SECONDS = 10.0  # for one input of at most MAX_LENGTH bytes
MEMORY = 2 << 30  # bytes above what is held at the start
MAX_LENGTH = 16 << 10
NAMES = (
    *("tar", "packed", "zip", "csv", "tsv", "cells", "jsonl", "json", "document"),
    *("mds", "arrow", "lance", "pattern", "parquet", "image", "recipe", "manifest"),
)  # of parsers.PARSERS, which is imported only where atheris can watch it
CRASHES = 20  # of the process that reads, after which the search is given up
ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Fuzz one parser; 0 where nothing was found, 1 where something was, 2 without atheris."""
    options = _options().parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        print(
            "error: atheris is not installed\n"
            "next step: pip install atheris (it is built for Linux and for Python up to 3.13); the "
            "hostile suite itself needs no atheris: python -m pytest tests/hostile",
            file=sys.stderr,
        )
        return 2
    if options.reads:
        _fuzz(options)
        return 0
    return _drive(options)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=__doc__)
    parser.add_argument("parser", choices=NAMES)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("fuzz"), help="of corpus and findings")
    parser.add_argument("--reads", action="store_true", help=argparse.SUPPRESS)
    return parser


def _drive(options: argparse.Namespace) -> int:
    """Keep a process reading until the time is over; say what was tried and found."""
    folder = options.folder.resolve() / options.parser
    for name in ("corpus", "findings"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    start, tried, crashes = time.monotonic(), 0, 0
    while (left := options.seconds - (time.monotonic() - start)) > 1 and crashes < CRASHES:
        command = [sys.executable, "-m", "tests.hostile.fuzz", options.parser, "--reads"]
        command += ["--seconds", str(max(1, int(left))), "--folder", str(folder)]
        command += ["--seed", str(options.seed + crashes)]
        with (folder / "log.txt").open("w+b") as log:
            # Arrow's own pools hold memory that nobody has asked for.
            own = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
            done = subprocess.run(command, cwd=ROOT, env=own, stdout=log, stderr=log, check=False)
            log.seek(0)
            said = log.read().decode(errors="replace")
        executed = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said)
        counts = executed or re.findall(r"^#(\d+)\s", said, re.MULTILINE)
        tried += int(counts[-1]) if counts else 0
        if done.returncode:
            crashes += 1
            (folder / "findings" / f"crash-{time.time_ns()}.txt").write_text(said[-20_000:])
    found = sorted((folder / "findings").glob("*.txt"))
    corpus = sum(1 for _ in (folder / "corpus").iterdir())
    print(
        f"{options.parser}: {time.monotonic() - start:.0f} s, {tried:,} inputs, {corpus:,} kept "
        f"for what they reach, {len(found)} findings"
    )
    for path in found:
        print(f"  {path}: {path.read_text().rstrip().splitlines()[-1][:200]}")
    return 1 if found else 0


def _fuzz(options: argparse.Namespace) -> None:
    """Read inputs until the time is over; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["mimic_core"]):
        from tests.hostile.parsers import PARSERS, try_one, workplace

    parser, folder = PARSERS[options.parser], options.folder
    for seed in parser.seeds():
        (folder / "corpus" / hashlib.sha1(seed).hexdigest()).write_bytes(seed)  # noqa: S324 - a name
    words = folder / "words.txt"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in parser.words))
    with workplace() as place:
        count = 0

        def one(data: bytes) -> None:
            nonlocal count
            count += 1
            start = time.monotonic()
            try:
                try_one(parser, data, place / str(count))
                if time.monotonic() - start > SECONDS:
                    raise TimeoutError("it was too slow")
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - a panic is no Exception
                note(folder / "findings", data, error)

        def change(data: bytes, most: int, seed: int) -> bytes:
            changed = atheris.Mutate(data, most)
            return parser.mend(changed)[:most] if seed % 4 else changed

        arguments = [
            sys.argv[0],
            str(folder / "corpus"),
            f"-max_total_time={options.seconds}",
            f"-seed={options.seed}",
            f"-max_len={MAX_LENGTH}",
            f"-timeout={int(6 * SECONDS)}",
            "-rss_limit_mb=6000",
            f"-artifact_prefix={folder / 'findings'}/",
            *([f"-dict={words}"] if parser.words else []),
            "-print_final_stats=1",
        ]
        atheris.Setup(arguments, one, custom_mutator=change)
        one(b"")  # whatever is imported late is held by now
        _bound_memory()
        atheris.Fuzz()


def _bound_memory() -> None:
    held = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert held is not None
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, ((int(held[1]) << 10) + MEMORY, hard))


def note(findings: Path, data: bytes, error: BaseException) -> None:
    """Write a finding down, unless there is one of the same kind from the same place."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "mimic_core" in frame.filename] or frames
    place = f"{Path(ours[-1].filename).stem}-{ours[-1].lineno}-{type(error).__name__}"
    path = findings / f"{place}.txt"
    if not path.exists():
        path.with_suffix(".input").write_bytes(data)
        path.write_text("".join(traceback.format_exception(error)), errors="replace")


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    sys.exit(main())
