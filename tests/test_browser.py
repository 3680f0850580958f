"""The report in a real browser: no complaint, no request, readable on a telephone and a desk, by day and by night."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: `make browser`, as root on Debian")

WIDTHS = (400, 1400)

# Every visible text with its colour, what lies behind it, and its height on the screen in pixels.
TEXTS = """
(() => {
  const behind = e => {
    for (; e; e = e.parentElement) {
      const found = getComputedStyle(e).backgroundColor;
      if (!/^rgba\\(.*, 0\\)$/.test(found)) return found;
    }
    return 'none';
  };
  const found = [];
  for (const e of document.querySelectorAll('body, body *')) {
    const own = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent).join('').trim();
    if (!own || e.tagName === 'SCRIPT' || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), svg = e instanceof SVGElement;
    const scale = svg ? Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b) : 1;
    found.push([own, svg ? style.fill : style.color, behind(e), parseFloat(style.fontSize) * scale]);
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def report(finished: Path) -> Path:
    return finished / "report.html"


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" as in WCAG 2."""
    values = [float(v) / 255 for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """1 for equal colours, 21 for black on white."""
    low, high = sorted(luminance(colour) for colour in (first, second))
    return (high + 0.05) / (low + 0.05)


def test_the_browser_sees_faults(browser: Browser, tmp_path: Path) -> None:
    """What the other tests rely on: an error, a request and a wide page are noticed."""
    path = tmp_path / "bad.html"
    body = "<img src='missing.png'><div style='width: 900px'>x</div><script>console.error('no'); nothing()</script>"
    path.write_text(f"<!doctype html><meta name=viewport content='width=device-width'>{body}")
    seen = browser.visit(path, width=400)
    assert any("nothing is not defined" in complaint for complaint in seen.complaints)
    assert any("'no'" in complaint for complaint in seen.complaints)
    assert any(address.endswith("missing.png") for address in seen.requests)
    assert browser.evaluate("document.documentElement.scrollWidth > innerWidth")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_opens_without_complaint_and_fits(browser: Browser, report: Path, width: int, dark: bool) -> None:
    seen = browser.visit(report, width, dark=dark)
    assert seen.complaints == []
    assert [one for one in seen.requests if not one.startswith("data:")] == [report.resolve().as_uri()]
    assert seen.seconds < 2
    assert browser.evaluate("innerWidth") == width
    for folded in (True, False):
        browser.evaluate(f"document.querySelectorAll('details').forEach(e => e.open = {str(not folded).lower()})")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_all_text_can_be_read(browser: Browser, report: Path, width: int, dark: bool) -> None:
    browser.visit(report, width, dark=dark)
    texts = browser.evaluate(TEXTS)
    assert len(texts) > 300
    faint = [(text, front, back) for text, front, back, _ in texts if contrast(front, back) < 4.5]
    assert not faint
    small = {text: size for text, _, _, size in texts if size < 8}
    assert not small


def test_the_themes_differ(browser: Browser, report: Path) -> None:
    found = []
    for dark in (False, True):
        browser.visit(report, 1400, dark=dark)
        found.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    light, dark_ = map(luminance, found)
    assert light > 0.9
    assert dark_ < 0.05


@pytest.mark.parametrize("width", WIDTHS)
def test_every_picture_has_its_place(browser: Browser, report: Path, width: int) -> None:
    browser.visit(report, width)
    boxes = browser.evaluate(
        "[...document.querySelectorAll('figure svg')].map(e => [e.clientWidth, e.clientHeight, "
        "e.closest('figure').getBoundingClientRect().right])"
    )
    assert len(boxes) > 15
    assert all(w > 190 and h > 80 and right <= width for w, h, right in boxes)


def test_the_window_shows_what_is_in_the_file(browser: Browser, report: Path, tmp_path: Path) -> None:
    browser.visit(report, 1400)
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    cell = browser.evaluate("document.querySelector('tr.strong td:nth-child(4)').textContent")
    held = browser.evaluate("JSON.parse(document.getElementById('metrics').textContent).test.correlation")
    assert float(cell) == pytest.approx(held, abs=5e-4)


def test_a_wide_window_is_filled_to_the_right(browser: Browser, report: Path) -> None:
    """The text above the scores and every row of pictures reach beyond the middle of the page."""
    browser.visit(report, 1400)
    rows = browser.evaluate(
        "[...document.querySelectorAll('.columns, .pictures')].map(e => Math.max(..."
        "[...e.querySelectorAll('p, ul, svg')].map(one => one.getBoundingClientRect().right)))"
    )
    assert len(rows) > 5
    assert min(rows) > 700
    assert rows[0] > 1000
