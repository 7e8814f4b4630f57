"""What a person does on the Filters page, as functions of a playwright page."""

from __future__ import annotations

from typing import Any

from tests.browser import steps


def open_filters(page: Any, url: str) -> None:
    page.goto(url)
    page.wait_for_selector(".st-key-retention .nsewdrag")
    steps.settle(page)


def click(page: Any, key: str) -> None:
    page.locator(f".st-key-{key} button:visible").first.click()  # a help text doubles the button
    steps.settle(page)


def choose(page: Any, key: str, option: str) -> None:
    page.locator(f".st-key-{key} input").first.click()
    page.get_by_role("option", name=option, exact=True).click()
    steps.settle(page)


def fill(page: Any, key: str, text: str) -> None:
    field = page.locator(f".st-key-{key} input").first
    field.fill(text)
    field.press("Enter")
    steps.settle(page)


def save(page: Any, name: str) -> None:
    click(page, "open_save")
    fill(page, "save_name", name)
    click(page, "save_recipe")
    page.keyboard.press("Escape")
    steps.settle(page)


def build_clip(page: Any) -> None:
    click(page, "add_condition")
    choose(page, "leaf_column", "CLIP score")
    click(page, "edit_add")
