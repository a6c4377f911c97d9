"""setup.py to what it declares, read as a syntax tree: nothing in it is run."""

import ast
from collections.abc import Iterator

from agentdata.environments.declarations import Declared, Group, Kind, cleaned
from agentdata.environments.project_files import extra_group, strings, table, text
from agentdata.environments.snapshot import Snapshot
from agentdata.environments.tool_files import read_requirements

KEYWORDS: dict[str, Kind] = {"install_requires": "run", "tests_require": "test", "setup_requires": "build"}


class UnknownError(Exception):
    """An expression that cannot be known without running it."""


def read_setup_script(snapshot: Snapshot) -> Declared:
    """What the call of `setup` in setup.py declares, as far as its arguments are literal or names of literals."""
    try:
        module = ast.parse(snapshot.text("setup.py"))
    except (SyntaxError, ValueError, RecursionError):
        return Declared()
    reader = _Reader(snapshot)
    arguments: dict[str, object] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            reader.assign(node)
        elif isinstance(node, ast.Call) and _called(node).endswith(("append", "extend", "update", "insert")):
            reader.extend(node)
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and _called(node) == "setup":
            arguments |= dict(reader.arguments(node))
    return _declared(arguments)


def _declared(arguments: dict[str, object]) -> Declared:
    groups = [
        Group(origin=f"setup.py {key}", kind=kind, requirements=cleaned(arguments.get(key)))
        for key, kind in KEYWORDS.items()
    ]
    for name, lines in table(arguments, "extras_require").items():
        condition = name.partition(":")[2]
        marked = [f"{line} ; {condition}" for line in strings(lines)] if condition else lines
        if name.startswith(":"):
            groups.append(Group(origin="setup.py extras_require", kind="run", requirements=cleaned(marked)))
        else:
            groups.append(extra_group(f"setup.py extras_require {name}", name.partition(":")[0], marked))
    return Declared(
        name=text(arguments.get("name")),
        requires_python=text(arguments.get("python_requires")),
        classifiers=strings(arguments.get("classifiers")),
        groups=tuple(group for group in groups if group.requirements),
    )


def _called(node: ast.Call) -> str:
    return (
        node.func.id
        if isinstance(node.func, ast.Name)
        else node.func.attr
        if isinstance(node.func, ast.Attribute)
        else ""
    )


class _Reader:
    """Values of names as far as they are literal."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.names: dict[str, object] = {}

    def assign(self, node: ast.Assign | ast.AnnAssign | ast.AugAssign) -> None:
        if node.value is None:
            return
        try:
            value = self.value(node.value)
        except UnknownError:
            return
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Name):
                old = self.names.get(target.id)
                added = isinstance(node, ast.AugAssign) and isinstance(old, list) and isinstance(value, list)
                self.names[target.id] = [*old, *value] if added and isinstance(old, list) else value  # type: ignore[misc]
            elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
                owner = self.names.get(target.value.id)
                if isinstance(owner, dict) and isinstance(target.slice, ast.Constant):
                    owner[target.slice.value] = value

    def extend(self, node: ast.Call) -> None:
        owner: object = None
        if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            owner = self.names.get(node.func.value.id)
        try:
            value = self.value(node.args[-1]) if node.args else None
        except UnknownError:
            return
        if isinstance(owner, list):
            owner.extend(value if isinstance(value, list) else [value])
        elif isinstance(owner, dict) and isinstance(value, dict):
            owner.update(value)

    def arguments(self, call: ast.Call) -> Iterator[tuple[str, object]]:
        for keyword in call.keywords:
            try:
                value = self.value(keyword.value)
            except UnknownError:
                continue
            if keyword.arg is not None:
                yield keyword.arg, value
            elif isinstance(value, dict):
                yield from ((key, item) for key, item in value.items() if isinstance(key, str))

    def value(self, node: ast.expr) -> object:
        """Value of an expression. Raises UnknownError."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() if node.id in self.names:
                return self.names[node.id]
            case ast.List() | ast.Tuple() | ast.Set():
                return [item for element in node.elts for item in self._element(element)]
            case ast.Dict():
                return self._dictionary(node)
            case ast.BinOp(op=ast.Add()):
                return self._sum(self.value(node.left), self.value(node.right))
            case ast.BinOp(op=ast.Mod()):
                return self._formatted(self.value(node.left), self.value(node.right))
            case ast.JoinedStr():
                return "".join(text(self.value(part)) for part in node.values)
            case ast.FormattedValue():
                return self.value(node.value)
            case ast.Subscript(value=owner, slice=ast.Constant(value=key)):
                inner = self.value(owner)
                if isinstance(inner, dict) and key in inner:
                    return inner[key]
            case ast.Call():
                return self._call(node)
        raise UnknownError

    def _element(self, node: ast.expr) -> list[object]:
        try:
            if isinstance(node, ast.Starred):
                inner = self.value(node.value)
                return list(inner) if isinstance(inner, list) else []
            return [self.value(node)]
        except UnknownError:
            return []

    def _dictionary(self, node: ast.Dict) -> dict[object, object]:
        found: dict[object, object] = {}
        for key, item in zip(node.keys, node.values, strict=True):
            try:
                value = self.value(item)
                if key is None and isinstance(value, dict):
                    found.update(value)
                elif key is not None:
                    found[self.value(key)] = value
            except (UnknownError, TypeError):
                continue
        return found

    def _sum(self, left: object, right: object) -> object:
        if isinstance(left, list) and isinstance(right, list):
            return [*left, *right]
        if isinstance(left, str) and isinstance(right, str):
            return left + right
        raise UnknownError

    def _formatted(self, left: object, right: object) -> str:
        try:
            return text(left) % (tuple(right) if isinstance(right, list) else right)
        except (TypeError, ValueError) as error:
            raise UnknownError from error

    def _call(self, node: ast.Call) -> object:
        """`dict(a=[...])`, `"a b".split()`, `list(...)`, or whatever reads a file of requirements named in it."""
        name = _called(node)
        if name == "dict" and not node.args:
            return dict(self.arguments(node))
        if name in ("list", "tuple", "sorted", "set") and len(node.args) == 1:
            return self.value(node.args[0])
        paths = [
            part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)
        ]
        files = [path for path in paths if path.endswith((".txt", ".in", ".pip")) and self.snapshot.text(path)]
        if files:
            return [line for path in files for line in read_requirements(self.snapshot, path).requirements]
        if name in ("split", "splitlines") and isinstance(node.func, ast.Attribute):
            words = self.value(node.func.value)
            if isinstance(words, str):
                return words.split() if name == "split" and not node.args else words.splitlines()
        if name == "get" and node.args:
            return self.value(node.args[-1])
        raise UnknownError
