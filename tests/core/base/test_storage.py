"""Requests to object storage: asked again for what may pass, refused in words for what will not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mimic_core.base import storage
from mimic_core.base.errors import ConfigError, RemoteError

URL = "s3://bucket/a.tar"


class NoCredentialsError(Exception):
    """Named as botocore's."""


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(storage, "_PAUSE", found.append)
    return found


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [times]

    def ask() -> str:
        if left[0]:
            left[0] -= 1
            raise error
        return "answer"

    return ask


def test_what_passes_is_asked_again_after_longer_and_longer_pauses(pauses: list[float]) -> None:
    assert storage.tried(failing(3, TimeoutError("slow")), URL) == "answer"
    assert len(pauses) == 3
    assert 0 < pauses[0] <= storage.FIRST_PAUSE < pauses[2] <= storage.LONGEST_PAUSE


def test_what_does_not_pass_ends_in_words(pauses: list[float]) -> None:
    with pytest.raises(RemoteError, match=r"does not answer \(the server is gone\)") as caught:
        storage.tried(failing(99, ConnectionError("the server\nis gone")), URL)
    assert f"tried {storage.ATTEMPTS} times" in str(caught.value)
    assert len(pauses) == storage.ATTEMPTS - 1


@pytest.mark.parametrize(
    "error", [PermissionError("403"), NoCredentialsError("403"), ImportError("403")]
)
def test_what_is_refused_is_asked_once(pauses: list[float], error: Exception) -> None:
    with pytest.raises(RemoteError, match=r"access to object storage is refused \(403\)"):
        storage.tried(failing(99, error), URL)
    assert pauses == []


def test_what_is_not_there_is_gone(pauses: list[float]) -> None:
    with pytest.raises(storage.Gone):
        storage.tried(failing(1, FileNotFoundError("no such key")), URL)
    assert pauses == []


def test_a_scheme_without_its_package_says_which_it_needs() -> None:
    with pytest.raises(ConfigError, match="needs a package that is not installed") as caught:
        storage.filesystem("nonsense")
    assert "extras s3, gs, az and hf" in str(caught.value)


def test_waiting_is_bounded_over_https() -> None:
    found = storage.filesystem("https")
    assert found.client_kwargs["timeout"].sock_read > 0
