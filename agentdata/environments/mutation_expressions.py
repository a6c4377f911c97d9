"""Mistakes inside an expression: each kind takes a site and proposes replacements of bytes."""

import itertools
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from agentdata.environments.diffs import Replacement
from agentdata.environments.syntax import Site, content_of, is_called, is_target, operands

if TYPE_CHECKING:
    from agentdata.environments.syntax import Node

Proposal = tuple[Replacement, ...]
Propose = Callable[[Site], Iterator[Proposal]]

ARITHMETIC = {
    b"+": b"-",
    b"-": b"+",
    b"*": b"/",
    b"/": b"*",
    b"//": b"/",
    b"%": b"//",
    b"**": b"*",
    b"&": b"|",
    b"|": b"&",
    b"^": b"|",
    b"<<": b">>",
    b">>": b"<<",
}
COMPARISONS = {
    b"<": (b"<=", b">"),
    b"<=": (b"<", b">="),
    b">": (b">=", b"<"),
    b">=": (b">", b"<="),
    b"==": (b"!=",),
    b"!=": (b"==",),
    b"is": (b"is not",),
    b"is not": (b"is",),
    b"in": (b"not in",),
    b"not in": (b"in",),
}
SIBLINGS = (
    "min max, any all, startswith endswith, lstrip rstrip, strip rstrip, split rsplit, partition rpartition, find rfind, "
    "index rindex, upper lower, floor ceil, keys values, values items, append extend, union intersection, add discard, "
    "sorted reversed, removeprefix removesuffix, search match, match fullmatch, popleft pop, appendleft append, "
    "issubset issuperset, insert append, isdigit isalpha, ljust rjust, setdefault get, round int, bytes bytearray"
)
CONVERSIONS = frozenset(b"list str int set sorted tuple dict bytes abs float frozenset reversed bool".split())
TRIMMINGS = frozenset(b"copy strip lower upper rstrip lstrip casefold encode decode items values".split())
DEFAULTED = {b"get": 2, b"pop": 2, b"getattr": 3, b"next": 2, b"setdefault": 2}
"""Functions whose last argument is a default, and the number of arguments with it."""
FIXED_ORDER = frozenset(b"isinstance issubclass getattr setattr hasattr delattr super range zip open".split())
WORDS = frozenset(b"help description doc message msg title label metavar epilog short_help stacklevel".split())
"""Keyword arguments that only say something to a person."""
CONTAINERS = frozenset(["string", "concatenated_string", "list", "tuple", "list_comprehension", "none"])
NAMED = frozenset(["identifier", "attribute", "subscript", "call"])
CLOSED = frozenset(
    ["identifier", "attribute", "subscript", "call", "integer", "float", "string", "list", "tuple", "dictionary", "set"]
)
"""Nodes that need no parentheses anywhere."""
FLOAT = re.compile(rb"\d+\.\d+")


def _siblings() -> dict[bytes, tuple[bytes, ...]]:
    found: dict[bytes, tuple[bytes, ...]] = {}
    for pair in SIBLINGS.encode().split(b", "):
        one, other = pair.split()
        found[one] = (*found.get(one, ()), other)
        found[other] = (*found.get(other, ()), one)
    return found


SIBLING = _siblings()


def replace(node: "Node", new: bytes) -> Proposal:
    """Put something else in a node's place."""
    return ((node.start_byte, node.end_byte, new),)


def enclosed(node: "Node") -> bytes:
    """A node's text, in parentheses where it could fall apart."""
    text = content_of(node)
    return text if node.type in CLOSED else b"(" + text + b")"


def arithmetic(site: Site) -> Iterator[Proposal]:
    """Another operator of the same sort; texts and lists, which have no such operator, are left alone."""
    operator = site.node.child_by_field_name("operator")
    sides = [site.node.child_by_field_name(name) for name in ("left", "right")]
    if operator is None or any(side is None or side.type in CONTAINERS for side in sides):
        return
    sign = content_of(operator)
    ending = b"=" if site.kind == "augmented_assignment" else b""
    other = ARITHMETIC.get(sign.removesuffix(ending))
    if other:
        yield replace(operator, other + ending)


def boolean(site: Site) -> Iterator[Proposal]:
    """`and` for `or`, and the other way."""
    operator = site.node.child_by_field_name("operator")
    if operator is not None:
        yield replace(operator, b"or" if operator.type == "and" else b"and")


def comparison(site: Site) -> Iterator[Proposal]:
    """Another comparison."""
    for operator in site.node.children_by_field_name("operators"):
        for other in COMPARISONS.get(b" ".join(content_of(operator).split()), ()):
            yield replace(operator, other)


def constant(site: Site) -> Iterator[Proposal]:
    """A number that is one off or ten times as large, the other truth value."""
    if site.is_field("value") and site.parent is not None and site.parent.kind.endswith("default_parameter"):
        return
    yield from _changed_constants(site.node)


def _changed_constants(node: "Node") -> Iterator[Proposal]:
    text = content_of(node)
    if node.type in ("true", "false"):
        yield replace(node, b"False" if node.type == "true" else b"True")
    elif node.type == "float" and FLOAT.fullmatch(text):
        yield replace(node, str(float(text) * 10).encode())
    elif node.type == "integer" and text.isdigit() and len(text) < 16:
        yield replace(node, b"%d" % (int(text) + 1))
        if int(text):
            yield replace(node, b"%d" % (int(text) - 1))


def default(site: Site) -> Iterator[Proposal]:
    """Another default for a parameter; the default of a lookup left out."""
    if site.kind != "call":
        value = site.node.child_by_field_name("value")
        if value is not None:
            yield from _changed_constants(value)
        return
    arguments = _arguments(site.node)
    name = _called_name(site.node)
    if len(arguments) == DEFAULTED.get(name, -1) and not any(node.type == "keyword_argument" for node in arguments):
        yield ((arguments[-2].end_byte, arguments[-1].end_byte, b""),)


def off_by_one(site: Site) -> Iterator[Proposal]:
    """`+ 1` forgotten, or a length that is one short."""
    node = site.node
    if site.kind == "binary_operator":
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        sign = content_of(node.child_by_field_name("operator"))
        if left is not None and content_of(right) == b"1" and sign in (b"+", b"-"):
            yield replace(node, content_of(left))
    elif _called_name(node) == b"len" and site.parent is not None and site.parent.kind in COUNTED:
        yield ((node.end_byte, node.end_byte, b" - 1"),)


COUNTED = frozenset(["comparison_operator", "argument_list", "slice", "subscript", "assignment", "return_statement"])


def bounds(site: Site) -> Iterator[Proposal]:
    """A slice, an index or a range that begins or ends one place off."""
    if site.kind == "slice":
        yield from _slice(site.node)
    elif site.kind == "subscript":
        for index in site.node.children_by_field_name("subscript"):
            if index.type in ("integer", "unary_operator"):
                yield from _shifted(index)
    elif content_of(site.node.child_by_field_name("function")) == b"range":
        arguments = _arguments(site.node)
        if arguments and all(node.type not in ("list_splat", "keyword_argument") for node in arguments):
            yield from _shifted(arguments[0 if len(arguments) == 1 else 1])
            if len(arguments) == 2:
                yield ((arguments[0].start_byte, arguments[1].start_byte, b""),)


def _slice(node: "Node") -> Iterator[Proposal]:
    for child in operands(node):
        if child.type in CLOSED or child.type in ("unary_operator", "binary_operator"):
            yield from _shifted(child)
    if len(node.named_children) == 2:
        last = node.named_children[1]
        yield replace(last, b"")


def _shifted(node: "Node") -> Iterator[Proposal]:
    text = content_of(node)
    if re.fullmatch(rb"-?\d{1,9}", text):
        yield replace(node, b"%d" % (int(text) + (1 if int(text) >= 0 else -1)))
        if text == b"-1":
            yield replace(node, b"0")
    elif node.type in CLOSED:
        yield replace(node, text + b" - 1")
        yield replace(node, text + b" + 1")


def variable(site: Site) -> Iterator[Proposal]:
    """Another variable of the same function that has a value there."""
    name, scope, offset = site.text, site.scope, site.node.start_byte
    if not scope.is_function or is_target(site) or site.is_field("attribute") or is_called(site):
        return
    if not (name in scope.parameters or name in scope.assigned):
        return
    known = dict.fromkeys([*scope.parameters, *scope.assigned])
    others = [other for other in known if other not in (name, b"_") and scope.knows(other, offset)]
    if others:
        yield replace(site.node, site.module.random.choice(others))


def attribute(site: Site) -> Iterator[Proposal]:
    """Another attribute or method that the file uses of the same thing."""
    name = site.node.child_by_field_name("attribute")
    if name is None or is_target(site):
        return
    used = site.module.attributes.get(content_of(site.node.child_by_field_name("object")), {})
    called = is_called(site)
    others = [
        other for other, is_method in used.items() if other != name.text and is_method == called and other[:2] != b"__"
    ]
    for other in site.module.random.sample(others, min(2, len(others))):
        yield replace(name, other)


def sibling(site: Site) -> Iterator[Proposal]:
    """The function or method that is easily taken for this one: `max` for `min`, `rstrip` for `strip`."""
    function = site.node.child_by_field_name("function")
    name = function.child_by_field_name("attribute") if function is not None else None
    for other in SIBLING.get(_called_name(site.node), ()):
        yield replace(name or function or site.node, other)


def conversion(site: Site) -> Iterator[Proposal]:
    """A conversion or copy forgotten: `str(x)` or `x.copy()` to `x`."""
    function, arguments = site.node.child_by_field_name("function"), _arguments(site.node)
    if function is None:
        return
    if function.type == "identifier" and function.text in CONVERSIONS and len(arguments) == 1:
        if arguments[0].type not in ("keyword_argument", "list_splat", "dictionary_splat"):
            yield replace(site.node, enclosed(arguments[0]))
    elif function.type == "attribute" and not arguments and _called_name(site.node) in TRIMMINGS:
        base = function.child_by_field_name("object")
        if base is not None:
            yield replace(site.node, content_of(base))


def swapped_arguments(site: Site) -> Iterator[Proposal]:
    """Two neighbouring arguments of the same sort in the wrong order."""
    if _called_name(site.node) in FIXED_ORDER:
        return
    arguments = _arguments(site.node)
    for one, other in itertools.pairwise(arguments):
        alike = one.type == other.type != "string" or (one.type in NAMED and other.type in NAMED)
        if alike and one.type != "keyword_argument" and not one.type.endswith("splat"):
            yield (*replace(one, content_of(other)), *replace(other, content_of(one)))


def keyword(site: Site) -> Iterator[Proposal]:
    """A keyword argument forgotten."""
    listed = site.node.child_by_field_name("arguments")
    if listed is None or any(child.type == "comment" for child in listed.children):
        return
    arguments = _arguments(site.node)
    for place, argument in enumerate(arguments):
        if argument.type != "keyword_argument" or content_of(argument.child_by_field_name("name")) in WORDS:
            continue
        if place:
            yield ((arguments[place - 1].end_byte, argument.end_byte, b""),)
        elif len(arguments) > 1:
            yield ((argument.start_byte, arguments[1].start_byte, b""),)
        else:
            yield ((listed.start_byte + 1, listed.end_byte - 1, b""),)


def inverted(site: Site) -> Iterator[Proposal]:
    """A condition the wrong way round. Comparisons are turned by `comparison`."""
    if site.kind == "conditional_expression":
        parts = operands(site.node)
        if len(parts) == 3:
            yield (*replace(parts[0], content_of(parts[2])), *replace(parts[2], content_of(parts[0])))
        return
    condition = site.node.child_by_field_name("condition")
    if site.kind == "if_clause" and site.node.named_children:
        condition = site.node.named_children[0]
    if condition is None or condition.type in ("comparison_operator", "named_expression"):
        return
    if condition.type == "not_operator":
        yield replace(condition, content_of(condition.child_by_field_name("argument")))
    else:
        yield replace(condition, b"not " + enclosed(condition))


def partial_condition(site: Site) -> Iterator[Proposal]:
    """One half of an `and` or `or` forgotten."""
    for side in ("left", "right"):
        kept = site.node.child_by_field_name(side)
        if kept is not None:
            yield replace(site.node, content_of(kept))


def dropped_await(site: Site) -> Iterator[Proposal]:
    """`await` forgotten."""
    if site.node.named_children:
        yield replace(site.node, content_of(site.node.named_children[0]))


def _arguments(call: "Node") -> list["Node"]:
    listed = call.child_by_field_name("arguments")
    return operands(listed) if listed is not None and listed.type == "argument_list" else []


def _called_name(call: "Node") -> bytes:
    """Last part of the name of what is called."""
    function = call.child_by_field_name("function")
    if function is None or function.type == "identifier":
        return content_of(function)
    return content_of(function.child_by_field_name("attribute"))


EXPRESSIONS: dict[str, tuple[str, Propose]] = {
    "arithmetic": ("binary_operator augmented_assignment", arithmetic),
    "boolean": ("boolean_operator", boolean),
    "comparison": ("comparison_operator", comparison),
    "constant": ("integer float true false", constant),
    "default": ("default_parameter typed_default_parameter call", default),
    "off-by-one": ("binary_operator call", off_by_one),
    "bounds": ("slice subscript call", bounds),
    "variable": ("identifier", variable),
    "attribute": ("attribute", attribute),
    "sibling-call": ("call", sibling),
    "conversion": ("call", conversion),
    "swapped-arguments": ("call", swapped_arguments),
    "keyword": ("call", keyword),
    "inverted-condition": ("if_statement elif_clause conditional_expression if_clause", inverted),
    "partial-condition": ("boolean_operator", partial_condition),
    "await": ("await", dropped_await),
}
"""Kind to the nodes it looks at and what proposes it."""
