"""Opens a report as a reader does: light, dark, printed, on a phone, by keyboard, without script. Screenshots are left in
target/browser/.

    report.py REPORT.html NAME [KIND...]

NAME begins the names of the screenshots; KINDs are figures that the report must have, by the beginning of their names.
"""

import base64
import csv
import io
import math
import pathlib
import re
import struct
import sys
import xml.etree.ElementTree as ET

from page import Page, chromium


def figures_of(page):
    """Every figure: its name, number of shapes, area, label."""
    return page.tab.evaluate(
        """() => [...document.querySelectorAll('figure')].map(f => { const svg = f.querySelector('.drawing:not([hidden]) svg');
        const box = svg.getBoundingClientRect(); return { name: f.id, shapes: svg.querySelectorAll('rect,circle,path,line,image,text').length,
        area: box.width * box.height, label: svg.getAttribute('aria-label') || '', caption: f.querySelector('figcaption').innerText }; })"""
    )


def tip(page):
    return page.tab.evaluate("() => { const t = document.getElementById('tip'); return t.hidden ? '' : t.textContent; }")


def point(page, figure):
    """Points at the middle of a figure's first mark, or of its matrix; gives what is told. A curve's middle may lie off it: then the
    next mark's."""
    marks = page.tab.locator(f"figure[id='{figure}'] .drawing:not([hidden]) :is([data-tip], .pane)")
    for k in range(min(marks.count(), 12)):
        mark = marks.nth(k)
        mark.scroll_into_view_if_needed()
        box = mark.bounding_box()
        # Of a matrix away from its diagonal.
        x, y = (0.7, 0.3) if "pane" in (mark.get_attribute("class") or "") else (0.5, 0.5)
        page.tab.mouse.move(box["x"] + box["width"] * (x + 0.01), box["y"] + box["height"] * y)
        page.tab.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
        if told := tip(page):
            return told
    return ""


def saved(page, figure, label):
    with page.tab.expect_download() as download:
        page.tab.locator(f"figure[id='{figure}'] .get").get_by_role("button", name=label).click()
    return download.value.suggested_filename, pathlib.Path(download.value.path()).read_bytes()


def size_of_png(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n", "no PNG"
    return struct.unpack(">II", data[16:24])


def whole(name, svg):
    """A drawing that stands alone: XML, with no colour of the page's and nothing from elsewhere."""
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg"), name
    text = svg.decode()
    # Pixels in base64 may spell anything.
    words = re.sub(r"data:image/png;base64,[^\"]*", "", text)
    assert "var(--" not in words and "NaN" not in words, name
    for link in re.findall(r'href="([^"]{0,40})', text):
        assert link.startswith("data:image/png;base64,"), f"{name}: {link}"


def read(page, figures):
    """Pointing, keys, and downloads, of every figure."""
    for f in figures:
        name = f["name"]
        told = point(page, name)
        assert "\n" in told or "·" in told or len(told) > 3, f"{name} tells nothing on pointing: {told!r}"
        assert "NaN" not in told and "undefined" not in told, f"{name}: {told!r}"
        page.tab.keyboard.press("Escape")
        svg = page.tab.locator(f"figure[id='{name}'] .drawing:not([hidden]) svg")
        page.tab.mouse.move(2, 2)
        svg.focus()
        seen = set()
        for key in ["ArrowRight", "ArrowDown", "ArrowRight", "ArrowDown"]:
            page.tab.keyboard.press(key)
            page.tab.wait_for_timeout(40)
            seen.add(tip(page))
        marks = svg.locator("[data-tip]").count()
        assert len(seen - {""}) >= (1 if marks == 1 else 2), f"{name} can't be read by keys: {seen}"
        file, svg = saved(page, name, "Save the figure as SVG")
        assert file.endswith(".svg"), file
        whole(name, svg)
        file, png = saved(page, name, "Save the figure as PNG")
        width, height = size_of_png(png)
        assert file.endswith(".png") and min(width, height) > 100 and len(png) > 2000, (name, width, height)
        button = page.tab.locator(f"figure[id='{name}'] .get").get_by_role("button", name=re.compile("as CSV"))
        assert button.count() == 1, f"{name} doesn't save its numbers"
        file, data = saved(page, name, re.compile("as CSV"))
        rows = list(csv.reader(io.StringIO(data.decode())))
        assert file.endswith(".csv") and len(rows) > 1, (file, rows)
        assert all(len(r) == len(rows[0]) for r in rows), f"{name}: {rows[:2]}"
        page.tab.mouse.move(2, 2)


def toggled(page):
    """Matrices in forward order and back."""
    buttons = page.tab.get_by_role("button", name="Show in forward order")
    for k in range(buttons.count()):
        figure = buttons.nth(k).locator("xpath=ancestor::figure").get_attribute("id")
        clustered = point(page, figure)
        buttons.nth(k).click()
        forward = point(page, figure)
        assert "interaction" in clustered and "interaction" in forward and clustered != forward, (clustered, forward)
        buttons.nth(k).click()
        assert point(page, figure) == clustered


def ends(page, figures):
    """The pairs of a matrix are saved with both ends of their intervals, which needn't lie alike around the value, as the page carries them."""
    for name in (f["name"] for f in figures):
        carried = page.tab.evaluate(
            """name => { const f = document.getElementById(name), e = f.querySelector('.pane') && document.getElementById('pairs-' + f.dataset.group);
            return e && JSON.parse(e.textContent); }""",
            name,
        )
        if not carried:
            continue
        numbers = struct.iter_unpack("<4e", base64.b64decode(carried["packed"]))
        known = [[v * carried["most"] for v in four[:3]] for four in numbers if not math.isnan(four[0])]
        _, data = saved(page, name, "Save the pairs as CSV")
        rows = list(csv.DictReader(io.StringIO(data.decode())))
        assert len(rows) == len(known) > 0, f"{name}: {len(rows)} rows of {len(known)} pairs"
        for row, wanted in zip(rows, known):
            got = [float(row[column] or "nan") for column in ("interaction", "ci_low", "ci_high")]
            same = (math.isclose(a, b, rel_tol=6e-3) or (math.isnan(a) and math.isnan(b)) for a, b in zip(got, wanted))
            assert all(same), f"{name}: {row} isn't {wanted}"


def banded(page, figures, needed):
    """Random orders matched per layer, where there are any: a colour of their own, which the caption names."""
    found = False
    for f in (f for f in figures if f["name"].startswith("curve")):
        svg = f"figure[id='{f['name']}'] .drawing:not([hidden]) svg"
        lines, bands = (page.tab.locator(f"{svg} [{what}='var(--c5)']").count() for what in ("stroke", "fill"))
        named = "Ochre: " in f["caption"] and "of each layer as greedy does" in f["caption"]
        assert (lines > 1, bands > 0) == (named, named), f"{f['name']}: {lines} lines, {bands} bands; {f['caption']}"
        found |= named
    assert found or not needed, "no orders matched per layer"


def beside(report, figures):
    """The files beside the report: every figure, as SVG and PNG."""
    folder = report.parent / "figures"
    names = {f["name"] for f in figures}
    for extension in ("svg", "png"):
        there = {p.stem for p in folder.glob(f"*.{extension}")}
        assert names <= there, f"no {extension} of {names - there}"
    for path in folder.glob("*.svg"):
        whole(path.name, path.read_bytes())
    for path in folder.glob("*.png"):
        width, height = size_of_png(path.read_bytes())
        assert min(width, height) > 100, path


def main():
    report, name, kinds = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    size = report.stat().st_size
    assert size < 6_000_000, f"the page has {size} bytes"
    with chromium() as browser:
        with Page(browser, width=1280, scheme="light") as page:
            page.open(report)
            page.tab.evaluate("() => document.fonts.ready")
            figures = figures_of(page)
            for kind in kinds:
                assert any(f["name"] == kind or f["name"].startswith(kind + "-") for f in figures), f"no figure {kind}"
            for f in figures:
                assert f["shapes"] > 5 and f["area"] > 10_000, f"{f['name']} is empty: {f}"
                assert len(f["label"]) > 10 and len(f["caption"]) > 40, f"{f['name']} isn't said in words: {f}"
            text = page.tab.inner_text("main")
            assert "NaN" not in text and "undefined" not in text and "Findings" in text
            assert page.tab.evaluate("() => document.fonts.check('16px Inter')"), "the font isn't there"
            page.shot(f"{name}-light")
            read(page, figures)
            toggled(page)
            ends(page, figures)
            banded(page, figures, needed=name == "minilm")
            page.complain()
        with Page(browser, width=1280, scheme="dark") as page:
            page.open(report)
            page.shot(f"{name}-dark")
            paper = page.tab.evaluate("() => getComputedStyle(document.body).backgroundColor")
            assert paper == "rgb(20, 23, 28)", paper
            # A drawing that is saved in the dark is as light as the file beside the report.
            _, svg = saved(page, figures[0]["name"], "Save the figure as SVG")
            assert b'fill="#ffffff"' in svg
            page.complain()
        with Page(browser, width=800, height=1120, scheme="dark") as page:
            page.open(report).media(media="print", color_scheme="dark")
            paper = page.tab.evaluate("() => getComputedStyle(document.body).backgroundColor")
            assert paper == "rgb(255, 255, 255)", f"print isn't light: {paper}"
            page.shot(f"{name}-print")
            page.pdf(f"{name}-print")
            page.complain()
        with Page(browser, width=375, height=780, scheme="light", scale=2) as page:
            page.open(report)
            wide = page.tab.evaluate("() => document.scrollingElement.scrollWidth")
            assert wide <= 375, f"the page is {wide} wide on a phone"
            page.shot(f"{name}-phone")
            page.complain()
        with Page(browser, width=1280, scheme="light", script=False) as page:
            page.open(report)
            page.shot(f"{name}-noscript", whole=False)
            page.complain()
    beside(report, figures)
    print(f"{len(figures)} figures, {size} bytes")


if __name__ == "__main__":
    main()
