"""Opens pages in a real Chromium, for tests of what people look at.

    with chromium() as browser, Page(browser, width=1280, scheme="dark") as page:
        page.open(path_or_url)
        page.tab.get_by_role("button", name="Pause").click()   # page.tab is playwright's page
        page.shot("report-dark")                               # target/browser/report-dark.png
        page.complain()                                        # raises where the console or the network said something

Runs in `.deps/browser/bin/python` (deploy/setup/chromium.sh makes it, `make browser`). Run as a program it checks that
the browser can be driven. Rust tests start their scripts by `ablate_tests::browser`.
"""

import contextlib
import os
import pathlib
import sys
import urllib.parse

from playwright.sync_api import sync_playwright

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHOTS = ROOT / "target" / "browser"


def program():
    """The browser: $ABLATE_CHROMIUM, else what chromium.sh has found."""
    return os.environ.get("ABLATE_CHROMIUM") or str(ROOT / ".deps" / "browser" / "chromium")


@contextlib.contextmanager
def chromium():
    """A headless Chromium, closed at the end."""
    # As root there is no sandbox; /dev/shm is small in containers.
    args = ["--disable-dev-shm-usage"] + (["--no-sandbox"] if os.geteuid() == 0 else [])
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=program(), args=args)
        try:
            yield browser
        finally:
            browser.close()


class Page:
    """A page of its own, which keeps what its console says (`said`) and every request to anything but the file itself or `own` (`asked`)."""

    def __init__(self, browser, width=1280, height=900, scheme="light", script=True, scale=1, own=None):
        self.said, self.asked, self.own = [], [], own
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            java_script_enabled=script,
            device_scale_factor=scale,
            accept_downloads=True,
        )
        self.tab = self.context.new_page()
        self.tab.set_default_timeout(60_000)
        self.tab.on("console", lambda m: m.type in ("error", "warning") and self.said.append(f"{m.type}: {m.text}"))
        self.tab.on("pageerror", lambda e: self.said.append(f"uncaught: {e}"))
        self.tab.on("request", self._asked)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()

    def _asked(self, request):
        url = urllib.parse.urlsplit(request.url)
        inside = url.scheme in ("data", "blob") or (self.own and request.url.startswith(self.own))
        if not inside:
            self.asked.append(request.url)

    def open(self, where, wait="load"):
        """Opens a file (a path) or an address; everything below the address's origin, or the file, is the page's own."""
        text = str(where)
        url = text if "://" in text else pathlib.Path(text).resolve().as_uri()
        if self.own is None:
            parts = urllib.parse.urlsplit(url)
            self.own = url if parts.scheme == "file" else f"{parts.scheme}://{parts.netloc}/"
        self.tab.goto(url, wait_until=wait)
        return self

    def media(self, **features):
        """`media="print"`, `color_scheme="dark"`, `reduced_motion="reduce"`."""
        self.tab.emulate_media(**features)
        return self

    def shot(self, name, whole=True, of=None):
        """A screenshot in target/browser/, of the whole page or of one element (a selector)."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = str(SHOTS / f"{name}.png")
        if of is None:
            self.tab.screenshot(path=path, full_page=whole, timeout=120_000)
        else:
            self.tab.locator(of).first.screenshot(path=path)
        return path

    def pdf(self, name):
        """The page as it prints, in target/browser/."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = str(SHOTS / f"{name}.pdf")
        self.tab.pdf(path=path, prefer_css_page_size=True)
        return path

    def complain(self):
        """Raises where the console said something or the network was asked."""
        if self.said or self.asked:
            raise AssertionError(f"console: {self.said}; requests: {self.asked}")


def check():
    with chromium() as browser, Page(browser, scheme="dark") as page:
        page.tab.goto("data:text/html,<title>seen</title><p style='color:red'>text")
        assert page.tab.title() == "seen"
        page.complain()
        print(f"browser: {browser.version}")


if __name__ == "__main__":
    sys.exit(check())
