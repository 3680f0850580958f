"""One HTML page that needs no other file and no network: elements, tables, badges, figures, dark and light.

Functions return `Markup`; any other argument is text and is escaped. A report is

    page("title", badge("good", "good"), section("Scores", table(columns, rows)), data={"metrics": metrics})
"""

import json
import re
from collections.abc import Collection, Sequence
from importlib import resources
from typing import Any

from markupsafe import Markup, escape

from cloudml_tf.utils.files import finite

# Each colour as (light, dark). Pictures are drawn in the light one; `inline_svg` puts the name in its place.
COLOURS: dict[str, tuple[str, str]] = {
    "page": ("#fefefe", "#15181b"),
    "soft": ("#f3f5f7", "#20252a"),
    "line": ("#dfe3e7", "#363d44"),
    "ink": ("#1c2024", "#e7eaed"),
    "muted": ("#626a73", "#a0a9b3"),
    "grey": ("#8a8f98", "#858e98"),
    "blue": ("#2563a8", "#74b3f5"),
    "orange": ("#b9591b", "#f0a15c"),
    "green": ("#2c7a4b", "#6fcf97"),
    "red": ("#b3261e", "#f28b82"),
    "amber": ("#875800", "#eec45c"),
    "violet": ("#7747a8", "#c09bec"),
    "teal": ("#0c7480", "#5fcbd5"),
}
STYLE = resources.files("cloudml_tf.reports") / "page.css"
TONES = {"good": "green", "fair": "amber", "bad": "red", "plain": "muted"}

# The policy forbids what the page does not need: external content, and scripts.
HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,"><title>%s</title><style>%s</style></head><body>
"""


def element(name: str, *content: Any, **attributes: str) -> Markup:
    """Make one element; a trailing underscore of an attribute is dropped: `class_="muted"`."""
    named = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items() if value)
    return Markup(f"<{name}{named}>{''.join(map(escape, content))}</{name}>")


def page(title: str, *content: Any, data: dict[str, Any] | None = None) -> str:
    """The whole document. `data` is embedded as JSON, one script element per key, for programs that read the page."""
    themes = ["".join(f"--{name}: {pair[i]}; " for name, pair in COLOURS.items()) for i in (0, 1)]
    tones = " ".join(f".{tone} {{ background: var(--{colour}); }}" for tone, colour in TONES.items())
    found = [element("h1", title), *map(escape, content)]
    for name, values in (data or {}).items():
        text = json.dumps(finite(values), allow_nan=False).replace("<", "\\u003c")
        found.append(Markup(f'<script type="application/json" id="{escape(name)}">{text}</script>'))
    dark = f"@media (prefers-color-scheme: dark) {{ :root {{ {themes[1]} }} }}"
    style = f":root {{ color-scheme: light dark; {themes[0]} }}\n{dark}\n{tones}\n{STYLE.read_text('utf-8')}"
    return HEAD % (escape(title), style) + "\n".join(found) + "\n</body></html>\n"


def section(title: str, *content: Any, note: str = "") -> Markup:
    """A heading, a line that explains the content, and the content."""
    lead = [element("p", note, class_="muted")] if note else []
    return element("section", element("h2", title), *lead, *content)


def badge(text: str, tone: str = "plain") -> Markup:
    """A short highlighted text. `tone` is a key of `TONES`."""
    return element("span", text, class_=f"badge {tone}")


def numbers(items: Sequence[tuple[str, str, str]]) -> Markup:
    """A few big numbers, each (name, value, small text below)."""
    boxes = [element("div", element("small", n), element("b", v), element("small", note)) for n, v, note in items]
    return element("div", *boxes, class_="numbers")


def table(columns: Sequence[Any], rows: Sequence[Sequence[Any]], strong: Collection[str] = ()) -> Markup:
    """A table in a box that scrolls; the rows whose first cell is in `strong` are highlighted."""
    head = element("tr", *[element("th", cell) for cell in columns])
    body = [
        element("tr", *[element("td", cell) for cell in row], class_="strong" if row[0] in strong else "")
        for row in rows
    ]
    inside = element("table", element("thead", head), element("tbody", *body))
    return element("div", inside, class_="scroll", tabindex="0")


def picture(svg: Markup, caption: str = "", wide: bool = False) -> Markup:
    """A figure and its caption. A wide one keeps its size and scrolls where the window is narrow."""
    box = element("div", svg, class_="scroll", tabindex="0") if wide else svg
    below = [element("figcaption", caption)] if caption else []
    return element("figure", box, *below, class_="wide" if wide else "")


def pictures(*content: Any, least_rem: float = 16.5) -> Markup:
    """Figures side by side, as many as fit with that width each."""
    return element("div", *content, class_="pictures", style=f"--least: {least_rem:.1f}rem; --count: {len(content)}")


def columns(*content: Any) -> Markup:
    """Text in two columns, where the window is wide enough for both."""
    return element("div", *content, class_="columns")


def bullets(items: Sequence[Any]) -> Markup:
    """A bullet list."""
    return element("ul", *[element("li", item) for item in items])


def details(summary: str, *content: Any) -> Markup:
    """Content that is folded at first."""
    return element("details", element("summary", summary), *content)


def json_block(content: Any) -> Markup:
    """Format nested values as indented JSON."""
    return element("pre", json.dumps(finite(content), indent=2, ensure_ascii=False))


def inline_svg(text: str, label: str) -> Markup:
    """Convert an SVG file's text to an element of the page, which scales, follows the theme and has an accessible name.

    Identifiers stay only where something refers to them, since a page must not contain one twice.
    """
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text))
    kept = {name for pair in used for name in pair}
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in kept else "", text)
    for name, (light, _) in COLOURS.items():
        text = text.replace(light, f"var(--{name})")
    box = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg role="img" aria-label="{escape(label)}" {box[0] if box else ""}>'
    return Markup(head + re.sub(r"^<svg[^>]*>", "", text).replace("xlink:href", "href").strip())
