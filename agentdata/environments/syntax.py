"""Python text to sites: the nodes where a person could make a mistake, with the scope that they stand in.

What no test can see, or what would give the mistake away, is passed over: texts, annotations, imports, decorators,
logging, messages of exceptions, dunder assignments, `if TYPE_CHECKING` and `if __name__`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from agentdata.environments.diffs import Text
from agentdata.harvest.languages import LANGUAGES, parse

if TYPE_CHECKING:
    from tree_sitter import Node as Node

PASSED_OVER = frozenset(
    [
        "string",
        "concatenated_string",
        "type",
        "type_parameter",
        "decorator",
        "comment",
        "import_statement",
        "import_from_statement",
        "future_import_statement",
        "assert_statement",
        "type_alias_statement",
        "print_statement",
        "exec_statement",
    ]
)
LOGGING = re.compile(
    rb"(?:.*\.)?_?(?:log|logger|logging|warnings)\.\w+|(?:.*\.)?(?:warn|print|secho|echo|cast|TypeVar)"
)
ONLY_FOR_TYPES = re.compile(rb"(?:\w+\.)?TYPE_CHECKING|__name__\s*==.*")
DUNDER = re.compile(rb"__\w+__")
ASSIGNING = {"assignment": "left", "for_statement": "left", "named_expression": "name"}
WRITTEN = frozenset(
    [
        "pattern_list",
        "tuple_pattern",
        "list_pattern",
        "as_pattern_target",
        "delete_statement",
        "global_statement",
        "nonlocal_statement",
        "parameters",
        "lambda_parameters",
        "list_splat_pattern",
        "dictionary_splat_pattern",
    ]
)


@dataclass(slots=True)
class Scope:
    """A function, class or module: what it is called and which variables it knows."""

    name: str
    """Qualified name; empty for the module."""
    outer: "Scope | None" = None
    is_function: bool = False
    parameters: list[bytes] = field(default_factory=list)
    assigned: dict[bytes, int] = field(default_factory=dict)
    """Variables of the function and the offset where each is first assigned."""

    def knows(self, name: bytes, before: int) -> bool:
        """Whether a variable has a value at an offset, as far as the order of lines tells."""
        return name in self.parameters or self.assigned.get(name, before) < before


@dataclass(slots=True)
class Site:
    """A node in its place."""

    module: "Module"
    node: "Node"
    parent: "Site | None"
    scope: Scope
    piece: tuple[int, int]
    """Span of the outermost function or, outside of any, of the statement: what must still compile."""

    @property
    def kind(self) -> str:
        return self.node.type

    @property
    def text(self) -> bytes:
        return self.node.text or b""

    def above(self) -> Iterator["Site"]:
        """The enclosing sites, the nearest first."""
        site = self.parent
        while site is not None:
            yield site
            site = site.parent

    def is_field(self, name: str) -> bool:
        """Whether the node is a certain part of its parent."""
        return self.parent is not None and self.parent.node.child_by_field_name(name) == self.node


@dataclass
class Module:
    """A parsed file."""

    text: Text
    random: Random
    """What is drawn from where a kind has a choice."""
    sites: list[Site] = field(default_factory=list)
    attributes: dict[bytes, dict[bytes, bool]] = field(default_factory=dict)
    """What is read of each base (`self`, `response.headers`), and whether it is called."""


def read_module(source: bytes, random: Random) -> Module:
    """Parse a file. A file with errors has no sites."""
    module = Module(Text(source), random)
    tree = parse(LANGUAGES["python"], source)
    if tree.root_node.has_error:
        return module
    _walk(tree.root_node, module)
    for site in module.sites:
        _note_attribute(site, module.attributes)
    return module


def content_of(node: "Node | None") -> bytes:
    """The text of a node that may be missing."""
    return (node.text or b"") if node is not None else b""


def operands(node: "Node") -> list["Node"]:
    """Named parts of a node without comments."""
    return [child for child in node.named_children if child.type != "comment"]


def _walk(root: "Node", module: Module) -> None:
    # A stack of our own: an expression may nest deeper than Python's recursion.
    stack: list[tuple[Node, Site | None, Scope, tuple[int, int] | None]] = [(root, None, Scope(""), None)]
    while stack:
        node, parent, scope, piece = stack.pop()
        if is_passed_over(node):
            continue
        if piece is None and _is_whole(node, parent):
            piece = (node.start_byte, node.end_byte)
        site = Site(module, node, parent, scope, piece or (node.start_byte, node.end_byte))
        module.sites.append(site)
        _note_assigned(site)
        if node.type == "raise_statement":
            continue
        inner = _enter(node, scope)
        stack.extend((child, site, inner, piece) for child in reversed(node.named_children))


def _is_whole(node: "Node", parent: Site | None) -> bool:
    """Whether a node outside of functions is compiled as a whole: a function, or a statement of a module or class."""
    if node.type == "function_definition":
        return True
    if parent is None or node.type in ("class_definition", "decorated_definition", "block"):
        return False
    above = parent.parent
    return parent.kind == "module" or (
        parent.kind == "block" and above is not None and above.kind == "class_definition"
    )


def _enter(node: "Node", scope: Scope) -> Scope:
    if node.type == "lambda":
        return Scope(scope.name, scope, True, scope.parameters + _parameters(node), scope.assigned)
    if node.type not in ("function_definition", "class_definition"):
        return scope
    name = content_of(node.child_by_field_name("name")).decode()
    is_function = node.type == "function_definition"
    return Scope(
        f"{scope.name}.{name}" if scope.name else name, scope, is_function, _parameters(node) if is_function else []
    )


def _parameters(node: "Node") -> list[bytes]:
    listed = node.child_by_field_name("parameters")
    names = []
    for child in listed.named_children if listed is not None else ():
        named = child
        while named.type != "identifier" and named.named_children:
            named = named.child_by_field_name("name") or named.named_children[0]
        if named.type == "identifier" and named.text not in (b"self", b"cls"):
            names.append(content_of(named))
    return names


def _note_assigned(site: Site) -> None:
    node = site.node
    if node.type == "as_pattern" and site.parent is not None and site.parent.kind != "except_clause":
        targets: list[Node] = node.named_children[1:]
    else:
        target = node.child_by_field_name(ASSIGNING[node.type]) if node.type in ASSIGNING else None
        targets = [target] if target is not None else []
    end = node.end_byte if node.type in ("assignment", "named_expression") else node.start_byte
    while targets:
        target = targets.pop()
        if target.type == "identifier":
            site.scope.assigned.setdefault(content_of(target), end)
        elif target.type in ("pattern_list", "tuple_pattern", "list_pattern", "as_pattern_target"):
            targets.extend(target.named_children)


def _note_attribute(site: Site, attributes: dict[bytes, dict[bytes, bool]]) -> None:
    if site.kind != "attribute" or site.parent is None or is_target(site):
        return
    base = content_of(site.node.child_by_field_name("object"))
    name = content_of(site.node.child_by_field_name("attribute"))
    called = is_called(site)
    attributes.setdefault(base, {}).setdefault(name, called)


def is_called(site: Site) -> bool:
    """Whether the node is what a call calls."""
    return site.parent is not None and site.parent.kind == "call" and site.is_field("function")


def is_target(site: Site) -> bool:
    """Whether the node is written to, deleted or names something, instead of being read."""
    parent = site.parent
    if parent is None or parent.kind in WRITTEN:
        return True
    if parent.kind in ("binary_operator", "boolean_operator"):
        return False
    return site.is_field("left") or site.is_field("name")


def is_passed_over(node: "Node") -> bool:
    """Whether nothing in the node is a place for a mistake."""
    kind = node.type
    if kind in PASSED_OVER:
        return True
    if kind == "if_statement":
        return ONLY_FOR_TYPES.fullmatch(content_of(node.child_by_field_name("condition"))) is not None
    if kind in ("assignment", "augmented_assignment"):
        return DUNDER.fullmatch(content_of(node.child_by_field_name("left"))) is not None
    if kind == "call":
        return LOGGING.fullmatch(content_of(node.child_by_field_name("function"))) is not None
    if kind == "decorated_definition":
        return any(content_of(child).endswith(b"overload") for child in node.children if child.type == "decorator")
    return False
