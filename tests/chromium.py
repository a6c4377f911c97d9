"""A real Chromium without a window: pages as a person would see them."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
HEIGHT = 900


def find_chromium() -> str:
    """Path of the browser. Skips the test where none is installed, and fails it in CI."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        words = "no Chromium is installed: on Debian, apt-get install chromium fonts-dejavu"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    return found


def start_chromium() -> Iterator[Browser]:
    """A browser that is closed at the end."""
    path = find_chromium()
    with sync_playwright() as playwright:
        # Its own sandbox needs rights that containers lack; the pages are those that the tests write.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, address: str, *, width: int = 1280, dark: bool = False) -> Iterator[Page]:
    """A page at an address, its window `width` pixels wide; errors of its scripts fail the test when it is closed."""
    page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme="dark" if dark else "light")
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    try:
        yield page
    finally:
        page.close()
    assert errors == []


def overflow(page: Page) -> int:
    """Pixels by which a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))
