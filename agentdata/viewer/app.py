"""The pages: folders and their tables, rows by filters, one row.

GET / · /FOLDER/TABLE?repository=…&q=… · /FOLDER/TABLE/row/NUMBER#step-N · /FOLDER/TABLE/row?id=ID
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from importlib.resources import files
from threading import Lock
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from agentdata.drawing import DARK, LIGHT
from agentdata.viewer.index import UNREADABLE, Index
from agentdata.viewer.tables import Folder, Table
from agentdata.viewer.telling import tell, visible

HEADERS = {
    # Nothing runs, loads or is sent but what this server gives.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STATIC = {"look.css": "text/css", "keys.js": "text/javascript"}
RELATED = ("change_id", "task", "environment", "id")
"""Columns whose value is an id, here or in another table."""


class _Numbers(Convertor[int]):
    """Numbers in a path, no longer than Python and DuckDB read them."""

    regex = "[0-9]{1,17}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("number", _Numbers())


class Viewer:
    """Answers requests about some folders."""

    def __init__(self, folders: Sequence[Folder]) -> None:
        self.folders = tuple(folders)
        self._indexes: dict[tuple[int, str], Index] = {}
        self._opened = ExitStack()
        self._lock = Lock()
        self._pages = Environment(
            loader=PackageLoader("agentdata.viewer", "pages"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._pages.filters["visible"] = lambda value: visible(str(value))
        self._pages.globals["query"] = lambda values: f"?{urlencode(values)}" if values else ""

    def index(self, place: int, table: Table) -> Index:
        """The index of a table, made when it is first asked for."""
        with self._lock:
            if (place, table.name) not in self._indexes:
                self._indexes[place, table.name] = self._opened.enter_context(Index(table))
            return self._indexes[place, table.name]

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Indexes last as long as the server."""
        with self._opened:
            yield

    def overview(self, _request: Request) -> Response:
        """All folders and tables."""
        return self._page("overview.html", title="agentdata")

    def rows(self, request: Request) -> Response:
        """A page of a table's rows."""
        place, table = self._asked(request)
        index = self.index(place, table)
        wanted = _wanted(request, index)
        begin = _number(request.query_params.get("from", "0"))
        choices = {name: index.choices(name) for name in index.filters}
        return self._page(
            "rows.html",
            title=f"{table.name} · {self.folders[place].name}",
            place=place,
            table=table,
            index=index,
            wanted=wanted,
            begin=begin,
            found=index.page(wanted, begin),
            choices={name: values for name, values in choices.items() if len(values) > 1 or name in wanted},
        )

    def by_id(self, request: Request) -> Response:
        """The row with an id."""
        place, table = self._asked(request)
        numbers = self.index(place, table).numbers_of(request.query_params.get("id", ""))
        if not numbers:
            raise HTTPException(404, f"{table.name} has no row with the id {request.query_params.get('id', '')!r}.")
        return RedirectResponse(request.url_for("row", place=place, table=table.name, number=numbers[0]).path, 303)

    def row(self, request: Request) -> Response:
        """One row."""
        place, table = self._asked(request)
        number = int(request.path_params["number"])
        try:
            row = table.row(number)
        except LookupError:
            raise HTTPException(404, f"{table.name} has {table.rows:,} rows and no number {number}.") from None
        index = self.index(place, table)
        wanted = _wanted(request, index)
        before, after = index.beside(number, wanted)
        whole = "whole" in request.query_params
        return self._page(
            "row.html",
            title=str(row.get("id") or f"{table.name} {number}"),
            place=place,
            table=table,
            number=number,
            id=str(row.get("id") or ""),
            stop=str(row.get("stop") or ""),
            resolved=isinstance(verdict := row.get("verdict"), dict) and bool(verdict.get("resolved")),
            told=tell(row, whole=whole),
            whole=whole,
            wanted=wanted,
            before=before,
            after=after,
            related=self._related(place, table, row),
        )

    def _related(self, place: int, own: Table, row: dict[str, object]) -> list[tuple[str, int, str]]:
        """Rows of the folder's other tables that this one names, or that have its id."""
        found = []
        names = {str(row[column]) for column in RELATED if isinstance(row.get(column), str) and row[column]}
        for table in self.folders[place].tables:
            if table is own or "id" not in table.schema.names:
                continue
            try:
                index = self.index(place, table)
            except UNREADABLE:
                continue
            found += [(table.name, number, name) for name in sorted(names) for number in index.numbers_of(name)]
        return found

    def _asked(self, request: Request) -> tuple[int, Table]:
        place, name = int(request.path_params["place"]), str(request.path_params["table"])
        try:
            return place, self.folders[place].table(name)
        except LookupError:
            raise HTTPException(404, f"There is no table {name!r} here.") from None

    def _page(self, template: str, *, status: int = 200, **values: object) -> Response:
        page = self._pages.get_template(template).render(folders=self.folders, **values)
        return HTMLResponse(page.encode("utf-8", "replace"), status)

    def missing(self, _request: Request, error: Exception) -> Response:
        """What is said of what is not there."""
        assert isinstance(error, HTTPException)
        return self._page("missing.html", status=error.status_code, title="not there", words=error.detail)

    def unreadable(self, _request: Request, error: Exception) -> Response:
        """What is said of files that are gone, were changed, or do not belong together."""
        words = " ".join(str(error).split())[:300]
        said = f"The files of this table cannot be read: {words}. Start the viewer again, or make the files again."
        return self._page("missing.html", status=500, title="not readable", words=said)


def make_app(folders: Sequence[Folder], host: str) -> Starlette:
    """The application that answers at an address, and at no other name: other pages must not reach it by one of theirs."""
    viewer = Viewer(folders)
    names = [host, "localhost", "127.0.0.1"] if host in ("localhost", "127.0.0.1") else ["*"]
    routes = [
        Route("/", viewer.overview, methods=["GET"]),
        Route("/static/{name}", static, methods=["GET"]),
        Route("/{place:number}/{table}/row", viewer.by_id, methods=["GET"]),
        Route("/{place:number}/{table}/row/{number:number}", viewer.row, methods=["GET"], name="row"),
        Route("/{place:number}/{table}", viewer.rows, methods=["GET"]),
    ]
    return Starlette(
        routes=routes,
        lifespan=viewer.lifespan,
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=_guarded),
            Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False),
        ],
        exception_handlers={HTTPException: viewer.missing, **dict.fromkeys(UNREADABLE, viewer.unreadable)},
    )


async def _guarded(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await answer(request)
    response.headers.update(HEADERS)
    return response


def static(request: Request) -> Response:
    """Style and script of the pages."""
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404, f"There is no file {name!r}.")
    text = files("agentdata.viewer").joinpath("static", name).read_text(encoding="utf-8")
    return Response(_colours() + text if name.endswith(".css") else text, media_type=STATIC[name])


def _colours() -> str:
    schemes = [";".join(f"--{name}:{colour}" for name, colour in scheme.items()) for scheme in (LIGHT, DARK)]
    return f":root{{{schemes[0]}}}@media (prefers-color-scheme:dark){{:root{{{schemes[1]}}}}}\n"


def _wanted(request: Request, index: Index) -> dict[str, str]:
    """What the address asks for: filters of this table, and a text."""
    return {name: value for name in (*index.filters, "q") if (value := request.query_params.get(name, "").strip())}


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 18 else 0
