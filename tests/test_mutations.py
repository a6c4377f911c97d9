"""Mutations: every one compiles, applies with git and is undone to the byte; none is where no test could see it."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentdata.environments.diffs import Text, apply, are_apart, unified
from agentdata.environments.mutations import KINDS, Mutation, candidates, combinations, combine, is_mutable
from agentdata.errors import UsageError
from tests.histories import History

PACKAGE = Path(__file__).parent.parent / "agentdata"
SOURCES = {str(path.relative_to(PACKAGE.parent)): path.read_bytes() for path in sorted(PACKAGE.rglob("*.py"))}
MUTABLE = [path for path in SOURCES if is_mutable(path) and len(SOURCES[path]) > 500]


def git_apply(tree: Path, patch: str, *options: str) -> None:
    """Apply a patch in a directory, strictly."""
    done = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", *options, "-"], input=patch.encode(), capture_output=True, cwd=tree
    )
    assert done.returncode == 0, done.stderr.decode() + patch


def write_tree(tree: Path, sources: dict[str, bytes]) -> None:
    for path, source in sources.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(source)


def mutated(mutation: Mutation, sources: dict[str, bytes]) -> dict[str, bytes]:
    """The files of a mutation as its edits make them."""
    return {
        path: apply(
            sources[path],
            [(edit.start, edit.end, edit.new.encode()) for edit in mutation.edits if edit.path == path],
        )
        for path in dict.fromkeys(edit.path for edit in mutation.edits)
    }


def check_there_and_back(mutation: Mutation, tree: Path, sources: dict[str, bytes]) -> None:
    """Patch, reversed patch and gold patch agree with the edits, for git."""
    expected = mutated(mutation, sources)
    for undo in ((mutation.patch, "-R"), (mutation.gold_patch,)):
        git_apply(tree, mutation.patch)
        assert {path: (tree / path).read_bytes() for path in expected} == expected
        git_apply(tree, *undo)
        assert all((tree / path).read_bytes() == sources[path] for path in expected)


def kinds_of(source: str, *kinds: str) -> list[str]:
    """The mutated texts of a file, one for each candidate."""
    found = candidates("package/module.py", source.encode(), seed=0, kinds=kinds)
    return [
        mutated(mutation, {"package/module.py": source.encode()})["package/module.py"].decode() for mutation in found
    ]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's own sources in a directory that is no repository."""
    path: Path = tmp_path_factory.mktemp("tree")
    write_tree(path, SOURCES)
    return path


@settings(max_examples=40, deadline=None)
@given(path=st.sampled_from(MUTABLE), seed=st.integers(0, 1 << 30))
def test_a_candidate_applies_and_is_undone_to_the_byte(tree: Path, path: str, seed: int) -> None:
    for mutation in candidates(path, SOURCES[path], seed=seed, most=4):
        check_there_and_back(mutation, tree, SOURCES)


@pytest.mark.parametrize("path", MUTABLE[::4])
def test_every_candidate_compiles_and_none_is_there_twice(path: str) -> None:
    texts = [mutated(mutation, SOURCES)[path] for mutation in candidates(path, SOURCES[path], seed=7)]
    for text in texts[::10]:
        compile(text, path, "exec", dont_inherit=True)
    assert texts
    assert len({SOURCES[path], *texts}) == len(texts) + 1


@settings(max_examples=15, deadline=None)
@given(path=st.sampled_from(MUTABLE), seed=st.integers(0, 1 << 30))
def test_the_seed_decides_everything(path: str, seed: int) -> None:
    assert list(candidates(path, SOURCES[path], seed=seed, most=30)) == list(
        candidates(path, SOURCES[path], seed=seed, most=30)
    )


def test_a_few_candidates_show_many_kinds() -> None:
    path = "agentdata/harvest/changes.py"
    few = list(candidates(path, SOURCES[path], seed=3, most=15))
    assert len(few) == 15
    assert len({mutation.kinds for mutation in few}) == 15


def test_line_ends_of_other_systems_stay(tmp_path: Path) -> None:
    source = b"def f(a, b):\r\n    if a:\r\n        return b\r\n    return a + 1"
    write_tree(tmp_path, {"m.py": source})
    found = list(candidates("m.py", source, seed=1))
    assert len(found) > 5
    for mutation in found:
        check_there_and_back(mutation, tmp_path, {"m.py": source})


@pytest.mark.parametrize(
    "path", ["with space/m.py", 'quo"te/m.py', "back\\slash/m.py", "ünïcode/m.py", "tab\there/m.py"]
)
def test_a_path_that_must_be_quoted(tmp_path: Path, path: str) -> None:
    source = b"def f(a, b):\n    return a + b\n"
    write_tree(tmp_path, {path: source})
    for mutation in candidates(path, source, seed=1):
        check_there_and_back(mutation, tmp_path, {path: source})


LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n", "é\n", "d\r\n"]), max_size=40)


@settings(max_examples=60, deadline=None)
@given(lines=LINES, tail=st.sampled_from(["", "end"]), data=st.data())
def test_any_replacements_make_a_patch_that_git_takes(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], tail: str, data: st.DataObject
) -> None:
    source = ("".join(lines) + tail).encode().decode().encode()
    whole = source.decode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), unique=True, max_size=6)))
    replacements = [
        (
            len(whole[:start].encode()),
            len(whole[:end].encode()),
            data.draw(st.sampled_from(["", "x", "x\n", "\ny"])).encode(),
        )
        for start, end in zip(cuts[::2], cuts[1::2], strict=False)
    ]
    patch, back = unified("f", Text(source), replacements)
    after = apply(source, replacements)
    assert are_apart(replacements)
    assert (patch == "") == (source == after)
    if not patch or not source or not after:
        return
    directory = tmp_path_factory.mktemp("patched")
    (directory / "f").write_bytes(source)
    git_apply(directory, patch)
    assert (directory / "f").read_bytes() == after
    git_apply(directory, back)
    assert (directory / "f").read_bytes() == source


CASES = [
    ("arithmetic", "def f(a, b):\n    return a * b\n", "def f(a, b):\n    return a / b\n"),
    ("arithmetic", "def f(a):\n    a.n += 2\n", "def f(a):\n    a.n -= 2\n"),
    ("boolean", "def f(a, b):\n    return a and b\n", "def f(a, b):\n    return a or b\n"),
    ("comparison", "def f(a, b):\n    return a < b\n", "def f(a, b):\n    return a <= b\n"),
    ("comparison", "def f(a, b):\n    return a not in b\n", "def f(a, b):\n    return a in b\n"),
    ("constant", "def f():\n    return 3\n", "def f():\n    return 2\n"),
    ("constant", "def f(a):\n    a.go = True\n", "def f(a):\n    a.go = False\n"),
    ("default", "def f(a=True):\n    pass\n", "def f(a=False):\n    pass\n"),
    ("default", "def f(a):\n    return a.get(1, 2)\n", "def f(a):\n    return a.get(1)\n"),
    ("off-by-one", "def f(a):\n    return a + 1\n", "def f(a):\n    return a\n"),
    ("off-by-one", "def f(a):\n    return len(a)\n", "def f(a):\n    return len(a) - 1\n"),
    ("bounds", "def f(a, n):\n    return a[:n]\n", "def f(a, n):\n    return a[:n - 1]\n"),
    ("bounds", "def f(a):\n    return a[1:]\n", "def f(a):\n    return a[2:]\n"),
    ("bounds", "def f(n):\n    return range(1, n)\n", "def f(n):\n    return range(n)\n"),
    ("variable", "def f(a, b):\n    return a\n", "def f(a, b):\n    return b\n"),
    ("attribute", "def f(a):\n    a.x()\n    return a.y()\n", "def f(a):\n    a.x()\n    return a.x()\n"),
    ("sibling-call", "def f(a, b):\n    return min(a, b)\n", "def f(a, b):\n    return max(a, b)\n"),
    ("conversion", "def f(a):\n    return str(a)\n", "def f(a):\n    return a\n"),
    ("conversion", "def f(a):\n    return a.copy()\n", "def f(a):\n    return a\n"),
    ("swapped-arguments", "def f(a, b):\n    return g(a, b)\n", "def f(a, b):\n    return g(b, a)\n"),
    ("keyword", "def f(a):\n    return g(a, k=1)\n", "def f(a):\n    return g(a)\n"),
    ("inverted-condition", "def f(a):\n    if a:\n        g()\n", "def f(a):\n    if not a:\n        g()\n"),
    ("inverted-condition", "def f(a, b):\n    return 1 if a else b\n", "def f(a, b):\n    return b if a else 1\n"),
    ("partial-condition", "def f(a, b):\n    return a or b\n", "def f(a, b):\n    return b\n"),
    ("await", "async def f(a):\n    return await a\n", "async def f(a):\n    return a\n"),
    ("guard", "def f(a):\n    # Why.\n    if a:\n        raise X(a)\n    g()\n", "def f(a):\n    g()\n"),
    ("branch", "def f(a):\n    if a:\n        g()\n    else:\n        h()\n", "def f(a):\n    if a:\n        g()\n"),
    ("statement", "def f(a):\n    g(a)\n    h()\n", "def f(a):\n    h()\n"),
    ("statement", "def f(a):\n    if a:\n        g(a)\n    h()\n", "def f(a):\n    if a:\n        pass\n    h()\n"),
    ("order", "def f(a):\n    a.x()\n    a.y()\n", "def f(a):\n    a.y()\n    a.x()\n"),
    ("return", "def f(a):\n    return g(a)\n", "def f(a):\n    g(a)\n"),
    ("return", "def f(a):\n    return a.x\n", "def f(a):\n    return\n"),
    ("loop", "def f(a):\n    for b in a:\n        continue\n", "def f(a):\n    for b in a:\n        break\n"),
    ("exception", "try:\n    g()\nexcept (A, B):\n    h()\n", "try:\n    g()\nexcept A:\n    h()\n"),
    ("exception", "try:\n    g()\nexcept OSError:\n    h()\n", "try:\n    g()\nexcept FileNotFoundError:\n    h()\n"),
    ("exception", "try:\n    g()\n    h()\nexcept A:\n    h()\n", "g()\nh()\n"),
]


@pytest.mark.parametrize(
    ("kind", "source", "expected"), CASES, ids=[f"{kind}-{n}" for n, (kind, *_) in enumerate(CASES)]
)
def test_a_kind_makes_its_mistake(kind: str, source: str, expected: str) -> None:
    assert expected in kinds_of(source, kind)


def test_every_kind_has_a_case() -> None:
    assert {kind for kind, *_ in CASES} == KINDS.keys()


@pytest.mark.parametrize(
    "source",
    [
        '"""If a < 1 and b."""\n',
        "def f(a: dict[str, 3] = g) -> 4:\n    ...\n",
        '__all__ = ["a", "b"]\n__version__ = 1 + 2\n',
        "import typing\nif typing.TYPE_CHECKING:\n    x = 1\n",
        'if __name__ == "__main__":\n    main(1)\n',
        "def f(a, b):\n    logger.info('%s', a + 1)\n",
        "def f(a, b):\n    raise X(a + 1, b)\n",
        "@overload\ndef f(a=1):\n    return a + 1\n",
        "def f(a):\n    assert a > 1\n",
        "def f(a):\n    return 'a < 1'\n    ''\n",
        "@app(1, help=2)\ndef f():\n    ...\n",
    ],
)
def test_what_no_test_can_see_is_left_alone(source: str) -> None:
    assert kinds_of(source, *(KINDS.keys() - {"return"})) == []


@pytest.mark.parametrize(
    ("path", "mutable"),
    [
        ("src/click/core.py", True),
        ("src/click/testing.py", True),
        ("src/click/types.py", True),
        ("src/click/versions.py", True),
        ("tests/test_core.py", False),
        ("src/conftest.py", False),
        ("setup.py", False),
        ("src/p/_version.py", False),
        ("src/p/__about__.py", False),
        ("src/p/__version__.py", False),
        ("docs/conf.py", False),
        ("src/p/stubs.pyi", False),
        ("README.md", False),
    ],
)
def test_which_files_are_mutated(path: str, mutable: bool) -> None:
    assert is_mutable(path) == mutable


@pytest.mark.parametrize("source", [b"print 1, 2\n", b"x = '\xff'\n", b"def f(:\n", b"", b"x = 1\ry = 2\n"])
def test_a_file_that_cannot_be_mutated_has_no_candidates(source: bytes) -> None:
    assert list(candidates("m.py", source, seed=0)) == []


def test_a_deep_expression_is_no_trouble() -> None:
    source = "def f(a):\n    return " + " + ".join(["a"] * 3000) + "\n"
    assert list(candidates("m.py", source.encode(), seed=0, most=2)) is not None


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="no kind of mutation 'typo'; choose from arithmetic"):
        candidates("m.py", b"", seed=0, kinds=("typo",))


@pytest.mark.parametrize("within", ["function", "file", "tree"])
def test_combined_mutations_apply_together(tree: Path, within: str) -> None:
    paths = ("agentdata/shards.py", "agentdata/stages.py")
    several = [one for path in paths for one in candidates(path, SOURCES[path], seed=2, most=150)]
    found = list(combinations(several, SOURCES, seed=5, size=3, within=within, most=6))  # type: ignore[arg-type]
    assert len(found) == 6
    for mutation in found:
        assert len(mutation.kinds) == 3
        assert within != "function" or len({edit.symbol for edit in mutation.edits}) == 1
        for path, text in mutated(mutation, SOURCES).items():
            compile(text, path, "exec", dont_inherit=True)
        check_there_and_back(mutation, tree, SOURCES)


def test_mutations_that_overlap_are_not_combined() -> None:
    source = b"def f(a, b):\n    return a + b\n"
    one, other = list(candidates("m.py", source, seed=0, kinds=("return", "arithmetic")))
    assert combine([one, other], {"m.py": source}) is None


def test_a_patch_applies_in_a_repository(history: History) -> None:
    source = "def f(a, b):\n    if a > b:\n        return a\n    return b\n"
    history.commit("Begin", {"m.py": source})
    for mutation in candidates("m.py", source.encode(), seed=0):
        git_apply(history.path, mutation.patch, "--index")
        git_apply(history.path, mutation.gold_patch, "--index")
    assert history.git("status", "--porcelain") == ""
