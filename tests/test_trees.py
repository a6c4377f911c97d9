"""Listings and searches, compared with what `find` and `git grep` print in a real checkout."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentdata.harvest.explore import quote_path
from agentdata.harvest.git import Repository
from agentdata.harvest.trees import Trees
from tests.histories import History
from tests.tellings import acted, output_bytes, tell

FILES: dict[str, str | bytes | None] = {
    "a.py": "word = 1\nwords = 2\nsword\nword\n",
    "b.py": "x.word(word)\r\nnothing\n_word word_ word2\n",
    "b/a.py": "no such thing\n",
    "b/c/d.py": "def word():\n    pass",
    "b-c/e.py": "éword wordé word\n",
    "latin.py": b"\xe9 word \xff\n",
    "binary.py": b"word\0word\n",
    "late.py": b"word\n" + b"x" * 9000 + b"\0\nword\n",
    "empty.py": "",
    "lines.py": "\n\n\nword\x0bword\u2028word\n\n",
    "with space.py": "word\n",
    "unicode_\u00e9.py": "word\n",
    "tab\t.py": "word\n",
    'quote".py': "word\n",
    "other.txt": "word\n",
    ".hidden.py": "word\n",
    ".dir/a.py": "word\n",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> History:
    history = History(tmp_path_factory.mktemp("trees") / "repository")
    history.commit("First", FILES)
    return history


@pytest.fixture
def trees(shared: History) -> Iterator[Trees]:
    with Repository(shared.path / ".git") as repository:
        yield Trees(repository)


def root(trees: Trees, history: History) -> str:
    return trees.repository.commit(history.head()).tree


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_listing_is_what_find_prints(shared: History, trees: Trees, depth: int) -> None:
    command = f"find . -mindepth 1 -maxdepth {depth} -not -path '*/.*' | LC_ALL=C sort"
    printed = output_bytes(shared.path, "sh", "-c", command)
    assert b"".join(path + b"\n" for path in sorted(trees.listing(root(trees, shared), depth))) == printed


@pytest.mark.parametrize("word", ["word", "pass", "nothing", "absent", "def", "x"])
def test_a_search_is_what_git_grep_prints(shared: History, trees: Trees, word: str) -> None:
    printed = output_bytes(shared.path, "sh", "-c", f"git grep -n -I -w {word} -- '*.py' || true")
    files = trees.files(root(trees, shared), (".py",))
    hits = trees.hits(trees.containing(files, word.encode()), word.encode(), 1000)
    assert b"".join(quote_path(hit.path).encode() + b":%d:" % hit.line + hit.text + b"\n" for hit in hits) == printed


@given(st.lists(st.text(st.sampled_from("ab_ .\r\x0b\u00e9\n"), max_size=20), min_size=1, max_size=4))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_words_are_where_git_grep_finds_them(shared: History, texts: list[str]) -> None:
    copy = History(shared.path.parent / f"random-{abs(hash(tuple(texts)))}")
    files = {f"{place}.py": ("100644", text.encode()) for place, text in enumerate(texts)}
    copy.import_branch([files, files], ["one", "two"])
    printed = output_bytes(copy.path, "sh", "-c", "git grep -n -I -w ab main -- '*.py' | sed 's/^main://'")
    with Repository(copy.path / ".git") as repository:
        trees = Trees(repository)
        found = trees.files(repository.commit(copy.head()).tree, (".py",))
        hits = trees.hits(trees.containing(found, b"ab"), b"ab", 1000)
    assert b"".join(hit.path + b":%d:" % hit.line + hit.text + b"\n" for hit in hits) == printed


def test_hits_stop_at_the_most_that_are_wanted(shared: History, trees: Trees) -> None:
    assert len(trees.hits(trees.files(root(trees, shared), (".py",)), b"word", 3)) == 3


@pytest.mark.parametrize(
    ("path", "found"), [(b"b/c/d.py", True), (b"b/c", True), (b"b/x.py", False), (b"a.py/x", False)]
)
def test_lookup_finds_what_is_there(shared: History, trees: Trees, path: bytes, found: bool) -> None:
    assert (trees.lookup(root(trees, shared), path) is not None) == found


def test_weights_are_the_sizes_of_the_files(shared: History, trees: Trees) -> None:
    sizes = [
        len(text.encode() if isinstance(text, str) else text or b"")
        for name, text in FILES.items()
        if name.endswith(".py")
    ]
    assert trees.weigh(root(trees, shared), (".py",)) == (len(sizes), sum(sizes))


def test_the_scope_is_the_whole_tree_where_it_is_small(shared: History, trees: Trees) -> None:
    tree = root(trees, shared)
    assert trees.scope(tree, (".py",), b"b/c/d.py", 1 << 20) == (b"", trees.files(tree, (".py",)))


def test_the_scope_narrows_to_the_directory_that_fits(shared: History, trees: Trees) -> None:
    directory, files = trees.scope(root(trees, shared), (".py",), b"b/c/d.py", 40)
    assert (directory, [path for path, _ in files]) == (b"b/", [b"b/a.py", b"b/c/d.py"])


def test_no_scope_fits_a_file_that_is_too_large(shared: History, trees: Trees) -> None:
    assert trees.scope(root(trees, shared), (".py",), b"b/c/d.py", 5) == (b"", ())


def test_an_index_beyond_the_bound_is_made_again(
    shared: History, trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentdata.harvest.trees.MOST_POSTINGS", 0)
    files = trees.files(root(trees, shared), (".py",))
    before = trees.containing(files, b"word")
    trees.trim()
    assert trees.containing(files, b"word") == before


def test_sha_256_trees_are_read(tmp_path: Path) -> None:
    history = History(tmp_path / "repository", object_format="sha256")
    history.commit("First", {"d/a.py": "word\n"})
    with Repository(history.path / ".git") as repository:
        trees = Trees(repository)
        entry = trees.lookup(repository.commit(history.head()).tree, b"d/a.py")
    assert entry is not None
    assert entry.oid == history.git("rev-parse", "HEAD:d/a.py")


@pytest.mark.parametrize("directory", ["src", "[slug]", "a*b", "what?", "back\\slash", "with space", "it's", ":(top)"])
def test_a_narrowed_search_prints_the_same_in_a_checkout(history: History, tmp_path: Path, directory: str) -> None:
    others = dict.fromkeys(("s/b.py", "acb/b.py", "whatX/b.py", "b.py", "src2/b.py"), "find_me\n")
    many = "".join(f"line_{number}\n" for number in range(500))
    history.commit("First", {**others, f"{directory}/a.py": "def find_me():\n    return 1\n", "large.py": many})
    history.commit("Change `find_me`", {f"{directory}/a.py": "def find_me():\n    return 2\n"})
    told = tell(history.path, "exploration.policy=explore", "exploration.search_bytes=200", last=1)
    searches = [event for event in told.traces[0].events if event.kind == "search"]
    assert [shlex.split(event.command)[:2] for event in searches] == [["git", "grep"]]
    assert acted(told.traces[0], history.path, tmp_path / "checkout") == history.git("rev-parse", "HEAD^{tree}")
