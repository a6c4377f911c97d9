"""Suffix to language, and tree-sitter parses: does a file parse, and which definitions enclose some lines of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tree_sitter import Language as Grammar
    from tree_sitter import Node, Tree


@dataclass(frozen=True)
class Language:
    """A programming language: its suffixes, its grammar, and the nodes that define something with a name."""

    name: str
    suffixes: tuple[str, ...]
    grammar: str
    """`module:function` of the grammar package."""
    definitions: frozenset[str]


def _language(name: str, suffixes: str, grammar: str, definitions: str) -> Language:
    return Language(name, tuple(suffixes.split()), grammar, frozenset(definitions.split()))


SCRIPT = "function_declaration generator_function_declaration class_declaration method_definition"
TYPED = f"{SCRIPT} abstract_class_declaration interface_declaration enum_declaration type_alias_declaration"
C_LIKE = "function_definition struct_specifier union_specifier enum_specifier"

LANGUAGES = {
    language.name: language
    for language in (
        _language(
            "python", ".py .pyi .pyx .pyw", "tree_sitter_python:language", "function_definition class_definition"
        ),
        _language("javascript", ".js .jsx .mjs .cjs", "tree_sitter_javascript:language", SCRIPT),
        _language("typescript", ".ts .mts .cts", "tree_sitter_typescript:language_typescript", TYPED),
        _language("tsx", ".tsx", "tree_sitter_typescript:language_tsx", TYPED),
        _language(
            "java",
            ".java",
            "tree_sitter_java:language",
            "class_declaration interface_declaration enum_declaration record_declaration method_declaration "
            "constructor_declaration",
        ),
        _language("go", ".go", "tree_sitter_go:language", "function_declaration method_declaration type_spec"),
        _language(
            "rust",
            ".rs",
            "tree_sitter_rust:language",
            "function_item struct_item enum_item trait_item impl_item mod_item macro_definition union_item",
        ),
        _language("c", ".c .h", "tree_sitter_c:language", C_LIKE),
        _language(
            "cpp",
            ".cpp .cc .cxx .hpp .hh .hxx",
            "tree_sitter_cpp:language",
            f"{C_LIKE} class_specifier namespace_definition",
        ),
        _language(
            "csharp",
            ".cs",
            "tree_sitter_c_sharp:language",
            "class_declaration interface_declaration struct_declaration enum_declaration record_declaration "
            "method_declaration constructor_declaration property_declaration",
        ),
        _language("ruby", ".rb", "tree_sitter_ruby:language", "method singleton_method class module"),
        _language(
            "php",
            ".php",
            "tree_sitter_php:language_php",
            "function_definition method_declaration class_declaration interface_declaration trait_declaration "
            "enum_declaration",
        ),
    )
}
BY_SUFFIX = {suffix: language for language in LANGUAGES.values() for suffix in language.suffixes}


@dataclass(frozen=True, slots=True)
class Symbol:
    """A definition and the lines it spans, from 1, inclusive."""

    name: str
    start: int
    end: int


def language_of(path: str) -> Language | None:
    """The language of a path's suffix."""
    stem, dot, suffix = path.rpartition(".")
    return BY_SUFFIX.get(f".{suffix.lower()}") if dot and stem and stem[-1] != "/" else None


@cache
def _grammar(language: Language) -> "Grammar":
    # Loaded on first use: a run over one language does not pay for the others, and the command line for none.
    import tree_sitter

    module, _, function = language.grammar.partition(":")
    return tree_sitter.Language(getattr(import_module(module), function)())


def parse(language: Language, content: bytes) -> "Tree":
    """Parse a file. Errors become error nodes (`tree.root_node.has_error`)."""
    import tree_sitter

    # A parser is cheap, and no two threads may use one.
    return tree_sitter.Parser(_grammar(language)).parse(content)


def enclosing(tree: "Tree", language: Language, first: int, last: int) -> list[Symbol]:
    """Definitions that enclose all the lines `first` to `last` (from 1, inclusive), the innermost first."""
    return list(_climb(tree.root_node.descendant_for_point_range((first - 1, 0), (last - 1, 1 << 20)), language))


def _climb(node: "Node | None", language: Language) -> Iterator[Symbol]:
    while node is not None:
        if node.type in language.definitions:
            start = node
            if node.parent is not None and node.parent.type in ("decorated_definition", "export_statement"):
                start = node.parent
            yield Symbol(_name(node), start.start_point[0] + 1, node.end_point[0] + 1)
        node = node.parent


def _name(node: "Node") -> str:
    named = (
        node.child_by_field_name("name") or node.child_by_field_name("declarator") or node.child_by_field_name("type")
    )
    while named is not None and (deeper := named.child_by_field_name("declarator")) is not None:
        named = deeper
    return named.text.decode("utf-8", "replace") if named is not None and named.text else ""
