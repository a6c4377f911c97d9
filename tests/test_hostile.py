"""Repositories made to do harm are harvested or rejected: nothing runs, nothing outside of the run is written."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.histories import History, numbered
from tests.runs import Finished, agentdata, measured, reasons, small_history, table

GROWN = numbered("helper", 5)


def harvest(*arguments: str | Path, run: Path, **options: object) -> Finished:
    return agentdata("harvest", "contextual", *arguments, "-o", run, "-j1", **options)  # type: ignore[arg-type]


def harvested_or_refused(path: Path, run: Path, *more: str, seconds: int = 60) -> Finished:
    """Harvest; what it gives must check out, and a refusal must be told in words."""
    done = harvest(path, *more, run=run, seconds=seconds)
    done.has_no_traceback()
    assert done.status in (0, 1), done
    if done.status == 0:
        agentdata("check", run, "--share", "1").succeeds()
    else:
        done.explains(path.name)
    return done


def entries_of(history: History, tree: str) -> list[tuple[str, str, bytes]]:
    """(mode, object, name) of the entries of a tree."""
    listed = subprocess.run(
        ["git", "-C", str(history.path), "ls-tree", "-z", tree], capture_output=True, check=True
    ).stdout.split(b"\0")[:-1]
    return [
        (head.split()[0].decode(), head.split()[2].decode(), name)
        for head, _, name in (one.partition(b"\t") for one in listed)
    ]


def make_tree(history: History, entries: Sequence[tuple[str, str, bytes]]) -> str:
    """A tree with any names, also such as git would refuse."""
    content = b"".join(
        mode.lstrip("0").encode() + b" " + name + b"\0" + bytes.fromhex(oid)
        for mode, oid, name in sorted(entries, key=lambda one: one[2] + (b"/" if one[0] == "040000" else b""))
    )
    return history.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=content)


def blob(history: History, content: bytes) -> str:
    return history.git("hash-object", "-w", "--stdin", stdin=content)


def commit_tree(history: History, tree: str, message: str = "Grow", *parents: str) -> str:
    """A commit of a tree on the current branch, past the index."""
    history.time += 60
    before = parents or (history.head(),)
    named = [word for parent in before for word in ("-p", parent)]
    commit = history.git("commit-tree", tree, *named, "-m", message)
    history.git("update-ref", "refs/heads/main", commit)
    return commit


def commit_raw(
    history: History, *, author: bytes, committer: bytes, message: bytes, more: bytes = b"", helper: str = GROWN
) -> str:
    """A commit object written byte by byte, with a change of `helper.py` in it."""
    entries = [one for one in entries_of(history, "HEAD^{tree}") if one[2] != b"helper.py"]
    tree = make_tree(history, [*entries, ("100644", blob(history, helper.encode()), b"helper.py")])
    head = b"tree %s\nparent %s\n" % (tree.encode(), history.head().encode())
    content = head + author + committer + more + b"\n" + message
    commit = history.git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=content)
    history.git("update-ref", "refs/heads/main", commit)
    return commit


@pytest.fixture
def history(tmp_path: Path) -> History:
    return small_history(tmp_path / "hostile", 3, name="helper")


# Names


NAMES = [
    b"new\nline.py",
    b'quo"te.py',
    b"apo'strophe $(touch canary) `touch canary`.py",
    b"tab\t.py",
    b"back\\slash.py",
    b"\xff\xfe.py",
    b"-rf.py",
    b" leading.py",
    b"\x1b[31m.py",
    b"wei[r]d*.py",
    b":(exclude)helper.py",
    "ünïcödé.py".encode(),
    "\u202etxt.py".encode(),
    b"a" * 5000 + b".py",
]


@pytest.mark.parametrize("policy", ["direct", "explore"])
def test_changes_of_files_with_odd_names(history: History, tmp_path: Path, policy: str) -> None:
    """One commit for each name, and after them a change that sees all the names in its snapshot."""
    base = entries_of(history, "HEAD^{tree}")
    for name in NAMES:
        base.append(("100644", blob(history, numbered("helper", 3).encode() + name), name))
        commit_tree(history, make_tree(history, base), f"Add helper_1 {NAMES.index(name)}")
    base = [one for one in base if one[2] != b"helper.py"]
    base.append(("100644", blob(history, GROWN.encode()), b"helper.py"))
    commit_tree(history, make_tree(history, base), "Grow helper_1")
    harvested_or_refused(history.path, tmp_path / "run", "--policy", policy).succeeds()
    assert reasons(tmp_path / "run")["changes/unsafe-path"] >= 4
    titles = [row["title"] for row in table(tmp_path / "run", "changes")]
    assert "Grow helper_1" in titles
    assert not list(tmp_path.rglob("canary"))


@pytest.mark.parametrize("path", [b"..", b".git", b".GIT", b".", b"", b"a/b", b"../../escape.py"])
def test_trees_with_names_that_point_elsewhere(history: History, tmp_path: Path, path: bytes) -> None:
    base = entries_of(history, "HEAD^{tree}")
    inner = make_tree(history, [("100755", blob(history, b"import os\n"), b"evil.py")])
    for entry in (("040000", inner, path), ("100644", blob(history, b"import os\n"), path)):
        commit_tree(history, make_tree(history, [*base, entry]))
        grown = [one for one in base if one[2] != b"helper.py"]
        commit_tree(
            history, make_tree(history, [*grown, entry, ("100644", blob(history, GROWN.encode()), b"helper.py")])
        )
        commit_tree(history, make_tree(history, base), "Shrink")
    before = sorted(str(one) for one in tmp_path.rglob("*"))
    harvested_or_refused(history.path, tmp_path / "run")
    after = [str(one) for one in tmp_path.rglob("*") if not one.is_relative_to(tmp_path / "run")]
    assert sorted(after) == before
    for row in table(tmp_path / "run", "changes"):
        for edit in row["edits"]:
            assert not {"..", ".git", ".", ""} & {part.lower() for part in edit["path"].split("/")}


@pytest.mark.parametrize(
    "content",
    [
        b"garbage",
        b"100644 helper.py",
        b"100644 helper.py\0short",
        b"999999 x\0" + b"\1" * 20,
        b"\xff \0" + b"\0" * 20,
        b"40000 x\0" + b"\0" * 20,
    ],
)
@pytest.mark.parametrize("policy", ["direct", "explore"])
def test_a_subtree_that_is_no_tree(history: History, tmp_path: Path, content: bytes, policy: str) -> None:
    """Nobody touches it, so that git's differences pass it by; a listing of the snapshot does not."""
    bad = history.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=content)
    base = [*entries_of(history, "HEAD^{tree}"), ("040000", bad, b"sub")]
    commit_tree(history, make_tree(history, base), "Add sub")
    grown = [one for one in base if one[2] != b"helper.py"]
    commit_tree(
        history, make_tree(history, [*grown, ("100644", blob(history, GROWN.encode()), b"helper.py")]), "Grow helper_1"
    )
    harvested_or_refused(history.path, tmp_path / "run", "--policy", policy)
    assert len(table(tmp_path / "run", "markdown")) >= 2


def test_a_directory_that_is_really_a_file(history: History, tmp_path: Path) -> None:
    base = [*entries_of(history, "HEAD^{tree}"), ("040000", blob(history, b"no tree at all"), b"sub")]
    commit_tree(history, make_tree(history, base), "Add sub")
    grown = [one for one in base if one[2] != b"helper.py"]
    commit_tree(
        history, make_tree(history, [*grown, ("100644", blob(history, GROWN.encode()), b"helper.py")]), "Grow helper_1"
    )
    harvested_or_refused(history.path, tmp_path / "run")
    assert len(table(tmp_path / "run", "markdown")) >= 2


def test_a_listing_is_what_find_prints_even_for_names_with_newlines(history: History, tmp_path: Path) -> None:
    """The observation is compared with the real command in a real checkout."""
    for name in ("b\na.py", "zz\n.hidden.py", "plain.py", ".github/x.py", "deep/er/x.py", "Ä.py"):
        history.write({name: "x = 1\n"})
    history.commit("Add files", {})
    history.commit("Grow helper_1", {"helper.py": GROWN})
    harvest(history.path, run=tmp_path / "run").succeeds()
    history.git("checkout", "-q", "HEAD~1")
    (trace,) = [
        row for row in table(tmp_path / "run", "traces") if row["proof"]["head"] == history.git("rev-parse", "main")
    ]
    (listing,) = [event for event in trace["events"] if event["kind"] == "list"]
    shutil.rmtree(history.path / ".git")
    real = subprocess.run(["bash", "-c", listing["command"]], cwd=history.path, capture_output=True, check=True)
    assert listing["text"] == real.stdout.decode()


@pytest.mark.parametrize("directory", ["we[i]rd", ":(top)x", "star*", "quo'te", "-dash", "back\\slash"])
def test_a_search_narrowed_to_an_odd_directory_is_what_git_grep_prints(
    history: History, tmp_path: Path, directory: str
) -> None:
    history.commit("Add files", {f"{directory}/lib.py": numbered("special", 6), "bulk.py": numbered("special", 300)})
    history.commit("Mend special_3", {f"{directory}/lib.py": numbered("special", 6).replace("+ 3", "+ 33")})
    run = tmp_path / "run"
    harvest(history.path, "--policy", "explore", "exploration.search_bytes=3000", run=run).succeeds()
    agentdata("check", run, "--share", "1").succeeds()
    history.git("checkout", "-q", "HEAD~1")
    traces = [row for row in table(run, "traces") if row["proof"]["snapshot"] == history.head()]
    searches = [event for row in traces for event in row["events"] if event["kind"] == "search"]
    assert traces
    for event in searches:
        real = subprocess.run(["bash", "-c", event["command"]], cwd=history.path, capture_output=True, check=False)
        assert event["text"] == real.stdout.decode()


# What stands in trees besides files


def test_symbolic_links_submodules_and_pointers_are_rejected(history: History, tmp_path: Path) -> None:
    base = entries_of(history, "HEAD^{tree}")
    source = ("100644", blob(history, b"x = 1\n"), b"more.py")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"
    for message, entry in (
        ("Link", ("120000", blob(history, b"/etc/passwd"), b"link.py")),
        ("Link out", ("120000", blob(history, b"../../../outside"), b"out")),
        ("Module", ("160000", "1" * 40, b"module")),
        ("Pointer", ("100644", blob(history, pointer), b"big.py")),
        ("Binary", ("100644", blob(history, b"\0\1\2"), b"data.py")),
    ):
        commit_tree(history, make_tree(history, [*base, source, entry]), message)
        commit_tree(history, make_tree(history, base), f"Take back: {message}")
    harvested_or_refused(history.path, tmp_path / "run").succeeds()
    found = reasons(tmp_path / "run")
    assert (found["changes/symlink"], found["changes/submodule"]) == (4, 2)
    assert (found["changes/lfs-pointer"], found["changes/binary"]) == (2, 2)
    assert "root:" not in "".join(row["text"] for row in table(tmp_path / "run", "markdown"))


def test_very_deep_directories(history: History, tmp_path: Path) -> None:
    """Deeper than Python's stack."""
    tree = make_tree(history, [("100644", blob(history, numbered("helper", 3).encode()), b"deep.py")])
    for _ in range(1500):
        tree = make_tree(history, [("040000", tree, b"d")])
    base = [*entries_of(history, "HEAD^{tree}"), ("040000", tree, b"d")]
    commit_tree(history, make_tree(history, base), "Dig")
    grown = [one for one in base if one[2] != b"helper.py"]
    commit_tree(
        history, make_tree(history, [*grown, ("100644", blob(history, GROWN.encode()), b"helper.py")]), "Grow helper_1"
    )
    for policy in ("direct", "explore"):
        done = harvest(history.path, "--policy", policy, run=tmp_path / policy)
        done.succeeds()
        assert len(table(tmp_path / policy, "markdown")) >= 2


def test_a_tree_that_unfolds_to_millions_of_files(history: History, tmp_path: Path) -> None:
    """Few objects, each directory ten times the same one below: what is not touched costs nothing."""
    tree = make_tree(history, [("100644", blob(history, b"x = 1\n"), b"x%d.py" % number) for number in range(10)])
    for _ in range(8):
        tree = make_tree(history, [("040000", tree, b"d%d" % number) for number in range(10)])
    base = [*entries_of(history, "HEAD^{tree}"), ("040000", tree, b"bomb")]
    history.git("update-ref", "refs/heads/main", history.git("commit-tree", make_tree(history, base), "-m", "Begin"))
    grown = [one for one in base if one[2] != b"helper.py"]
    commit_tree(
        history, make_tree(history, [*grown, ("100644", blob(history, GROWN.encode()), b"helper.py")]), "Grow helper_1"
    )
    done = measured(
        "harvest", "contextual", history.path, "--policy", "explore", "-o", tmp_path / "run", "-j1", seconds=60
    )
    done.succeeds()
    assert done.peak_megabytes < 700
    assert len(table(tmp_path / "run", "markdown")) == 1


# Messages and people


PERSON = b"Ada <ada@example.com>"


@pytest.mark.parametrize(
    ("author", "committer"),
    [
        (b"", b"committer " + PERSON + b" 1600000000 +0000\n"),
        (b"author " + PERSON + b"\n", b"committer " + PERSON + b"\n"),
        (b"author " + PERSON + b" yesterday\n", b"committer " + PERSON + b" now\n"),
        (b"author " + PERSON + b" -86400 +0000\n", b"committer " + PERSON + b" -86400 +0000\n"),
        (b"author " + PERSON + b" 99999999999999999999 +0000\n", b"committer " + PERSON + b" 1600000000 +0000\n"),
        (b"author " + PERSON + b" 1600000000 +0000\n", b"committer " + PERSON + b" 99999999999999999999 +0000\n"),
        (b"author " + PERSON + b" " + b"9" * 5000 + b" +0000\n", b"committer " + PERSON + b" 1600000000 +0000\n"),
        (b"author " + PERSON + b" 1600000000 +9999999\n", b"committer " + PERSON + b" 1600000000 -9999\n"),
        (b"author \xff\xfe <\xff> 1600000000 +0000\n", b"committer \xff <\xff> 1600000000 +0000\n"),
        (b"author \x1b[2J\x07 <x@\x1b[31m> 1600000000 +0000\n", b"committer <> 1600000000 +0000\n"),
        (b"author nobody\n", b"committer nobody\n"),
        (b"author " + b"a" * 100_000 + b" <x> 1600000000 +0000\n", b"committer " + PERSON + b" 1600000000 +0000\n"),
    ],
)
def test_people_and_dates_of_every_kind(history: History, tmp_path: Path, author: bytes, committer: bytes) -> None:
    commit_raw(history, author=author, committer=committer, message=b"Grow helper_1\n")
    harvested_or_refused(history.path, tmp_path / "run")
    assert len(table(tmp_path / "run", "markdown")) >= 2


SIGNED = {
    "author": b"author " + PERSON + b" 1600000000 +0000\n",
    "committer": b"committer " + PERSON + b" 1600000000 +0000\n",
}


@pytest.mark.parametrize(
    "encoding",
    [
        b"latin-1",
        b"utf-16",
        b"utf-7",
        b"nonsense",
        b"undefined",
        b"unicode_escape",
        b"raw_unicode_escape",
        b"idna",
        b"punycode",
        b"rot13",
        b"hex",
        b"zlib",
        b"mbcs",
        b"utf-8\0x",
        b"../../etc/passwd",
        b"",
        b"a" * 10_000,
    ],
)
def test_messages_in_every_encoding_that_a_commit_may_claim(history: History, tmp_path: Path, encoding: bytes) -> None:
    message = b"Grow helper_1 \\ud800 +2AA- \xff\xfe \\N{DIGIT ONE}\n"
    commit_raw(history, **SIGNED, more=b"encoding " + encoding + b"\n", message=message)
    harvested_or_refused(history.path, tmp_path / "run")
    assert len(table(tmp_path / "run", "markdown")) >= 2


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\n\n\n",
        b"\xff\xfe\xfd",
        b"Grow\0helper_1",
        b"\x1b]0;owned\x07\x1b[2J",
        b'Revert "x"\n\nThis reverts commit ' + b"0" * 40 + b".",
        b'Revert "x"\n\nThis reverts commit ' + b"a" * 45 + b".",
        b"Grow (#99999999999999999999999999)",
        b"Fixes #" + b"9" * 5000,
        "\u2028\u2029\x85 Grow".encode(),
    ],
)
def test_messages_of_every_kind(history: History, tmp_path: Path, message: bytes) -> None:
    commit_raw(history, **SIGNED, message=message)
    harvested_or_refused(history.path, tmp_path / "run")
    assert len(table(tmp_path / "run", "markdown")) >= 2


MERGES = {
    "control characters": b"Merge branch 'x'\n\nsome\x01\ntext\x01\n\x01\n",
    "a name that backtracks": b"Merge branch '1" + b"_a" * 40 + b"!'",
    "a huge number": b"Merge pull request #99999999999999999999 from x/y\n\nTitle",
    "bytes": b"Merge \xff\xfe",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", MERGES)
def test_merge_messages_of_every_kind(history: History, tmp_path: Path, kind: str) -> None:
    history.branch("topic")
    history.commit("Grow helper_1", {"helper.py": GROWN})
    tip = history.head()
    history.switch("main")
    tree = history.git("rev-parse", f"{tip}^{{tree}}")
    content = b"tree %s\nparent %s\nparent %s\n" % (tree.encode(), history.head().encode(), tip.encode())
    content += SIGNED["author"] + SIGNED["committer"] + b"\n" + MERGES[kind]
    merge = history.git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=content)
    history.git("update-ref", "refs/heads/main", merge)
    harvested_or_refused(history.path, tmp_path / "run", seconds=15)
    assert len(table(tmp_path / "run", "markdown")) >= 1


@pytest.mark.parametrize(
    "message",
    [
        b"a" * 400_000,
        b"x" + b" " * 400_000 + b"y",
        b"a." * 200_000,
        b"fixes " * 60_000,
        b"\n" * 400_000 + b"x",
        b"Cc" + b"\t" * 400_000,
    ],
)
def test_long_messages_take_no_longer_than_they_are(history: History, tmp_path: Path, message: bytes) -> None:
    commit_raw(history, **SIGNED, message=b"Grow\n\n" + message)
    begun = time.monotonic()
    harvest(history.path, run=tmp_path / "run", seconds=10).has_no_traceback()
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\n" + "\n" * 90_000,
        "x = '" + "a" * 190_000 + "'\n",
        "(" * 90_000,
        "x = [\n" + "1,\n" * 30_000 + "]\n",
        "".join(f"{'if 1:':>{depth + 5}}\n" for depth in range(300)),
        "\t" * 90_000 + "\n",
        "x = 1\r" * 20_000,
        "x\u2028" * 20_000,
    ],
)
def test_files_of_every_shape_take_no_longer_than_they_are(history: History, tmp_path: Path, text: str) -> None:
    """A file appears, changes and goes, with the searching policy and every rendering."""
    history.commit("Add odd", {"odd.py": text})
    history.commit("Change odd", {"odd.py": text + "y = 2\n"})
    history.commit("Remove odd", {"odd.py": None})
    begun = time.monotonic()
    done = harvest(
        history.path,
        "--policy",
        "explore",
        "--render",
        "markdown,xml,messages",
        "most_tokens=10000000",
        run=tmp_path / "run",
        seconds=15,
    )
    done.succeeds()
    assert time.monotonic() - begun < 15


# References


@pytest.mark.parametrize(
    "name",
    [
        b"refs/pull/99999999999999999999/head",
        b"refs/pull/0/head",
        b"refs/pull/-5/head",
        "refs/pull/²/head".encode(),
        "refs/pull/٣/head".encode(),
        b"refs/pull/\xff/head",
        "refs/pull/5\u2028/head".encode(),
        b"refs/pull/x/y/z/head",
        b"refs/heads/\xff\xfe",
        "refs/heads/\u2028\x85".encode(),
        b"refs/tags/--upload-pack=touch",
    ],
)
def test_references_of_every_name(history: History, tmp_path: Path, name: bytes) -> None:
    history.branch("topic")
    history.commit("Grow helper_1", {"helper.py": GROWN})
    tip = history.head()
    history.switch("main")
    history.merge("topic", "Bring topic")
    (history.path / ".git/packed-refs").write_bytes(tip.encode() + b" " + name + b"\n")
    harvested_or_refused(history.path, tmp_path / "run").succeeds()
    assert len(table(tmp_path / "run", "markdown")) >= 1


def test_references_to_other_things_than_commits(history: History, tmp_path: Path) -> None:
    for number, name in enumerate(("HEAD:helper.py", "HEAD^{tree}"), 1):
        history.git("update-ref", f"refs/pull/{number}/head", history.git("rev-parse", name))
    harvested_or_refused(history.path, tmp_path / "run").succeeds()


def test_a_reference_that_points_out_of_the_repository(history: History, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("1" * 40)
    (history.path / ".git/refs/heads/main").unlink()
    (history.path / ".git/refs/heads/main").symlink_to(tmp_path / "secret")
    harvested_or_refused(history.path, tmp_path / "run")


def test_grafts_and_replacements_do_not_bend_the_truth(history: History, tmp_path: Path) -> None:
    history.commit("Grow helper_1", {"helper.py": GROWN})
    harvest(history.path, run=tmp_path / "true").succeeds()
    root = history.git("rev-list", "--max-parents=0", "HEAD")
    (history.path / ".git/info").mkdir(exist_ok=True)
    (history.path / ".git/info/grafts").write_text(f"{history.head()} {root}\n")
    history.git("replace", history.git("rev-parse", "HEAD~1"), root)
    harvest(history.path, run=tmp_path / "bent").succeeds()
    assert table(tmp_path / "bent", "landings") == table(tmp_path / "true", "landings")
    assert table(tmp_path / "bent", "markdown") == table(tmp_path / "true", "markdown")


# Size


def test_a_file_of_100_megabytes(history: History, tmp_path: Path) -> None:
    """It comes, changes, goes, comes again by a cherry-pick, and is a licence as well; memory stays small."""
    size = 100_000_000
    base = [one for one in entries_of(history, "HEAD^{tree}") if one[2] != b"helper.py"]
    big, other = blob(history, b"\0" * size), blob(history, b"a" * size)
    for number, added in enumerate(
        ([(big, b"big.py")], [(other, b"big.py")], [], [(other, b"moved.py")], [(other, b"LICENSE")], [])
    ):
        helper = ("100644", blob(history, numbered("helper", 5 + number).encode()), b"helper.py")
        tree = make_tree(history, [*base, helper, *(("100644", oid, name) for oid, name in added)])
        commit_tree(history, tree, f"Step {number}")
    history.time -= 60
    commit_tree(history, history.git("rev-parse", "HEAD~5^{tree}"), "Step 5")
    history.time += 60
    harvested = measured("harvest", "contextual", history.path, "-o", tmp_path / "run", "-j1")
    harvested.succeeds()
    assert harvested.peak_megabytes < 700
    assert reasons(tmp_path / "run")["changes/file-too-large"] >= 4


def test_a_large_change_that_lands_twice_is_compared_in_little_memory(tmp_path: Path) -> None:
    """Candidates for duplicates are compared by their patches, which may be as large as the history."""
    history = small_history(tmp_path / "twice", 3, name="helper")
    noise = b"".join(b"%0100d\n" % number for number in range(600_000))
    history.commit("Add bulk", {"bulk.txt": noise})
    history.branch("side", "HEAD~1")
    history.commit("On the side", {"side.py": "x = 1\n"})
    history.git("cherry-pick", "main")
    history.switch("main")
    history.merge("side", "Bring side")
    before = history.time
    history.git("rm", "-q", "bulk.txt")
    history.commit("Remove bulk")
    assert history.time > before
    history.git("cherry-pick", "HEAD~2^{/Add bulk}")
    done = measured("harvest", "changes", history.path, "-o", tmp_path / "run", "-j1")
    done.succeeds()
    assert done.peak_megabytes < 300


def test_commits_of_ten_thousand_files(history: History, tmp_path: Path) -> None:
    """Many in a row, as where dependencies are checked in: memory does not grow with them."""
    base = entries_of(history, "HEAD^{tree}")
    for turn in range(25):
        same = blob(history, b"x = %d\n" % turn)
        many = make_tree(history, [("100644", same, b"%05d.py" % number) for number in range(10_000)])
        commit_tree(history, make_tree(history, [*base, ("040000", many, b"many")]), f"Change {turn}")
    done = measured("harvest", "contextual", history.path, "-o", tmp_path / "run", "-j1")
    done.succeeds()
    assert reasons(tmp_path / "run")["changes/too-many-files"] == 25
    assert done.peak_megabytes < 400


# Code of the repository


HOOKS = """
applypatch-msg commit-msg fsmonitor-watchman post-checkout post-commit post-index-change post-merge
post-rewrite post-update pre-applypatch pre-auto-gc pre-commit pre-merge-commit pre-push pre-rebase
pre-receive prepare-commit-msg proc-receive push-to-checkout reference-transaction
sendemail-validate update post-receive p4-pre-submit
"""
EXECUTING = """
[core]
    fsmonitor = {canary}
    hooksPath = {hooks}
    sshCommand = {canary}
    pager = {canary}
    editor = {canary}
    askPass = {canary}
    gitProxy = {canary}
    alternateRefsCommand = {canary}
    attributesFile = {attributes}
[diff]
    external = {canary}
[diff "evil"]
    textconv = {canary}
    command = {canary}
    cachetextconv = true
[filter "evil"]
    smudge = {canary}
    clean = {canary}
    process = {canary}
    required = true
[merge "evil"]
    driver = {canary}
[log]
    showSignature = true
[gpg]
    program = {canary}
[gpg "ssh"]
    program = {canary}
    defaultKeyCommand = {canary}
[pager]
    rev-list = {canary}
    diff-tree = {canary}
    grep = {canary}
    log = {canary}
[alias]
    cat-file = !{canary}
    diff-tree = !{canary}
    rev-list = !{canary}
    patch-id = !{canary}
[uploadpack]
    packObjectsHook = {canary}
[credential]
    helper = !{canary}
[interactive]
    diffFilter = {canary}
[sequence]
    editor = {canary}
[trailer "sign"]
    command = {canary}
    cmd = {canary}
[gc]
    recentObjectsHook = {canary}
[include]
    path = {included}
[remote "origin"]
    url = ext::{canary}
    uploadpack = {canary}
    receivepack = {canary}
    promisor = true
    partialclonefilter = blob:none
    vcs = evil
[extensions]
    partialClone = origin
[submodule "x"]
    update = !{canary}
    url = ext::{canary}
"""


@pytest.fixture
def canary(tmp_path: Path) -> Callable[[], bool]:
    """A program that leaves a mark when it is run."""
    program = tmp_path / "canary.sh"
    program.write_text(f'#!/bin/sh\ntouch "{tmp_path}/sung"\n')
    program.chmod(0o755)
    return (tmp_path / "sung").exists


def booby_trap(history: History, tmp_path: Path) -> None:
    """Everything in a clone that may name a program names the canary."""
    program = tmp_path / "canary.sh"
    hooks = history.path / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in HOOKS.split():
        shutil.copy(program, hooks / name)
    (tmp_path / "included").write_text(
        f"[core]\n\tfsmonitor = {program}\n\tsshCommand = {program}\n[diff]\n\texternal = {program}\n"
    )
    (tmp_path / "attributes").write_text("* diff=evil filter=evil merge=evil\n")
    (history.path / ".git/info").mkdir(exist_ok=True)
    (history.path / ".git/info/attributes").write_text("* diff=evil filter=evil merge=evil\n")
    (history.path / ".gitattributes").write_text("* diff=evil filter=evil merge=evil\n")
    settings = EXECUTING.format(
        canary=program, hooks=hooks, included=tmp_path / "included", attributes=tmp_path / "attributes"
    )
    with (history.path / ".git/config").open("a") as config:
        config.write(settings)


def test_nothing_that_a_clone_names_is_run(history: History, tmp_path: Path, canary: Callable[[], bool]) -> None:
    history.commit("Attribute", {".gitattributes": "* diff=evil filter=evil merge=evil\n", "helper.py": GROWN})
    history.commit("Grow helper_1", {"helper.py": numbered("helper", 6)})
    history.commit("Move", {"helper.py": None, "moved.py": numbered("helper", 6)})
    signature = b"gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n"
    for turn in range(2):  # Two with the same author, time and subject: candidates for a duplicate.
        commit_raw(history, **SIGNED, more=signature, message=b"Signed helper_1\n", helper=numbered("helper", 7 + turn))
    harvest(history.path, "--policy", "explore", run=tmp_path / "plain").succeeds()
    booby_trap(history, tmp_path)
    done = harvest(history.path, "--policy", "explore", run=tmp_path / "run", cwd=history.path)
    assert not canary()
    done.succeeds()
    agentdata("check", tmp_path / "run", "--share", "1", cwd=history.path).succeeds()
    agentdata("show", tmp_path / "run", cwd=history.path).succeeds()
    assert not canary()
    assert [row["text"] for row in table(tmp_path / "run", "markdown")] == [
        row["text"] for row in table(tmp_path / "plain", "markdown")
    ]


def test_nothing_that_a_remote_names_is_run(history: History, tmp_path: Path, canary: Callable[[], bool]) -> None:
    booby_trap(history, tmp_path)
    url = f"file://{history.path}"
    harvest(url, "--cache", tmp_path / "cache", run=tmp_path / "run").has_no_traceback()
    assert not canary()


def test_missing_objects_of_a_booby_trapped_clone_are_not_fetched(
    history: History, tmp_path: Path, canary: Callable[[], bool]
) -> None:
    oid = history.git("rev-parse", "HEAD:helper.py")
    booby_trap(history, tmp_path)
    (history.path / ".git/objects" / oid[:2] / oid[2:]).unlink()
    harvested_or_refused(history.path, tmp_path / "run")
    assert not canary()


def test_the_environment_of_the_user_does_not_change_what_is_harvested(
    history: History, tmp_path: Path, canary: Callable[[], bool]
) -> None:
    """Variables and configuration of a user who has git set up in an uncommon way."""
    history.commit("Move", {"helper.py": None, "moved.py": numbered("helper", 4) + "\n\n\nx = 1\n"})
    harvest(history.path, run=tmp_path / "plain").succeeds()
    home = tmp_path / "home"
    home.mkdir()
    program = tmp_path / "canary.sh"
    (home / ".gitconfig").write_text(
        f"[diff]\n\trenames = false\n\tnoprefix = true\n\tmnemonicPrefix = true\n\tcontext = 0\n"
        f"\texternal = {program}\n\talgorithm = patience\n\torderFile = {program}\n"
        f"[core]\n\tpager = {program}\n\tabbrev = 4\n\tquotePath = false\n"
        "[i18n]\n\tlogOutputEncoding = latin-1\n[color]\n\tui = always\n[log]\n\tdate = relative\n"
    )
    environment = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "GIT_DIR": str(tmp_path / "nowhere"),
        "GIT_WORK_TREE": str(tmp_path),
        "GIT_INDEX_FILE": str(tmp_path / "index"),
        "GIT_OBJECT_DIRECTORY": str(tmp_path / "objects"),
        "GIT_EXTERNAL_DIFF": str(program),
        "GIT_PAGER": str(program),
        "GIT_SSH_COMMAND": str(program),
        "GIT_DIFF_OPTS": "--unified=0",
        "GIT_TRACE": "1",
        "LC_ALL": "C",
        "TZ": "Asia/Kathmandu",
    }
    harvest(history.path, run=tmp_path / "run", environment=environment).succeeds()
    assert not canary()
    assert table(tmp_path / "run", "markdown") == table(tmp_path / "plain", "markdown")


BENDING = """
[diff]
    renames = copies
    noprefix = true
    mnemonicPrefix = true
    context = 0
    interHunkContext = 9
    algorithm = patience
    relative = true
    suppressBlankEmpty = true
    submodule = log
    wordRegex = .
    colorMoved = zebra
    ignoreSubmodules = all
    renameLimit = 1
[core]
    abbrev = 4
    whitespace = cr-at-eol
    autocrlf = true
    eol = crlf
    worktree = /nowhere
    precomposeUnicode = true
    bigFileThreshold = 10
    commentChar = G
[i18n]
    logOutputEncoding = latin-1
    commitEncoding = latin-1
[color]
    ui = always
    diff = always
[grep]
    patternType = perl
    lineNumber = false
    column = true
    fullName = true
"""


def test_a_configuration_that_bends_differences_does_not_change_them(history: History, tmp_path: Path) -> None:
    history.commit("Move", {"helper.py": None, "moved.py": numbered("helper", 4) + "\n\n\nx = 1\n"})
    harvest(history.path, run=tmp_path / "plain").succeeds()
    with (history.path / ".git/config").open("a") as config:
        config.write(BENDING)
    (history.path / ".git/info").mkdir(exist_ok=True)
    (history.path / ".git/info/attributes").write_text(
        "*.py binary -diff -text diff=cpp whitespace=-blank-at-eol eol=crlf\n"
    )
    harvest(history.path, run=tmp_path / "run").succeeds()
    assert table(tmp_path / "run", "markdown") == table(tmp_path / "plain", "markdown")


def test_a_repository_under_somebody_elses_ownership_is_read(history: History, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    os.chown(history.path, 12345, 12345)
    os.chown(history.path / ".git", 12345, 12345)
    harvest(history.path, run=tmp_path / "run").succeeds()
    agentdata("check", tmp_path / "run", "--share", "1").succeeds()
