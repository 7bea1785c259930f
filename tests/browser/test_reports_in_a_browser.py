"""Reports in a headless browser: three widths, dark and light, on reports that the commands made of a tiny run.

Outside the suite: `make test-browser`. The screenshots lie in build/screenshots/, to be looked at.
"""

import os
import shutil
from pathlib import Path

import pytest

from tests.browser.tiny_reports import make_reports

pytestmark = pytest.mark.browser
WIDTHS, SCHEMES = (360, 800, 1440), ("light", "dark")
REPORTS = (
    "prepared",
    "data_summary",
    "train",
    "evaluation",
    "languages",
    "memorization",
    "plan",
    "tasks",
    "goldfish",
    "compare",
)
SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHECKS = (Path(__file__).parent / "checks.js").read_text().partition("\n")[2]


def wrong(page, check):
    """Returns what a check of checks.js finds wrong on a page."""
    return page.evaluate(f"({CHECKS.strip()}).{check}()")


@pytest.fixture(scope="session")
def reports(tmp_path_factory):
    """name → page; those of an earlier run in the folder that TINY_REPORTS names are looked at again."""
    given = os.environ.get("TINY_REPORTS")
    return make_reports(Path(given) if given else tmp_path_factory.mktemp("reports"))


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    found = os.environ.get("BROWSER_PROGRAM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        yield (opened := playwright.chromium.launch(executable_path=found, args=["--no-sandbox"]))
        opened.close()


@pytest.fixture(params=[(width, scheme) for width in WIDTHS for scheme in SCHEMES], ids=lambda p: f"{p[0]}-{p[1]}")
def opened(request, browser, reports, report):
    """A report in a window, with what it said and asked for, once everything folded is open."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda asked: page.asked.append(asked.url))
    page.goto(reports[report].as_uri())
    page.screenshot(path=SCREENSHOTS / f"{report}_{width}_{scheme}.png", full_page=True)
    yield page
    context.close()


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_is_legible_at_every_width_and_scheme(opened, reports, report):
    assert wrong(opened, "overflow") <= 0
    for check in ("misplaced", "pale", "misaligned", "stretched"):
        assert wrong(opened, check) == [], check
    opened.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert wrong(opened, "overflow") <= 0
    assert opened.said == [] and opened.asked == [reports[report].as_uri()], "no error, and nothing loaded"
    assert reports[report].stat().st_size < 2_000_000


@pytest.mark.parametrize("report", REPORTS)
def test_pointing_at_a_figure_tells_values_inside_the_page(opened, reports, report):
    for plot in opened.locator(".hovers:visible").all():
        fields = plot.locator("i")
        plot.scroll_into_view_if_needed()
        for number in {0, fields.count() // 2, fields.count() - 1} if fields.count() else ():
            fields.nth(number).hover(force=True)
            told = opened.locator(".hovers i:hover > b")
            assert told.count() == 1 and told.inner_text().strip()
            box = told.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= opened.viewport_size["width"]
            assert wrong(opened, "overflow") <= 0
