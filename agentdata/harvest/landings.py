"""The commit graph to landings: which commits make one change, told from graph, messages and pull-request refs alone.

The mainline is walked along first parents, oldest first, so that whatever a merge reaches and the mainline did not yet
hold is the merge's own. Merges that only bring branches together (a release branch, a pull of one's own mainline, a
branch that itself holds merged pull requests) are not changes; what they bring is walked like the mainline.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from agentdata.errors import SourceError
from agentdata.harvest import git
from agentdata.records import Landing, LandingKind

LONGEST_BRANCH = 1000
"""Commits of one branch beyond which it is not told commit by commit."""

SQUASH = re.compile(rb"\((?:#|!|PR ?#?|pull request #)(\d+)\)\s*$|^(?:Pull request #|Merged PR )(\d+):")
MERGE_NUMBER = re.compile(
    rb"^Merge pull request #(\d+)"  # GitHub, Bitbucket Server
    rb"|^Merged in .*\(pull request #(\d+)\)"  # Bitbucket
    rb"|^Merge pull request '.*' \(#(\d+)\)"  # Gitea, Forgejo
    rb"|^Merge PR #(\d+)"
    rb"|^(?:Pull request #|Merged PR )(\d+):"  # Bitbucket Server since 7, Azure DevOps
    rb"|^See merge request \S*!(\d+)",  # GitLab, in the body
    re.MULTILINE,
)
BRANCH_NAMES = (
    rb"main|master|trunk|develop|development|dev|next|stable|staging|production|maint|release"
    rb"|(?:rel_?|release[-/_]?|v|maint[-/_]?|stable[-/_]?)?\d+(?:[._][0-9A-Za-z]+)*"
)
SYNC = re.compile(
    rb"^Merge (?:(?:remote(?:-tracking)?[ -])?branch(?:es)? |tag |commit )?'?(?:remotes/)?(?:[\w.-]+/)?(?:"
    + BRANCH_NAMES
    + rb")'?(?:$|[ ,])"
)
PULL_REFS = ("refs/pull/*/head", "refs/merge-requests/*/head")


@dataclass
class Graph:
    """All commits reachable from the head and the pull-request refs, as arrays over their index."""

    index: dict[bytes, int] = field(default_factory=dict)
    oids: list[bytes] = field(default_factory=list)
    first: array[int] = field(default_factory=lambda: array("i"))
    """Index of the first parent, -1 for a root."""
    others: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Indices of further parents."""
    times: array[int] = field(default_factory=lambda: array("q"))
    keys: array[int] = field(default_factory=lambda: array("Q"))
    """Digest of author, author time and subject, which rebases and cherry-picks leave as they are."""
    numbers: array[int] = field(default_factory=lambda: array("i"))
    """Number that the message tells, 0 for none."""
    syncs: set[int] = field(default_factory=set)
    """Merges whose message says that they bring a long-lived branch."""
    reverting: list[int] = field(default_factory=list)

    def hex(self, commit: int) -> str:
        return self.oids[commit].hex() if commit >= 0 else ""


def find_landings(git_dir: Path, head: str) -> list[Landing]:
    """All landings of the history of `head`, oldest first along each line of walking. Raises SourceError."""
    pulls = pull_heads(git_dir)
    graph = read_graph(git_dir, head, list(pulls.values()))
    known = {
        number: graph.index[bytes.fromhex(oid)] for number, oid in pulls.items() if bytes.fromhex(oid) in graph.index
    }
    walk = _Walk(graph, known)
    walk.walk(graph.index[bytes.fromhex(head)])
    found = walk.join_rebased()
    landings = [_landing(graph, one) for one in found]
    return mark_reverts(git_dir, graph, found, mark_duplicates(git_dir, graph, found, landings))


def pull_heads(git_dir: Path) -> dict[int, str]:
    """Heads of pull- and merge-requests by number, where the clone is a mirror."""
    lines = git.run(git_dir, "for-each-ref", "--format=%(objecttype) %(objectname) %(refname)", *PULL_REFS)
    found = {}
    for line in lines.split(b"\n")[:-1]:
        kind, oid, name = line.split(b" ", 2)
        number = name.split(b"/")[-2]
        if kind == b"commit" and number.isdigit() and _small(number):
            found[_small(number)] = oid.decode()
    return found


def read_graph(git_dir: Path, head: str, more: list[str]) -> Graph:
    """Read all commits reachable from `head` and `more` in one pass."""
    graph = Graph()
    parents: list[tuple[bytes, ...]] = []
    for line in _revisions(git_dir, "%H %P%x00%at%x00%ct%x00%ae%x00%s", [head, *more]):
        oids, authored, committed, email, subject = line.split(b"\0", 4)
        own, *its_parents = oids.split()
        oid = bytes.fromhex(own.decode())
        graph.index[oid] = len(graph.oids)
        graph.oids.append(oid)
        graph.times.append(git.seconds(committed))
        key = hashlib.blake2b(b"\0".join((email, authored, subject)), digest_size=8).digest()
        graph.keys.append(int.from_bytes(key, "little"))
        graph.numbers.append(_squash_number(subject) if len(its_parents) == 1 else 0)
        parents.append(tuple(bytes.fromhex(parent.decode()) for parent in its_parents))
        if subject.startswith((b"Revert ", b"revert", b"Back out", b"Backed out")):
            graph.reverting.append(graph.index[oid])
    for commit, its in enumerate(parents):
        indices = [graph.index.get(parent, -1) for parent in its]
        if -1 in indices:
            raise SourceError(
                "missing-objects", f"{git_dir} lacks parents of commit {graph.hex(commit)}; clone it again, whole."
            )
        graph.first.append(indices[0] if indices else -1)
        if len(indices) > 1:
            graph.others[commit] = tuple(indices[1:])
    # git stores no NUL in a message that it prints, so two of them end a record whatever a message says.
    for record in _revisions(git_dir, "%H%x00%B%x00%x00", [head, *more], "--merges", separator=b"\0\0\n"):
        own, _, message = record.partition(b"\0")
        commit = graph.index[bytes.fromhex(own.decode())]
        number = MERGE_NUMBER.search(message) or SQUASH.search(message.partition(b"\n")[0])
        if number is not None:
            graph.numbers[commit] = _small(next(group for group in number.groups() if group))
        elif SYNC.match(message):
            graph.syncs.add(commit)
    return graph


def _revisions(git_dir: Path, form: str, tips: list[str], *options: str, separator: bytes = b"\n") -> Iterator[bytes]:
    arguments = ("rev-list", "--no-commit-header", "--encoding=UTF-8", f"--format={form}", *options, "--stdin")
    return iter(git.run(git_dir, *arguments, stdin="\n".join(tips).encode() + b"\n").split(separator)[:-1])


def _squash_number(subject: bytes) -> int:
    found = SQUASH.search(subject)
    return _small(found[1] or found[2]) if found else 0


def _small(digits: bytes) -> int:
    number = int(digits[:12]) if len(digits) <= 12 else 0
    return number if number < 2**31 else 0


@dataclass
class Found:
    """A landing as indices into the graph."""

    kind: LandingKind
    number: int
    landed: int
    commits: list[int]
    """Oldest first; never merges."""


class _Walk:
    """Assigns every commit of the mainline to one landing."""

    def __init__(self, graph: Graph, pulls: dict[int, int]) -> None:
        self.graph = graph
        self.pulls = pulls
        self.number_of = {commit: number for number, commit in sorted(pulls.items(), reverse=True)}
        self.seen = bytearray(len(graph.oids))
        self.found: list[Found] = []

    def walk(self, tip: int) -> None:
        """Walk the first-parent line that ends at `tip`, oldest first; lines that syncs bring are walked in their place."""
        lines = [iter(self._line(tip))]
        while lines:
            commit = next(lines[-1], None)
            if commit is None:
                lines.pop()
                continue
            others = [parent for parent in self.graph.others.get(commit, ()) if not self.seen[parent]]
            if not others:
                self._single(commit)
            elif self._is_sync(commit, others[0]):
                self.seen[commit] = 1
                lines += [iter(self._line(parent)) for parent in reversed(others)]
            else:
                self._merge(commit, others)

    def _line(self, tip: int) -> list[int]:
        line = []
        while tip >= 0 and not self.seen[tip]:
            line.append(tip)
            tip = self.graph.first[tip]
        return line[::-1]

    def _is_sync(self, merge: int, side: int) -> bool:
        if self.graph.numbers[merge] or side in self.number_of:
            # A numbered merge is one change, unless the branch it brings is where others were merged.
            return any(self._lands(commit) for commit in self._line(side) if commit in self.graph.others)
        return merge in self.graph.syncs or any(self._lands(commit) for commit in self._line(side))

    def _lands(self, commit: int) -> bool:
        """Whether a commit has a number and, as a merge, brings more than what the mainline holds, as in a synced fork."""
        others = self.graph.others.get(commit, ())
        return bool(self.graph.numbers[commit]) and (not others or not all(self.seen[parent] for parent in others))

    def _single(self, commit: int) -> None:
        self.seen[commit] = 1
        if commit in self.graph.others:
            return  # A merge of what is already there brings nothing.
        number = self.graph.numbers[commit]
        if number and self.pulls and number not in self.pulls:
            number = 0  # The mirror holds every pull request: this number is an issue's.
        kind: LandingKind = "squash" if number else "plain"
        originals = self._own([self.pulls[number]]) if number in self.pulls else []
        if originals and self._is_chain(originals):
            for original in originals:
                self.seen[original] = 1
            self.found.append(Found(kind, number, commit, originals))
        else:
            self.found.append(Found(kind, number, commit, [commit]))

    def _merge(self, merge: int, others: list[int]) -> None:
        own = self._own(others)
        for commit in own:
            self.seen[commit] = 1
        self.seen[merge] = 1
        commits = [commit for commit in own if commit not in self.graph.others]
        number = self.graph.numbers[merge] or self.number_of.get(others[0], 0)
        if len(commits) > LONGEST_BRANCH or not commits or len(others) > 1:
            commits = [merge]
        self.found.append(Found("merge", number, merge, commits))

    def _own(self, tips: list[int]) -> list[int]:
        """Commits reachable from `tips` and not yet seen, parents before children."""
        order: list[int] = []
        entered = set()
        stack = [(tip, False) for tip in reversed(tips)]
        while stack:
            commit, done = stack.pop()
            if done:
                order.append(commit)
            elif not self.seen[commit] and commit not in entered:
                entered.add(commit)
                stack.append((commit, True))
                parents = (self.graph.first[commit], *self.graph.others.get(commit, ()))
                stack += [(parent, False) for parent in reversed(parents) if parent >= 0]
        return order

    def _is_chain(self, commits: list[int]) -> bool:
        if len(commits) > LONGEST_BRANCH or self.graph.first[commits[0]] < 0:
            return False
        return all(commit not in self.graph.others for commit in commits) and all(
            self.graph.first[child] == parent for parent, child in pairwise(commits)
        )

    def join_rebased(self) -> list[Found]:
        """Join runs of plain commits that are the rebased commits of a pull request."""
        by_key: dict[int, int] = {}
        for place, one in enumerate(self.found):
            if one.kind == "plain":
                by_key[self.graph.keys[one.landed]] = place
        taken = {one.number for one in self.found}
        joined: dict[int, tuple[int, int]] = {}
        for number, tip in sorted(self.pulls.items()):
            if number in taken or self.seen[tip] or self.graph.keys[tip] not in by_key:
                continue
            originals = self._line(tip)
            last = by_key[self.graph.keys[tip]]
            start = last - len(originals) + 1
            run = self.found[max(start, 0) : last + 1]
            if (
                start >= 0
                and all(
                    one.kind == "plain" and self.graph.keys[one.landed] == self.graph.keys[original]
                    for one, original in zip(run, originals, strict=True)
                )
                and self._is_chain([one.landed for one in run])
            ):
                joined[last] = (start, number)
        free = 0
        for last in sorted(joined):  # A pull request on top of another one tells what it adds.
            start, number = joined[last]
            joined[last] = (max(start, free), number)
            free = last + 1
        parts = {place for last, (start, _) in joined.items() for place in range(start, last)}
        result = []
        for place, one in enumerate(self.found):
            if place in joined:
                start, number = joined[place]
                commits = [part.landed for part in self.found[start : place + 1]]
                result.append(Found("rebase", number, one.landed, commits))
            elif place not in parts:
                result.append(one)
        return result


def _landing(graph: Graph, one: Found) -> Landing:
    first, last = one.commits[0], one.commits[-1]
    snapshot = graph.hex(graph.first[first])
    commits = tuple(graph.hex(commit) for commit in one.commits)
    identity = hashlib.sha256(" ".join((snapshot, *commits, graph.hex(one.landed))).encode()).hexdigest()[:16]
    return Landing(
        id=identity,
        kind=one.kind,
        number=one.number,
        snapshot=snapshot,
        head=graph.hex(last),
        commits=commits,
        landed=graph.hex(one.landed),
        landed_parent=graph.hex(graph.first[one.landed]),
        landed_at=graph.times[one.landed],
    )


def mark_duplicates(git_dir: Path, graph: Graph, found: list[Found], landings: list[Landing]) -> list[Landing]:
    """Mark landings all of whose patches came in with an earlier landing.

    Author, author time and subject name the candidates; equal patch-ids decide.
    """
    first_place: dict[int, tuple[int, int]] = {}
    candidates: dict[int, list[tuple[int, int]]] = {}
    for place, one in enumerate(found):
        known = [(commit, *first_place.get(graph.keys[commit], (-1, -1))) for commit in one.commits]
        if all(0 <= earlier < place for _, earlier, _ in known):
            candidates[place] = [(commit, original) for commit, _, original in known]
        for commit in (*one.commits, one.landed):
            first_place.setdefault(graph.keys[commit], (place, commit))
    involved = {commit for pairs in candidates.values() for pair in pairs for commit in pair}
    ids = patch_ids(git_dir, sorted(graph.hex(commit) for commit in involved))
    marked = list(landings)
    for place, pairs in candidates.items():
        if all(ids.get(graph.hex(own), "own") == ids.get(graph.hex(original), "original") for own, original in pairs):
            earlier = landings[first_place[graph.keys[pairs[0][0]]][0]]
            marked[place] = landings[place].model_copy(update={"duplicate_of": earlier.id})
    return marked


def patch_ids(git_dir: Path, commits: list[str]) -> dict[str, str]:
    """Git's stable patch-id of each commit that changes something."""
    if not commits:
        return {}
    # The patches may be as large as the history: they go from one process to the other.
    options = ("-p", "--text", "-r", "--no-ext-diff", "--no-textconv", "--stdin")
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as errors:
        asked.write("\n".join(commits).encode() + b"\n")
        asked.seek(0)
        differences = subprocess.Popen(
            git.command(git_dir, "diff-tree", *options),
            stdin=asked,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=git.environment(),
        )
        with differences:
            done = subprocess.run(
                git.command(git_dir, "patch-id", "--stable"),
                stdin=differences.stdout,
                capture_output=True,
                env=git.environment(),
            )
        errors.seek(0)
        if differences.returncode != 0 or done.returncode != 0:
            raise git.failure(git_dir, errors.read() or done.stderr)
    return {commit: patch for patch, commit in (line.split() for line in done.stdout.decode().splitlines())}


def mark_reverts(git_dir: Path, graph: Graph, found: list[Found], landings: list[Landing]) -> list[Landing]:
    """Pair each landing that says it reverts a commit with the landing of that commit."""
    place_of = {commit: place for place, one in enumerate(found) for commit in (*one.commits, one.landed)}
    marked = list(landings)
    with git.Repository(git_dir) as repository:
        for commit in graph.reverting:
            place = place_of.get(commit)
            said = re.search(
                r"[Rr]everts? commit ([0-9a-f]{40}(?:[0-9a-f]{24})?)(?![0-9a-f])",
                repository.commit(graph.hex(commit)).message,
            )
            if place is None or said is None:
                continue
            target = place_of.get(graph.index.get(bytes.fromhex(said[1]), -1))
            if target is not None and target != place:
                marked[place] = marked[place].model_copy(update={"reverts": landings[target].id})
                marked[target] = marked[target].model_copy(update={"reverted_by": landings[place].id})
    return marked
