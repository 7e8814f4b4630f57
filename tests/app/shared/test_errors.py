"""What goes wrong is a message that says what to do, whoever is to blame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.library import expanded
from mimic_core.base.errors import ConfigError
from mimic_core.runs.run import Run
from tests.app.conftest import DEFECTS, OpenApp


def message(app: AppTest) -> str:
    """The one error on the page, without markdown's escapes."""
    (error,) = app.error
    assert not app.exception
    return str(error.value).replace("\\", "")


def refusing(path: Path, plain: Callable[..., object]) -> Callable[..., object]:
    """``plain`` for all paths but those from ``path`` down, which nobody may read or write."""

    def refuse(self: Path, *args: object, **options: object) -> object:
        if self == path or path in self.parents:
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self, *args, **options)

    return refuse


def open_path(open_app: OpenApp, root: Path, text: str, page: str = "data") -> AppTest:
    app = open_app(root, page)
    app.segmented_control(key="pool_kind").set_value("On this machine").run()
    return app.text_input(key="pool_path").set_value(text).run()


def test_a_pool_without_permission_is_a_message(
    open_app: OpenApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "stat", refusing(Path("/secret"), Path.stat))
    app = open_path(open_app, tmp_path, "/secret/pool")
    said = message(app)
    assert "the path cannot be read" in said.lower()
    assert "Permission denied" in said
    assert "/secret/pool" in said
    assert "Next step: " in said.replace("**", "")
    assert "No ended jobs" in "".join(one.value for one in app.markdown)  # the page goes on


@pytest.mark.parametrize("page", ["data", "train"])
def test_an_unknown_home_folder_is_a_message(open_app: OpenApp, tmp_path: Path, page: str) -> None:
    said = message(open_path(open_app, tmp_path, "~nobody-at-all/pool", page))
    assert "no home folder of that name" in said
    assert "~nobody-at-all/pool" in said
    assert "whole path" in said


def test_the_tilde_alone_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert expanded("~/pool") == Path("/somewhere/pool")
    assert expanded("/a/~b") == Path("/a/~b")
    with pytest.raises(ConfigError, match="whole path"):
        expanded("~nobody-at-all")


@pytest.mark.parametrize("folder", ["file/inside", "~nobody-at-all"])
def test_a_folder_that_cannot_be_written_is_a_message(
    run: Run, open_app: OpenApp, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    app = open_app(run.path.parent, "export")
    app.text_input(key="export_folder").set_value(folder).run()
    app.button(key="export_write").click().run()
    said = message(app)
    assert folder in said
    assert "Next step: " in said.replace("**", "")


def test_a_folder_without_permission_is_a_message(
    run: Run, open_app: OpenApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", refusing(tmp_path / "locked", Path.mkdir))
    app = open_app(run.path.parent, "export")
    app.text_input(key="export_folder").set_value(str(tmp_path / "locked")).run()
    app.button(key="export_write").click().run()
    assert "Permission denied" in message(app)


def test_a_defect_is_called_one_and_its_traceback_is_logged(
    run: Run,
    open_app: OpenApp,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("too <b>thin</b>")

    app = open_app(run.path.parent)
    monkeypatch.setattr("app.components.shared.gallery.tiles_of", fail)
    said = message(app.run())
    assert "defect of Mimicscope: ZeroDivisionError: too <b>thin</b>" in said
    assert "Traceback" not in said
    (logged,) = [one for one in caplog.records if one.name == DEFECTS]
    assert logged.levelname == "ERROR"
    assert logged.exc_info is not None
    caplog.clear()  # this one was meant
