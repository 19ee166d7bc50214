"""Watches a live run in the dashboard, as a person does: dashboard.py URL WORKER_PID TOKEN

The experiment "watched" is paused; there are two workers. It is resumed by keyboard, and one of them is killed while
watched."""

import os
import re
import signal
import sys

from page import Page, chromium

URL, WORKER, TOKEN = sys.argv[1], int(sys.argv[2]), sys.argv[3]
LONG = 400_000

# How many colours a canvas shows: an empty figure has few.
COLOURS = """canvas => {
  const d = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data, seen = new Set();
  for (let i = 0; i < d.length; i += 4) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);
  return seen.size; }"""


def number(text, pattern):
    found = re.search(pattern, text.replace("\u202f", ""))
    assert found, f"no {pattern!r} in {text!r}"
    return [int(g) for g in found.groups()]


def until(tab, what, test):
    """Waits for a test in Python: the page's own policy allows none in the page."""
    for _ in range(LONG // 100):
        if test():
            return
        tab.wait_for_timeout(100)
    raise AssertionError(f"it took too long: {what}")


def some(tab, section):
    """Whether some of what a section counts is known."""
    return re.search(r"[1-9]\d* of", note(tab, section)) is not None


def note(tab, section):
    return tab.get_by_role("region", name=section).locator(".note").first.inner_text()


def fits(page):
    wide = page.tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], f"it scrolls sideways: {wide}"


def accepted(tab):
    return number(tab.locator(".numbers div").nth(2).locator("dd").inner_text(), r"^(\d+) of")[0]


def by_keyboard(page):
    """From the list to the experiment, and to pause and resume, without a mouse."""
    tab = page.open(URL).tab
    card = tab.get_by_role("link", name=re.compile("watched"))
    card.wait_for()
    tab.locator(".worker").nth(1).wait_for()
    page.shot("dashboard-list")
    for _ in range(12):
        tab.keyboard.press("Tab")
        if card.evaluate("e => e === document.activeElement"):
            break
    tab.keyboard.press("Enter")
    tab.get_by_role("heading", name="watched").wait_for()
    tab.locator(".progress .chip.paused").wait_for()

    # The first P asks for a token, and a wrong one is refused.
    tab.keyboard.press("p")
    field = tab.get_by_label("Token", exact=True)
    field.wait_for()
    tab.keyboard.type("ablate_00000000_" + "0" * 64)
    with tab.expect_response("**/whoami"):
        tab.keyboard.press("Enter")
    tab.locator("#token-wrong", has_text=re.compile(".")).wait_for()
    # The browser itself reports the refusal.
    page.said = [s for s in page.said if "401" not in s]
    tab.keyboard.press("ControlOrMeta+a")
    tab.keyboard.type(TOKEN)
    tab.keyboard.press("Enter")
    tab.locator(".progress .chip.running").wait_for()
    until(tab, "heads", lambda: some(tab, "Units alone"))
    state = tab.locator(".progress .chip")
    tab.keyboard.press("p")
    tab.locator(".progress .chip.paused").wait_for()
    # What was leased before the pause still comes in.
    def still():
        was = accepted(tab)
        tab.wait_for_timeout(2500)
        return accepted(tab) == was

    until(tab, "a pause", still)
    assert "paused" in state.inner_text()
    assert TOKEN not in tab.content() and TOKEN not in tab.url
    page.shot("dashboard-paused")
    tab.keyboard.press("p")
    tab.locator(".progress .chip.running").wait_for()


def watch(page):
    tab = page.tab
    until(tab, "pairs", lambda: some(tab, "Pairs"))
    before = accepted(tab)
    os.kill(WORKER, signal.SIGKILL)
    gone = tab.locator(".worker.gone")
    gone.wait_for(timeout=LONG)
    assert "vanished" in gone.inner_text()
    until(tab, "the rest goes on", lambda: accepted(tab) > before)
    page.shot("dashboard-light-live")


def figures(page):
    """Heat map and matrix are there, and are read by keyboard."""
    tab = page.tab
    heat, matrix = tab.locator(".heat .plate canvas"), tab.locator(".matrix .plate canvas")
    assert heat.evaluate(COLOURS) > 20 and matrix.evaluate(COLOURS) > 20
    heat.focus()
    tab.keyboard.press("Home")
    first = tab.locator(".heat .readout").inner_text()
    tab.keyboard.press("ArrowRight")
    second = tab.locator(".heat .readout").inner_text()
    assert first.startswith("L0.H0: \u0394") and second.startswith("L1.H0: \u0394"), (first, second)
    matrix.focus()
    tab.keyboard.press("End")
    said = tab.locator(".matrix .readout").inner_text()
    assert "L5.H10 + L5.H11: interaction" in said, said
    curve = tab.locator(".curve svg")
    curve.focus()
    tab.keyboard.press("End")
    assert "heads gone: " in tab.locator(".curve .readout").inner_text()


def finished(page):
    tab = page.tab
    tab.locator(".progress .chip.done").wait_for(timeout=LONG)
    until(tab, "curves", lambda: tab.locator(".curve .order").count() >= 2 and tab.locator(".curve .random").count() >= 20)
    until(tab, "all pairs", lambda: number(note(tab, "Pairs"), r"(\d+) of (\d+) pairs") == [2556, 2556])
    assert number(note(tab, "Units alone"), r"(\d+) of (\d+) measured") == [72, 72]
    warned = tab.get_by_role("region", name="Units alone").locator(".warn").inner_text()
    assert "intervals may be too narrow" in warned, warned
    # Nothing that isn't tested yet is called by what a test would say.
    pairs = tab.get_by_role("region", name="Pairs").inner_text()
    told = ["Largest positive so far", "Largest negative so far", "Not tested yet; the report tests them."]
    assert all(t in pairs for t in told) and "redundant" not in pairs.lower(), pairs
    assert tab.locator(".share").inner_text().startswith("100")
    figures(page)
    tab.locator(".brand").click()
    tab.get_by_role("link", name=re.compile("watched")).click()
    tab.locator(".curve .order").first.wait_for()
    tab.wait_for_timeout(1000)
    page.shot("dashboard-light")
    # The report opens, in a place of its own that can't reach this site.
    with tab.context.expect_page() as opened:
        tab.get_by_role("link", name="Open the report").click()
    report = opened.value
    report.wait_for_load_state()
    assert "watched" in report.locator("h1").inner_text()
    assert report.evaluate("origin") == "null"
    report.close()


def main():
    with chromium() as browser:
        with Page(browser, width=1280, height=900) as page, Page(browser, width=390, height=844, scheme="dark", scale=2) as phone:
            by_keyboard(page)
            phone.open(f"{URL}/#/watched")
            phone.tab.get_by_role("heading", name="watched").wait_for()
            watch(page)
            phone.tab.locator(".worker.gone").wait_for(timeout=LONG)
            fits(phone)
            phone.shot("dashboard-phone-live")
            finished(page)
            page.complain()
            phone.tab.locator(".progress .chip.done").wait_for(timeout=LONG)
            phone.tab.locator(".curve .order").first.wait_for(timeout=LONG)
            fits(phone)
            phone.shot("dashboard-phone")
            phone.tab.goto(URL + "/#/")
            phone.tab.get_by_role("link", name=re.compile("watched")).wait_for()
            fits(phone)
            phone.complain()
        with Page(browser, width=1280, height=900, scheme="dark") as dark:
            dark.open(f"{URL}/#/watched").tab.locator(".curve .order").first.wait_for()
            dark.tab.locator(".heat .plate canvas").wait_for()
            dark.tab.wait_for_timeout(700)
            fits(dark)
            dark.shot("dashboard-dark")
            dark.complain()
    print("watched")


if __name__ == "__main__":
    sys.exit(main())
