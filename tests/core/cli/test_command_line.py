"""The command line around its commands: what it passes on to the app, and errors from below."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mimic_core.__main__ import main
from mimic_core.jobs.processes import environment
from mimic_core.sources.path import ACCEPTED

SCORE = ["score", "--reference", "ViT-B-32:random:0"]


def addresses(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[str]:
    """The addresses that the command ``app`` tells streamlit to listen on."""
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda _program, command, _settings: started.append(command))
    assert main(["app", *arguments]) == 0
    (command,) = started
    return [one.partition("=")[2] for one in command if one.startswith("--server.address=")]


def test_the_app_listens_on_this_machine_alone_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert addresses(monkeypatch) == ["127.0.0.1"]
    assert addresses(monkeypatch, "--host", "0.0.0.0") == ["0.0.0.0"]  # noqa: S104


def test_the_help_says_that_without_sign_in_anybody_may_come(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["app", "--help"]) == 0
    assert "Without sign-in" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_an_unknown_home_folder_is_an_error_without_a_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = ["--out", str(tmp_path / "runs")]
    assert main([*SCORE, "~nobody-at-all/pool", *runs]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: a path begins with ~ and a name without home folder")
    assert "next step: check the name" in said
    assert "Traceback" not in said


def test_other_runtime_errors_stay_defects(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(os, "execve", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        main(["app"])


def test_a_place_that_the_file_system_refuses_is_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert main(["score", "x" * 300, "--reference", "r", "--out", str(tmp_path)]) == 1
    assert "File name too long" in capsys.readouterr().err


@pytest.mark.parametrize("command", [SCORE, ["train", "--model", "m", "--reference", "r"]])
def test_a_wrong_path_is_said_before_torch_is_loaded(command: list[str], tmp_path: Path) -> None:
    script = f"""
import sys
from mimic_core.__main__ import main
from mimic_core.jobs.processes import environment
from mimic_core.sources.path import ACCEPTED
assert main([*{command!r}, "no/such/pool"]) == 1
print([name for name in ("torch", "polars", "pyarrow") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert done.stderr == (
        "error: there is no such file or folder\n"
        "  got: 'no/such/pool'\n"
        f"  allowed: {ACCEPTED}\n"
        "  next step: check the path\n"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [SCORE, ["train", "--model", "m", "--reference", "r"]])
def test_a_folder_that_is_no_pool_is_refused_before_torch_is_loaded(
    command: list[str], tmp_path: Path
) -> None:
    script = f"""
import sys
from mimic_core.__main__ import main
from mimic_core.jobs.processes import environment
assert main([*{command!r}, "."]) == 1
print([name for name in ("torch", "torchvision", "open_clip") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert "error: the folder is of no known layout" in done.stderr
