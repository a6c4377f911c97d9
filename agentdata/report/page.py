"""A page and its parts, and how they become one file of HTML that needs nothing else."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from agentdata.drawing import STYLE, printable
from agentdata.evaluate.telling import Grid

if TYPE_CHECKING:
    from jinja2 import Template


EMPTY = Grid((), ())


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure that is worth its size."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing, what it says, and the numbers behind it."""

    title: str
    words: str
    picture: str = ""
    """An SVG element; without one, the words tell all that there is."""
    grid: Grid = EMPTY


@dataclass(frozen=True, slots=True)
class Section:
    """Figures that belong together."""

    title: str
    words: str = ""
    tiles: tuple[Tile, ...] = ()
    figures: tuple[Figure, ...] = ()
    grids: tuple[tuple[str, Grid], ...] = ()
    """Tables without a drawing, each with its title."""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """All that is told of a directory."""

    name: str
    kind: str
    """What the directory is, as `contextual run`."""
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
    generator: str
    configuration: str = ""
    """What was asked for, as a person reads it."""


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("agentdata.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else printable(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def render(page: Page) -> str:
    """The page as HTML. Names, reasons and configurations are text, whatever they look like."""
    return _template().render(page=page, style=STYLE)
