"""Foreign text in a real browser: streamlit looks for icons and links behind its markdown too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.state.address import pack
from mimic_core.runs.run import Run
from tests.browser.conftest import serving
from tests.browser.steps import settle
from tests.fakes import fake_run
from tests.hostile.foreign import foreign_recipe, foreign_run
from tests.places import ROOT

pytestmark = pytest.mark.browser

PAGES = [path.stem for path in sorted((ROOT / "app" / "views").glob("[!_]*.py"))]
UNREAD = "3 x .heic, 1 x *bold* :material/home: notes"


@pytest.fixture(scope="module")
def served(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Run]]:
    """A run of foreign text, of a pool that was not read as a whole, and the server's address."""
    del browser
    folder = tmp_path_factory.mktemp("foreign")
    run = foreign_run(fake_run(folder / "made", n=40, images=False), folder / "runs")
    run = run.update(reading=f"read as folder: images, 40 samples, not read: {UNREAD}")
    with serving(run.path.parent) as url:
        yield url, run


def test_names_and_captions_are_never_markup(page: Any, served: tuple[str, Run]) -> None:
    url, run = served
    for name in ("", "filters", "export"):
        page.goto(f"{url}/{name}?run={run.id}&select={pack(foreign_recipe())}")
        page.get_by_text("material/home", exact=False).first.wait_for()
        page.get_by_text("Kept", exact=True).first.wait_for()
        assert page.locator(".katex").count() == 0
        assert page.locator('a[href*="e.example"]').count() == 0
        assert (
            page.locator("b, strong, code", has_text="b").get_by_text("b", exact=True).count() == 0
        )
        icons = page.locator('[data-testid="stIconMaterial"]').all_inner_texts()
        assert "home" not in icons


def test_every_page_says_what_of_the_pool_was_not_read(page: Any, served: tuple[str, Run]) -> None:
    """One tab walks over all pages by the links of the sidebar."""
    url, run = served
    page.goto(f"{url}/?run={run.id}")
    bar = page.locator('[data-testid="stSidebar"]')
    links = page.locator('[data-testid="stSidebarNavLink"]')
    links.first.wait_for()
    seen = []
    for place in range(links.count()):
        links.nth(place).click()
        settle(page, asks=place > 0)
        said = bar.get_by_text("Not read of the pool:")
        said.wait_for()
        # A word joiner, which nobody sees, keeps the name of an icon from being one.
        text = said.inner_text().replace("\u2060", "").strip()
        assert text == f"Not read of the pool: {UNREAD}"
        assert said.is_visible()
        seen.append(page.url.partition("?")[0].removeprefix(f"{url}/") or "explore")
    assert sorted(seen) == PAGES
