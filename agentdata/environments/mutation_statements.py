"""Mistakes of whole statements: left out, in the wrong order, leaving at the wrong moment, catching the wrong thing."""

import itertools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from agentdata.environments.diffs import Text
from agentdata.environments.mutation_expressions import Proposal, Propose, replace
from agentdata.environments.syntax import Scope, Site, content_of, is_passed_over, operands

if TYPE_CHECKING:
    from agentdata.environments.syntax import Node

WORK = frozenset(["call", "await", "assignment", "augmented_assignment"])
LEAVING = frozenset(["raise_statement", "return_statement", "continue_statement", "break_statement"])
NARROWER = {
    b"Exception": b"ValueError",
    b"BaseException": b"Exception",
    b"OSError": b"FileNotFoundError",
    b"IOError": b"FileNotFoundError",
    b"LookupError": b"KeyError",
    b"KeyError": b"IndexError",
    b"IndexError": b"KeyError",
    b"ValueError": b"TypeError",
    b"TypeError": b"ValueError",
    b"AttributeError": b"TypeError",
    b"ImportError": b"ModuleNotFoundError",
    b"UnicodeError": b"UnicodeDecodeError",
    b"UnicodeDecodeError": b"UnicodeEncodeError",
    b"ArithmeticError": b"ZeroDivisionError",
    b"RuntimeError": b"NotImplementedError",
    b"StopIteration": b"IndexError",
}
ENDING = re.compile(rb"[ \t\f]*(?:#[^\n]*)?\r?\n")


def alone(node: "Node", text: Text) -> tuple[int, int] | None:
    """The whole lines of a statement, or None when it shares them with something else or ends the file without one."""
    start, end = text.line_start(node.start_byte), text.line_end(node.end_byte)
    if text.source[start : node.start_byte].strip(b" \t") or not ENDING.fullmatch(text.source[node.end_byte : end]):
        return None
    return start, end


def without(site: Site, text: Text) -> Iterator[Proposal]:
    """Leave a statement out, with the comment right above it; `pass` where nothing else is left."""
    lines = alone(site.node, text)
    if lines is None or site.parent is None or site.parent.kind != "block":
        return
    if len(operands(site.parent.node)) == 1:
        yield replace(site.node, b"pass")
        return
    yield ((_above_comment(site.node, text, lines[0]), lines[1], b""),)


def _above_comment(node: "Node", text: Text, start: int) -> int:
    line = text.line_at(start)
    indent = text.source[start : node.start_byte]
    while line and text.lines[line - 1].startswith(indent + b"#"):
        line -= 1
    return text.starts[line]


def guard(site: Site) -> Iterator[Proposal]:
    """A check at whose end one raises, returns or goes on with the next, forgotten."""
    body = site.node.child_by_field_name("consequence")
    if body is None or site.node.child_by_field_name("alternative") is not None:
        return
    statements = operands(body)
    if statements and len(statements) <= 3 and statements[-1].type in LEAVING:
        yield from without(site, site.module.text)


def branch(site: Site) -> Iterator[Proposal]:
    """A case forgotten: `elif` or `else` left out."""
    if site.parent is None or site.parent.kind != "if_statement":
        return
    text = site.module.text
    start, end = text.line_start(site.node.start_byte), text.line_end(site.node.end_byte)
    if not text.source[start : site.node.start_byte].strip(b" \t"):
        yield ((start, end, b""),)


def removed_statement(site: Site) -> Iterator[Proposal]:
    """A call, an update or a second assignment forgotten."""
    if site.scope.is_function and _is_removable(site):
        yield from without(site, site.module.text)


def _is_removable(site: Site) -> bool:
    if site.kind == "delete_statement":
        return True
    inner = site.node.named_children[0] if site.node.named_children else site.node
    if inner.type == "await" and inner.named_children:
        inner = inner.named_children[0]
    if is_passed_over(inner):
        return False
    if inner.type != "assignment":
        return inner.type in ("call", "augmented_assignment")
    target = inner.child_by_field_name("left")
    if target is None or inner.child_by_field_name("right") is None:
        return False
    return target.type in ("attribute", "subscript") or site.scope.knows(content_of(target), site.node.start_byte)


def reordered(site: Site) -> Iterator[Proposal]:
    """Two neighbouring statements, of which one concerns the other, in the wrong order."""
    statements = site.node.named_children
    if not site.scope.is_function:
        return
    for first, second in itertools.pairwise(statements):
        if _is_work(first) and _is_work(second) and _concern(site.scope, first, second):
            one, other = alone(first, site.module.text), alone(second, site.module.text)
            if one and other:
                moved = site.module.text.source[other[0] : other[1]]
                yield ((one[0], one[0], moved), (other[0], other[1], b""))


def _is_work(statement: "Node") -> bool:
    """Whether a statement is a call or an assignment, and not a docstring."""
    return statement.type == "expression_statement" and statement.named_children[0].type in WORK


def _concern(scope: Scope, first: "Node", second: "Node") -> bool:
    one, other = _target(first), _target(second)
    if re.fullmatch(rb"\w+", one) and not scope.knows(one, first.start_byte):
        return False
    base = _call_base(second)
    if base and base in (one, _call_base(first)):
        return True
    return any(_mentions(target, node) for target, node in ((one, second), (other, first)) if target)


def _target(statement: "Node") -> bytes:
    inner = statement.named_children[0]
    return content_of(inner.child_by_field_name("left")) if inner.type.endswith("assignment") else b""


def _call_base(statement: "Node") -> bytes:
    inner = statement.named_children[0]
    function = inner.child_by_field_name("function") if inner.type == "call" else None
    return content_of(function.child_by_field_name("object")) if function and function.type == "attribute" else b""


def _mentions(target: bytes, statement: "Node") -> bool:
    return re.search(rb"(?<![\w.])" + re.escape(target) + rb"(?!\w)", content_of(statement)) is not None


def dropped_return(site: Site) -> Iterator[Proposal]:
    """A result that is computed and not returned."""
    values = operands(site.node)
    if len(values) != 1 or values[0].type == "none":
        return
    value = values[0]
    if value.type in ("call", "await"):
        yield ((site.node.start_byte, value.start_byte, b""),)
    else:
        yield replace(site.node, b"return")


def loop_control(site: Site) -> Iterator[Proposal]:
    """Leaving a loop instead of going on with the next round, and the other way where that cannot run for ever."""
    loop = next((above.kind for above in site.above() if above.kind in ("for_statement", "while_statement")), "")
    if site.kind == "continue_statement" and loop:
        yield replace(site.node, b"break")
    elif loop == "for_statement":
        yield replace(site.node, b"continue")
        yield replace(site.node, b"pass")


def exception(site: Site) -> Iterator[Proposal]:
    """Catching less, more or something else, swallowing what is to be raised again, or not catching."""
    if site.kind == "try_statement":
        yield from _unguarded(site, site.module.text)
        return
    caught, body = site.node.named_children[0], site.node.named_children[-1]
    if caught.type == "as_pattern" and caught.named_children:
        caught = caught.named_children[0]
    if caught.type == "tuple":
        yield from _fewer(caught)
    elif content_of(caught) in NARROWER:
        yield replace(caught, NARROWER[content_of(caught)])
    statements = operands(body) if body.type == "block" else []
    if statements and statements[-1].type == "raise_statement":
        yield replace(statements[-1], b"pass")


def _fewer(caught: "Node") -> Iterator[Proposal]:
    names = operands(caught)
    for place, name in enumerate(names if len(names) > 1 else ()):
        if len(names) == 2:
            yield replace(caught, content_of(names[1 - place]))
        elif place:
            yield ((names[place - 1].end_byte, name.end_byte, b""),)
        else:
            yield ((name.start_byte, names[1].start_byte, b""),)


def _unguarded(site: Site, text: Text) -> Iterator[Proposal]:
    clauses = [child for child in operands(site.node) if child.type != "block"]
    handlers = [clause for clause in clauses if clause.type == "except_clause"]
    body, lines = site.node.child_by_field_name("body"), alone(site.node, text)
    if body is None or lines is None:
        return
    if len(handlers) > 1:
        for handler in handlers:
            start, end = text.line_start(handler.start_byte), text.line_end(handler.end_byte)
            yield ((start, end, b""),)
    elif len(clauses) == 1 and handlers and not _has_long_text(body):
        indent = len(text.source[lines[0] : site.node.start_byte])
        first = text.line_start(body.start_byte)
        removed = body.start_byte - first - indent
        if first > site.node.start_byte and removed > 0:
            kept = text.lines[text.line_at(first) : text.line_at(body.end_byte) + 1]
            yield ((*lines, b"".join(line[removed:] if line.strip() else line for line in kept)),)


def _has_long_text(node: "Node") -> bool:
    """Whether a text runs over several lines, so that moving the lines would change it."""
    stack = [node]
    while stack:
        inner = stack.pop()
        if inner.type == "string" and inner.start_point[0] != inner.end_point[0]:
            return True
        stack.extend(inner.named_children)
    return False


STATEMENTS: dict[str, tuple[str, Propose]] = {
    "guard": ("if_statement", guard),
    "branch": ("elif_clause else_clause", branch),
    "statement": ("expression_statement delete_statement", removed_statement),
    "order": ("block", reordered),
    "return": ("return_statement", dropped_return),
    "loop": ("break_statement continue_statement", loop_control),
    "exception": ("try_statement except_clause", exception),
}
"""Kind to the nodes it looks at and what proposes it."""
