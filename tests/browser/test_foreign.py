"""Foreign text in a real browser: streamlit looks for icons and links behind its markdown too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.state.address import pack
from tests.browser.conftest import serving
from tests.fakes import fake_run
from tests.hostile.foreign import foreign_recipe, foreign_run

pytestmark = pytest.mark.browser


def test_names_and_captions_are_never_markup(page: Any, tmp_path: Path) -> None:
    made = fake_run(tmp_path / "made", n=40, images=False)
    run = foreign_run(made, tmp_path / "runs")
    with serving(run.path.parent) as url:
        for name in ("", "filters", "export"):
            page.goto(f"{url}/{name}?run={run.id}&select={pack(foreign_recipe())}")
            page.get_by_text("material/home", exact=False).first.wait_for()
            page.get_by_text("Kept", exact=True).first.wait_for()
            assert page.locator(".katex").count() == 0
            assert page.locator('a[href*="e.example"]').count() == 0
            assert (
                page.locator("b, strong, code", has_text="b").get_by_text("b", exact=True).count()
                == 0
            )
            icons = page.locator('[data-testid="stIconMaterial"]').all_inner_texts()
            assert "home" not in icons
