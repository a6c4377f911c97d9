"""A model's chat template, rendered as `transformers` does it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache, cached_property
from typing import Any

from agentdata.errors import UsageError
from agentdata.midtrain.tokenizer import TokenizerFiles

Row = Mapping[str, Any]

DICT_NAMES = frozenset(dir(dict))
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class RowError(Exception):
    """A row cannot be rendered. `reason` is the short word that is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Template:
    """A chat template, as `transformers` runs it, but for the date, which does not follow the clock."""

    source: str
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Texts of the special tokens by role."""
    specials: tuple[str, ...] = ()
    """Texts of all special tokens."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Further variables of the template, such as enable_thinking."""
    today: date | None = None
    """The day that the template is told; without one, it has none to ask for."""

    @cached_property
    def _compiled(self) -> Any:
        return _environment().from_string(self.source)

    @cached_property
    def _date(self) -> dict[str, Any]:
        """The clock of templates, which stands still so that rows do not depend on the day they are packed."""
        return {"strftime_now": self.today.strftime} if self.today else {}

    def check(self) -> None:
        """Raise UsageError for a template that cannot be read."""
        from jinja2.exceptions import TemplateSyntaxError

        try:
            _ = self._compiled
        except TemplateSyntaxError as error:
            raise UsageError(f"The chat template is wrong in line {error.lineno}: {error.message}.") from error

    @cached_property
    def special(self) -> "re.Pattern[str]":
        """Finds special tokens."""
        texts = sorted(filter(None, self.specials), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, texts)) if texts else r"(?!)")

    def render(self, messages: Sequence[Row], tools: Sequence[Row], *, prompt: bool = False) -> str:
        """The text of a conversation, with the generation prompt at its end where that is asked. Raises RowError."""
        from jinja2.exceptions import TemplateError

        given = {
            **self.tokens,
            **self._date,
            **self.variables,
            "messages": messages,
            "tools": tools or None,
            "documents": None,
        }
        try:
            return str(self._compiled.render(**given, add_generation_prompt=prompt))
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
            words = " ".join(str(error).split())[:200]
            raise RowError("template-fails", f"{type(error).__name__}: {words}") from error


def make_template(
    files: TokenizerFiles, variables: Mapping[str, Any] | None = None, today: date | None = None
) -> Template:
    """The chat template of a tokenizer."""
    return Template(
        source=files.chat_template,
        tokens={role: files.special(role) for role in ROLES if files.special(role)},
        specials=tuple(token.text for token in files.added if token.special),
        variables=variables or {},
        today=today,
    )


@cache
def _environment() -> Any:
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.runtime import LoopContext
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """`{% generation %}` only says what an assistant wrote; its body is rendered as it is."""

        tags = {"generation"}  # noqa: RUF012 - the library's own way

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def fail(message: str) -> None:
        raise ValueError(message)

    class Environment(ImmutableSandboxedEnvironment):
        """Asks no question about fields of messages and of loops, which are most of what a template reads."""

        def getattr(self, obj: Any, attribute: str) -> Any:
            if type(obj) is dict and attribute not in DICT_NAMES:
                return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
            if type(obj) in (LoopContext, Namespace) and not attribute.startswith("_") and hasattr(obj, attribute):
                return getattr(obj, attribute)
            return super().getattr(obj, attribute)

    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = JSON.to_json
    environment.globals["raise_exception"] = fail
    return environment


class JsonMemory:
    """JSON of the objects of one conversation, which is rendered many times over."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], tuple[Any, str]] = {}

    def clear(self) -> None:
        self._known.clear()

    def to_json(self, value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
        """JSON as chat templates expect it: not escaped for HTML."""
        key = id(value), f"{ensure_ascii} {indent} {options}"
        if key not in self._known:
            # The object is kept with its JSON, so that no other can come to have its id.
            self._known[key] = value, json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)
        return self._known[key][1]


JSON = JsonMemory()
