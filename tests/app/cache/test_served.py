"""What the browser fetches by itself: addresses that only a page can give, kept within bounds."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from app.cache import served
from app.cache.served import SERVED, Body, Served
from app.serve import served as endpoint
from mimic_core.base.schema import SKIP_REASONS, Locator
from tests.core.sources_pools import image_bytes, write_files


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=[Route(served.ROUTE, endpoint)]))


def text(data: bytes) -> Body:
    return Body(data, "text/plain")


def test_a_picture_is_fetched_at_its_size_and_kept_by_the_browser(
    client: TestClient, tmp_path: Path
) -> None:
    write_files(tmp_path, {"a.png": image_bytes()})
    address = served.picture_address(tmp_path, Locator("range", "a.png"), side=16)
    answer = client.get(address)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/webp"
    assert "max-age=3600" in answer.headers["cache-control"]
    assert max(Image.open(io.BytesIO(answer.content)).size) <= 16
    again = client.get(address, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_what_cannot_be_shown_says_why(client: TestClient, tmp_path: Path) -> None:
    address = served.picture_address(tmp_path, Locator("range", "gone.png"), side=16)
    answer = client.get(address)
    assert (answer.status_code, answer.text) == (404, SKIP_REASONS["missing_image"])
    assert answer.headers["cache-control"] == "no-store"


def test_nobody_can_ask_for_what_no_page_has_shown(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(image_bytes())
    for name in ("0" * 32, "..%2f..%2fsecret.png", "secret.png"):
        assert client.get(f"/served/{name}").status_code == 404


def test_the_same_picture_has_the_same_address_and_a_changed_one_another(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.png": image_bytes()})
    locator = Locator("range", "a.png")
    one = served.picture_address(tmp_path, locator, side=16)
    assert served.picture_address(tmp_path, locator, side=16) == one
    assert served.picture_address(tmp_path, locator, side=17) != one
    (tmp_path / "a.png").write_bytes(image_bytes(size=(9, 9)))
    assert served.picture_address(tmp_path, locator, side=16) != one


def test_what_is_kept_is_bounded_and_made_again_when_asked_for() -> None:
    shelf = Served(kept_bytes=10, kept_names=3)
    made: list[str] = []

    def maker(name: str) -> Any:
        return lambda: (made.append(name), text(name.encode() * 4))[1]

    names = [shelf.add(letter, maker(letter)) for letter in "abcd"]
    assert shelf.body(names[0]) is None  # the fourth name took the place of the first
    for name in (*names[1:], names[3], names[1]):
        body = shelf.body(name)
        assert body is not None
    assert made == ["b", "c", "d", "b"]  # two bodies of four bytes fit into ten


def test_what_is_prepared_is_there_before_it_is_asked_for() -> None:
    shelf, made = Served(), []
    name = shelf.add("x", lambda: (made.append(1), text(b"x"))[1])
    shelf.prepare([name])
    shelf.ahead.shutdown(wait=True)
    assert shelf.body(name) == text(b"x")
    assert made == [1]


def test_a_packed_body_is_unpacked_by_the_browser(client: TestClient) -> None:
    packed = Body(gzip.compress(b"counts"), "application/octet-stream", encoding="gzip")
    address = served.address_of(SERVED.add("packed", lambda: packed))
    assert client.get(address).content == b"counts"
