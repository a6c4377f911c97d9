"""What figures in SVG are made of: for light and dark, and with words for those who do not see them.

Colours are classes of `STYLE`, which a page holds once and a picture that stands alone brings along.
"""

import re
from collections.abc import Sequence
from html import escape

LIGHT = {
    "ink": "#1f2933", "soft": "#5a6672", "faint": "#d5dce2", "paper": "#ffffff", "pale": "#afbcc7", "track": "#ebeff2",
    "one": "#2563a8", "two": "#b3541e", "three": "#2a7f62", "four": "#8a4fa3", "five": "#86670b", "six": "#b5305a",
}  # fmt: skip
DARK = {
    "ink": "#e6ebf0", "soft": "#a3b0bc", "faint": "#36414b", "paper": "#161b21", "pale": "#5a6875", "track": "#252d35",
    "one": "#6aa9e9", "two": "#e8935c", "three": "#58b893", "four": "#c095d8", "five": "#d1ad4a", "six": "#ee84a4",
}  # fmt: skip
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def _style() -> str:
    """Variables of both schemes, and classes to fill and to draw with; viewers that know no variables see the light."""
    schemes = [";".join(f"--{name}:{colour}" for name, colour in scheme.items()) for scheme in (LIGHT, DARK)]
    fills = [f".f-{name}{{fill:{colour};fill:var(--{name})}}" for name, colour in LIGHT.items()]
    lines = [f".l-{name}{{fill:none;stroke:{colour};stroke:var(--{name})}}" for name, colour in LIGHT.items()]
    dark = f"@media (prefers-color-scheme:dark){{:root{{{schemes[1]}}}}}"
    return "\n".join([f":root{{{schemes[0]}}}", dark, *fills, *lines])


STYLE = _style()


def picture(width: int, height: float, title: str, told: str, parts: Sequence[str], *, alone: bool = False) -> str:
    """Parts as an SVG element. told: what it shows, in words; alone: whether it is a file of its own."""
    space = ' xmlns="http://www.w3.org/2000/svg"' if alone else ""
    size = f'viewBox="0 0 {width} {height:.0f}"' + (f' width="{width}" height="{height:.0f}"' if alone else "")
    look = 'font-family="system-ui, sans-serif" font-size="12" class="f-ink"'
    head = [f'<svg{space} {size} role="img" {look}>', f"<title>{clean(title)}</title>", f"<desc>{clean(told)}</desc>"]
    if alone:
        head += [f"<style>{STYLE}</style>", rect(0, 0, width, height, "paper")]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    size: int = 0,
    bold: bool = False,
    colour: str = "ink",
    title: str = "",
) -> str:
    """Words on the picture."""
    look = "".join(
        [
            f' text-anchor="{anchor}"' if anchor != "start" else "",
            f' font-size="{size}"' if size else "",
            ' font-weight="600"' if bold else "",
            f' class="f-{colour}"' if colour != "ink" else "",
        ]
    )
    return f'<text x="{x:.1f}" y="{y:.1f}"{look}>{_title(title)}{clean(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: int = 1, dashed: bool = False) -> str:
    """A straight line."""
    look = f' stroke-width="{width}"' * (width != 1) + ' stroke-dasharray="3 3"' * dashed
    return f'<path class="l-{colour}"{look} d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def rect(x: float, y: float, width: float, height: float, colour: str, *, title: str = "") -> str:
    """A filled rectangle."""
    size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="f-{colour}" {size}>{_title(title)}</rect>' if title else f'<rect class="f-{colour}" {size}/>'


def _title(words: str) -> str:
    return f"<title>{clean(words)}</title>" if words else ""


def clean(words: str) -> str:
    """Words as a page holds them: escaped, and readable."""
    return escape(printable(words))


def printable(words: str) -> str:
    """Words with a mark for each character that neither XML knows nor a person sees."""
    return CONTROL.sub("\ufffd", words)
