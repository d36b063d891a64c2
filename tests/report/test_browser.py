"""The page in a real browser: nothing on the console, every figure drawn, no sideways scrolling, keys work."""

import re
import shutil

import pytest
from pages import FIGURES, edit

from nlp_ssl.report.page import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


def opened(browser, path, **options):
    """The page, and what it said on the console or asked of the network."""
    page, said = browser.new_page(**options), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None
    )
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri())
    return page, said


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1400])
def test_every_figure_is_drawn_and_the_page_fits(browser, finished, width, scheme):
    edit(finished / "seed-0/baseline", lambda rows: rows[-1].update(logits=rows[-1]["logits"][::-1]))
    page, said = opened(browser, write_report(finished), viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in FIGURES:
        box = page.locator(f"#{name}").bounding_box()
        assert box and box["width"] > 250 and box["height"] > 80, name
        assert box["x"] >= 0 and box["x"] + box["width"] <= width, name
    for drawing in page.locator("svg.chart").all():
        assert drawing.bounding_box()["height"] > 80 and drawing.get_attribute("aria-label")
    for cell in page.locator(".matrix td, .scores td").all():
        assert cell.bounding_box()["height"] < 40, "numbers stay on one line"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 150) == (scheme == "dark")


def test_hostile_texts_do_nothing_and_widen_nothing(browser, finished):
    bad = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\u202e\u202e" + "abc " * 50]

    def change(rows):
        for i, row in enumerate(rows):
            for column in ("content", "weak", "strong"):
                row[column] = bad[i % len(bad)].encode() if i else b"w" * 3_000_000

    edit(finished / "seed-0", change)
    page, said = opened(browser, write_report(finished), viewport={"width": 360, "height": 800})
    assert said == [] and page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("script, img").count() == 0


def test_the_colors_of_the_map_are_chosen_with_the_keyboard(browser, finished):
    page, _ = opened(browser, write_report(finished))
    colors = "[...document.querySelectorAll('#map circle')].map(c => getComputedStyle(c).fill).join()"
    page.locator("#by-true").focus()
    true = page.evaluate(colors)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("#by-predicted").is_checked() and page.evaluate(colors) != true
    page.locator("summary").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("details").nth(1).evaluate("d => d.open")
