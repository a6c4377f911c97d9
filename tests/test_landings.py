"""Which commits make one change: every forge's messages, every way of merging, and the graphs that mislead."""

from pathlib import Path

import pytest

from agentdata.harvest.landings import find_landings, pull_heads
from agentdata.records import Landing
from tests.histories import History


def landings(history: History) -> list[Landing]:
    return find_landings(history.path / ".git", history.head())


def brief(history: History) -> list[tuple[str, int, int]]:
    """(kind, number, commits) of each landing after the root."""
    return [(one.kind, one.number, len(one.commits)) for one in landings(history)[1:]]


def work(history: History, name: str, count: int = 2, start: str = "HEAD") -> list[str]:
    """A branch of some commits, each with a file of its own."""
    history.branch(name, start)
    slug = name.replace("/", "_")
    return [history.commit(f"{name} step {step}", {f"{slug}_{step}.py": f"{step}\n"}) for step in range(count)]


@pytest.fixture
def begun(history: History) -> History:
    history.commit("Root", {"a.py": "1\n"})
    return history


MERGES = [
    ("Merge pull request #12 from someone/topic\n\nThe title", 12),
    ("Merged in topic (pull request #13)\n\nThe title\n\nApproved-by: Ben", 13),
    ("Merge pull request #14 in PRJ/repo from topic to main\n\n* commit '1234':\n  step", 14),
    ("Pull request #20: The title\n\nMerge in PRJ/repo from topic to main\n\n* commit '1234':\n  step", 20),
    ("Merge pull request 'The title' (#15) from topic into main\n\nReviewed-on: https://example.com/15", 15),
    ("Merge branch 'topic' into 'main'\n\nThe title\n\nSee merge request group/project!16", 16),
    ("Merge branch 'topic' into 'main'\n\nThe title\n\nCloses #3\n\nSee merge request !17", 17),
    ("Merge branch 'topic' into 'main'\n\nThe title\n\nSee merge request https://gitlab.example.com/g/p!18", 18),
    ("Merge PR #19 into main", 19),
    ("Merged PR 21: The title", 21),
    ("Merge branch 'topic'", 0),
    ("Land the topic", 0),
]


@pytest.mark.parametrize(("message", "number"), MERGES)
def test_a_merge_is_one_landing_with_the_number_its_message_tells(begun: History, message: str, number: int) -> None:
    snapshot = begun.head()
    commits = work(begun, "topic")
    begun.switch("main")
    landed = begun.merge("topic", message)
    (landing,) = landings(begun)[1:]
    assert (landing.kind, landing.number, landing.commits) == ("merge", number, tuple(commits))
    assert (landing.snapshot, landing.head, landing.landed, landing.landed_parent) == (
        snapshot,
        commits[-1],
        landed,
        snapshot,
    )


def test_a_merge_takes_its_number_from_the_ref_of_its_branch(begun: History) -> None:
    work(begun, "topic")
    begun.git("update-ref", "refs/pull/31/head", "topic")
    begun.switch("main")
    begun.merge("topic", "Land the topic")
    assert brief(begun) == [("merge", 31, 2)]


def test_a_merge_request_ref_counts_like_a_pull_request_ref(begun: History) -> None:
    tip = work(begun, "topic")[-1]
    begun.git("update-ref", "refs/merge-requests/32/head", "topic")
    begun.switch("main")
    assert pull_heads(begun.path / ".git") == {32: tip}


def test_refs_that_are_no_commits_are_passed_over(begun: History) -> None:
    begun.git("update-ref", "refs/pull/1/head", begun.git("rev-parse", "HEAD^{tree}"))
    assert pull_heads(begun.path / ".git") == {}


@pytest.mark.parametrize(
    ("subject", "number"),
    [
        ("The title (#41)", 41),
        ("The title (!42)", 42),
        ("The title (PR #43)", 43),
        ("Merged in topic (pull request #44)", 44),
        ("Pull request #45: The title", 45),
        ("Merged PR 46: The title", 46),
    ],
)
def test_a_squash_is_known_by_the_number_in_its_subject(begun: History, subject: str, number: int) -> None:
    work(begun, "topic")
    begun.switch("main")
    landed = begun.squash("topic", subject)
    (landing,) = landings(begun)[1:]
    assert (landing.kind, landing.number, landing.commits) == ("squash", number, (landed,))


def test_a_squash_is_told_by_its_original_commits_where_the_ref_is_kept(begun: History) -> None:
    commits = work(begun, "topic", 3)
    begun.switch("main")
    landed = begun.squash("topic", "The title (#51)", number=51)
    (landing,) = landings(begun)[1:]
    assert (landing.kind, landing.commits, landing.landed) == ("squash", tuple(commits), landed)


def test_a_number_that_no_pull_request_has_is_an_issues(begun: History) -> None:
    work(begun, "topic")
    begun.switch("main")
    begun.squash("topic", "The title (#52)", number=52)
    begun.commit("Work on the issue (#7)", {"b.py": "1\n"})
    assert brief(begun) == [("squash", 52, 2), ("plain", 0, 1)]


def test_a_squashed_branch_that_merged_the_mainline_is_told_as_it_landed(begun: History) -> None:
    work(begun, "topic")
    begun.switch("main")
    begun.commit("Elsewhere", {"other.py": "1\n"})
    begun.switch("topic")
    begun.merge("main", "Merge branch 'main' into topic")
    begun.switch("main")
    begun.squash("topic", "The title (#53)", number=53)
    assert brief(begun)[-1] == ("squash", 53, 1)


def rebase(history: History, branch: str, commits: list[str], number: int) -> None:
    """Land a branch by rebasing it onto the mainline, as a forge does; its own commits stay under the ref."""
    history.git("update-ref", f"refs/pull/{number}/head", branch)
    history.switch("main")
    history.time += 60
    history.git("cherry-pick", *commits)


def test_rebased_commits_are_joined_by_their_ref(begun: History) -> None:
    commits = work(begun, "topic", 3)
    begun.switch("main")
    begun.commit("Elsewhere", {"other.py": "1\n"})
    rebase(begun, "topic", commits, 61)
    begun.commit("After", {"after.py": "1\n"})
    assert brief(begun) == [("plain", 0, 1), ("rebase", 61, 3), ("plain", 0, 1)]


def test_rebased_commits_without_a_ref_are_plain(begun: History) -> None:
    commits = work(begun, "topic", 2)
    begun.switch("main")
    begun.commit("Elsewhere", {"other.py": "1\n"})
    begun.git("cherry-pick", *commits)
    assert brief(begun) == [("plain", 0, 1)] * 3


def test_a_rebase_that_left_a_commit_out_is_not_joined(begun: History) -> None:
    commits = work(begun, "topic", 3)
    begun.switch("main")
    begun.commit("Elsewhere", {"other.py": "1\n"})
    rebase(begun, "topic", [commits[0], commits[2]], 62)
    assert brief(begun) == [("plain", 0, 1)] * 3


def test_plain_commits_are_landings_of_their_own(begun: History) -> None:
    commits = [begun.commit("One", {"a.py": "2\n"}), begun.commit("Two", {"a.py": "3\n"})]
    found = landings(begun)
    assert [(one.kind, one.commits) for one in found[1:]] == [("plain", (commit,)) for commit in commits]


def test_a_root_has_no_snapshot(begun: History) -> None:
    assert landings(begun)[0].snapshot == ""


def test_a_back_merge_adds_nothing_to_a_branch(begun: History) -> None:
    first = work(begun, "topic", 1)
    begun.switch("main")
    begun.commit("Elsewhere", {"other.py": "1\n"})
    begun.switch("topic")
    begun.merge("main", "Merge branch 'main' into topic")
    second = begun.commit("Second", {"second.py": "1\n"})
    begun.switch("main")
    begun.merge("topic", "Merge pull request #71 from a/topic\n\nThe title")
    landing = landings(begun)[-1]
    assert (landing.number, landing.commits) == (71, (*first, second))


def test_a_pull_request_from_a_branch_named_main_is_a_change(begun: History) -> None:
    work(begun, "fork-main")
    begun.switch("main")
    begun.merge("fork-main", "Merge pull request #72 from someone/main\n\nThe title")
    assert brief(begun) == [("merge", 72, 2)]


def test_a_release_branch_merged_back_brings_its_changes_one_by_one(begun: History) -> None:
    begun.branch("release/1.0")
    work(begun, "fix")
    begun.switch("release/1.0")
    begun.merge("fix", "Merge pull request #73 from a/fix\n\nThe fix")
    begun.commit("Backport (#74)", {"b.py": "1\n"})
    begun.switch("main")
    begun.commit("Meanwhile", {"c.py": "1\n"})
    begun.merge("release/1.0", "Merge branch 'release/1.0'")
    assert brief(begun) == [("plain", 0, 1), ("merge", 73, 2), ("squash", 74, 1)]


def test_a_numbered_merge_of_a_branch_of_merges_brings_them_one_by_one(begun: History) -> None:
    begun.branch("develop")
    for number in (75, 76):
        work(begun, f"topic{number}")
        begun.switch("develop")
        begun.merge(f"topic{number}", f"Merge pull request #{number} from a/topic{number}\n\nOne")
    begun.switch("main")
    begun.merge("develop", "Merge pull request #77 from a/develop\n\nRelease")
    assert brief(begun) == [("merge", 75, 2), ("merge", 76, 2)]


def test_a_foxtrot_merge_brings_the_mainline_change_by_change(begun: History) -> None:
    begun.branch("local")
    mine = begun.commit("Mine", {"mine.py": "1\n"})
    begun.switch("main")
    work(begun, "topic")
    begun.switch("main")
    begun.merge("topic", "Merge pull request #78 from a/topic\n\nThe title")
    theirs = begun.commit("Theirs", {"theirs.py": "1\n"})
    begun.switch("local")
    begun.merge("main", "Merge branch 'main' of https://example.com/owner/name")
    found = landings(begun)[1:]
    assert [(one.kind, one.number, one.head) for one in found if one.kind == "plain"] == [
        ("plain", 0, mine),
        ("plain", 0, theirs),
    ]
    assert [one.number for one in found if one.kind == "merge"] == [78]


@pytest.mark.parametrize(
    "message",
    [
        "Merge branch 'main' of github.com:owner/name",
        "Merge remote-tracking branch 'origin/master'",
        "Merge remote-tracking branch 'upstream/develop' into main",
        "Merge tag 'v1.2.3' into main",
        "Merge branch 'release-2.1'",
        "Merge branch '1.x' into main",
        "Merge branch 'stable' into develop",
    ],
)
def test_a_sync_is_no_change_but_what_it_brings(begun: History, message: str) -> None:
    work(begun, "theirs", 2)
    begun.switch("main")
    begun.commit("Mine", {"mine.py": "1\n"})
    begun.merge("theirs", message)
    assert brief(begun) == [("plain", 0, 1)] * 3


def test_an_octopus_is_told_as_it_landed(begun: History) -> None:
    start = begun.head()
    for name in ("one", "two"):
        work(begun, name, 1, start)
    begun.switch("main")
    begun.commit("Elsewhere", {"other.py": "1\n"})
    begun.git("merge", "-q", "--no-ff", "-m", "Merge topics one and two", "one", "two")
    landing = landings(begun)[-1]
    assert (landing.kind, landing.commits) == ("merge", (begun.head(),))


def test_a_merge_of_what_is_already_there_is_no_landing(begun: History) -> None:
    tip = begun.head()
    begun.commit("Next", {"b.py": "1\n"})
    tree = begun.git("rev-parse", "HEAD^{tree}")
    begun.git(
        "reset", "-q", "--hard", begun.git("commit-tree", "-p", "HEAD", "-p", tip, "-m", "Merge old things", tree)
    )
    assert brief(begun) == [("plain", 0, 1)]


def test_every_commit_that_is_no_merge_lands_exactly_once(begun: History) -> None:
    start = begun.head()
    work(begun, "topic", 2)
    begun.switch("main")
    begun.commit("Elsewhere", {"other.py": "1\n"})
    begun.merge("topic", "Merge pull request #1 from a/topic\n\nOne")
    work(begun, "release/2.0", 2, start)
    begun.switch("main")
    begun.merge("release/2.0", "Merge branch 'release/2.0'")
    work(begun, "topic2", 1)
    begun.merge("main", "Merge branch 'main' into topic2")
    begun.switch("main")
    begun.merge("topic2", "Merge branch 'topic2'")
    told = [commit for landing in landings(begun) for commit in landing.commits]
    assert sorted(told) == sorted(begun.git("rev-list", "--no-merges", "HEAD").split())


def test_a_cherry_pick_of_what_landed_is_a_duplicate(begun: History) -> None:
    begun.branch("release/3.0")
    begun.switch("main")
    fix = begun.commit("Fix it", {"b.py": "1\n"})
    begun.switch("release/3.0")
    begun.commit("Only here", {"c.py": "1\n"})
    begun.git("cherry-pick", fix)
    begun.switch("main")
    begun.merge("release/3.0", "Merge branch 'release/3.0'")
    found = landings(begun)
    original = next(one for one in found if one.head == fix)
    assert [one.duplicate_of for one in found] == ["", "", "", original.id]


def test_commits_of_one_name_with_other_patches_are_no_duplicates(begun: History) -> None:
    begun.commit("Same", {"b.py": "1\n"})
    begun.time -= 60
    begun.commit("Same", {"b.py": "2\n"})
    assert [one.duplicate_of for one in landings(begun)] == ["", "", ""]


def test_a_revert_and_what_it_reverts_know_each_other(begun: History) -> None:
    begun.commit("Break it", {"b.py": "1\n"})
    begun.time += 60
    begun.git("revert", "--no-edit", "HEAD")
    broken, revert = landings(begun)[1:]
    assert (revert.reverts, broken.reverted_by) == (broken.id, revert.id)


def test_a_revert_of_a_merge_is_paired_with_its_landing(begun: History) -> None:
    work(begun, "topic")
    begun.switch("main")
    begun.merge("topic", "Merge pull request #81 from a/topic\n\nThe title")
    begun.time += 60
    begun.git("revert", "--no-edit", "-m", "1", "HEAD")
    merge, revert = landings(begun)[1:]
    assert (revert.reverts, merge.reverted_by) == (merge.id, revert.id)


def test_a_revert_that_names_nothing_known_is_a_plain_commit(begun: History) -> None:
    begun.commit(f"Revert something\n\nThis reverts commit {'1' * 40}.", {"b.py": "1\n"})
    assert [(one.kind, one.reverts) for one in landings(begun)[1:]] == [("plain", "")]


def test_a_sha_256_repository_has_the_same_landings(tmp_path: Path) -> None:
    found = []
    for object_format in ("sha1", "sha256"):
        history = History(tmp_path / object_format, object_format=object_format)
        history.commit("Root", {"a.py": "1\n"})
        commits = work(history, "topic")
        history.switch("main")
        history.merge("topic", "Merge pull request #82 from a/topic\n\nThe title")
        rebased = work(history, "second")
        history.switch("main")
        history.commit("Elsewhere", {"other.py": "1\n"})
        rebase(history, "second", rebased, 83)
        found.append(brief(history))
        assert landings(history)[1].commits == tuple(commits)
    assert found[0] == found[1] == [("merge", 82, 2), ("plain", 0, 1), ("rebase", 83, 2)]


def test_ids_are_the_same_in_a_mirror(begun: History, tmp_path: Path) -> None:
    work(begun, "topic")
    begun.switch("main")
    begun.merge("topic", "Merge branch 'topic'")
    assert find_landings(begun.mirror(tmp_path / "mirror.git"), begun.head()) == landings(begun)


def test_subjects_in_other_encodings_are_read(begun: History) -> None:
    begun.write({"b.py": "1\n"})
    begun.git("add", "-A")
    begun.git("-c", "i18n.commitEncoding=latin-1", "commit", "-q", "-F", "-", stdin="Caf\xe9 (#91)\n".encode("latin-1"))
    assert brief(begun) == [("squash", 91, 1)]


def test_empty_messages_are_read(begun: History) -> None:
    begun.write({"b.py": "1\n"})
    begun.git("add", "-A")
    begun.git("commit", "-q", "--allow-empty-message", "-m", "")
    assert brief(begun) == [("plain", 0, 1)]


def test_replaced_objects_and_grafts_are_not_followed(begun: History) -> None:
    second = begun.commit("Second", {"b.py": "1\n"})
    begun.git("replace", "--graft", second)
    assert [one.snapshot != "" for one in landings(begun)] == [False, True]
