"""Pages in a real browser: how the tests open, measure and check them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

EXECUTABLE = shutil.which("chromium") or shutil.which("google-chrome")
DESK, PHONE = 1440, 390
"""Widths of a window, pixels."""


@contextmanager
def started_browser() -> Iterator[Browser]:
    """Start a browser without a window; skips the test where there is none."""
    if EXECUTABLE is None:
        pytest.skip("no Chromium (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def page_opener(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Yield a function that opens an address, or a file, in a window of its own.

    The function takes `width`, pixels, and `scheme`, `light` or `dark`. In the end it is checked
    that no page has written an error to the console, and that none has asked for anything but files
    and addresses of this machine.
    """
    contexts, complaints = [], []

    def open_page(address: Path | str, *, width: int = DESK, scheme: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            bypass_csp=True,  # the checks are scripts, which a page may forbid
        )
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: check_address(request.url))
        page.on("console", lambda message: check_message(message.type, message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address.absolute().as_uri() if isinstance(address, Path) else address)
        return page

    def check_address(address: str) -> None:
        if not address.startswith(("file:", "data:", "blob:", "http://127.0.0.1:")):
            complaints.append(f"asked for {address}")

    def check_message(kind: str, text: str) -> None:
        if kind == "error":
            complaints.append(text)

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def accessibility_violations(page: Page, impact: str = "minor") -> list[str]:
    """Return what axe-core finds wrong with a page: rule, reason, and the elements.

    Args:
        page: the page.
        impact: minor, moderate, serious or critical: the least of what is returned.
    """
    from axe_playwright_python.sync_playwright import Axe

    impacts = ["minor", "moderate", "serious", "critical"]
    # Without `preload`, which would ask for style sheets in a way that files do not allow.
    found: list[dict[str, Any]] = Axe().run(page, options={"preload": False}).response["violations"]
    return [
        f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes'][:5]]}"
        for each in found
        if impacts.index(each["impact"]) >= impacts.index(impact)
    ]


def overflow(page: Page) -> int:
    """Return by how many pixels a page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")
