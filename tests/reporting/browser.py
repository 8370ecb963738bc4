"""Debian's Chromium, driven by Playwright. Tests of pages are skipped where it is not installed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Without these, it asks hosts of its maker at every start.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or find_spec("playwright") is None, reason="needs chromium and playwright: apt install chromium"
)


@contextmanager
def chromium() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def opened(browser, address: str, **settings) -> Iterator:
    """Open a page. The test fails if a script of the page fails, or if the page asks for anything from outside."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
    page, problems = context.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if _is_outside(request.url) else None)
    page.goto(address)
    yield page
    context.close()
    assert problems == []


def _is_outside(address: str) -> bool:
    return not address.startswith(("file://", "data:", "http://127.0.0.1:", "http://localhost:"))
