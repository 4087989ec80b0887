"""A real Chromium, and the page in it: what it logs, what it asks for, and what it must not do."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

#: Debian's package ``chromium``.
CHROMIUM = "/usr/bin/chromium"
#: It asks for nothing but what a test does.
_QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
)  # fmt: skip
PATIENCE_MS = 15_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, with a new profile."""
    assert shutil.which(CHROMIUM), "Debian's chromium is needed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_QUIET)
        yield browser
        browser.close()


class Visit:
    """One reader's pages, with what went wrong in them. ``done`` holds that nothing did."""

    def __init__(self, browser: Browser, url: str, **more: Any) -> None:
        more = {"viewport": {"width": 1280, "height": 800}, "timezone_id": "Europe/Berlin", **more}
        self.context: BrowserContext = browser.new_context(accept_downloads=True, **more)
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.add_init_script(_NOTE_VIOLATIONS)
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.context.on("page", self._watch)
        self.url = url
        self.asked: list[str] = []
        self.said: list[str] = []
        self.page: Page = self.context.new_page()

    def _watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("console", lambda message: self._hear(message.type, message.text))

    def _hear(self, kind: str, text: str) -> None:
        # An answer that is an error is logged by the browser, whatever the page does of it.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.said.append(f"{kind}: {text}")

    def open(self, path: str = "/") -> Page:
        """The page, once it has shown what it found, or why it found nothing."""
        self.page.goto(self.url + path)
        self.settled()
        return self.page

    def settled(self) -> None:
        """Wait for the end of the search that runs."""
        self.page.locator("#river[aria-busy=false]").wait_for(state="attached")

    @property
    def state(self) -> dict[str, str]:
        """What is in the URL."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.page.url).query).items()}

    def done(self) -> None:
        """End the visit. Nothing was logged as an error, no policy was violated, nobody else was asked."""
        self.context.close()
        elsewhere = [url for url in self.asked if not url.startswith((self.url, "data:", "blob:"))]
        assert (self.said, elsewhere) == ([], [])


def until(page: Page, expression: str) -> None:
    """Wait for ``expression`` to be true. Playwright's own way is an eval in the page, which its policy forbids."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"it did not come to pass: {expression}"
        page.wait_for_timeout(20)


_NOTE_VIOLATIONS = """
addEventListener('securitypolicyviolation', (event) =>
    console.error('violation', event.violatedDirective, event.blockedURI));
"""
