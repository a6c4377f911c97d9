"""Landings to changes: read what each landing did, cheapest first, and drop early what the filters do not want.

One pass over a batch of landings: commit objects, raw tree differences, path filters; then sizes, patches and the old
texts of what is left. Where a branch cannot be told commit by commit (its commits do not follow from one another on the
touched files, as after a merge of the mainline into it), the change is told as it landed: one difference.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from agentdata.errors import ObjectError, SourceError
from agentdata.harvest import filters, languages, licences, texts
from agentdata.harvest.edits import parse_runs
from agentdata.harvest.git import CommitHeader, Pair, RawEdit, Repository, decode
from agentdata.harvest.pulls import PullText, PullTexts
from agentdata.harvest.recipe import HarvestRecipe
from agentdata.harvest.trees import Trees
from agentdata.records import (
    Change,
    Commit,
    Encoding,
    FileEdit,
    FileStatus,
    Issue,
    Landing,
    Rejected,
    RepoSource,
    SnapshotFile,
)

Raw = list[RawEdit]
State = tuple[str, str]
"""(mode, blob) of a path."""
NOTHING: State = ("", "")
AHEAD = 16
"""Changes whose old texts are read together."""
MOST_COMMITS = 50
"""Commits of one change beyond which it is told as it landed."""


class DropError(Exception):
    """A landing is not kept, for a reason."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class Telling:
    """A landing on its way to a change: the commits that tell it and what has been read of them."""

    landing: Landing
    headers: list[CommitHeader]
    """Of the commits that are told."""
    pairs: list[Pair]
    """(parent, commit) of each commit that is told."""
    raws: dict[Pair, Raw] = field(default_factory=dict)
    before: dict[bytes, State] = field(default_factory=dict)
    """Touched paths that exist at the snapshot."""

    @property
    def span(self) -> Pair:
        """(snapshot, head)."""
        return self.pairs[0][0], self.pairs[-1][1]

    @property
    def landed(self) -> Pair:
        return self.landing.landed_parent, self.landing.landed

    @property
    def is_chain(self) -> bool:
        """Whether each commit is the child of the one before it."""
        return all(before == previous for (before, _), (_, previous) in zip(self.pairs[1:], self.pairs, strict=False))

    def blobs(self) -> set[str]:
        """Object names of all files before and after each difference."""
        edits = [edit for raw in self.raws.values() for edit in raw]
        return {blob for edit in edits for blob in (edit.old_blob, edit.new_blob) if blob.strip("0")}

    @property
    def is_composed(self) -> bool:
        """Whether no two commits touch the same path, so that their differences together are the whole one."""
        if len(self.pairs) == 1:
            return False
        paths = [{path for edit in self.raws[pair] for path in (edit.old_path, edit.new_path)} for pair in self.pairs]
        return sum(map(len, paths)) == len(set().union(*paths))

    def compose(self, patches: dict[Pair, list[bytes]]) -> list[bytes]:
        """The patches of the whole from those of the commits; puts the raw difference into the same order."""
        both = [both for pair in self.pairs for both in zip(self.raws[pair], patches[pair], strict=True)]
        both.sort(key=lambda one: one[0].new_path)
        self.raws[self.span] = [edit for edit, _ in both]
        return [patch for _, patch in both]

    def wanted(self) -> list[Pair]:
        """The differences to read; a squash that is told by its original commits is compared with what landed."""
        also = [self.landed] if self.landing.kind == "squash" else []
        return list(dict.fromkeys([*self.pairs, self.span, *also]))


class ChangeReader:
    """Reads the changes of one repository. `pulls` joins the texts of pull requests and issues."""

    def __init__(
        self,
        repository: Repository,
        trees: Trees,
        source: RepoSource,
        recipe: HarvestRecipe,
        *,
        pulls: PullTexts | None = None,
    ) -> None:
        self.repository = repository
        self.trees = trees
        self.source = source
        self.recipe = recipe
        self.pulls = pulls
        self._licences: dict[tuple[str, ...], str] = {}

    def read(self, landings: Sequence[Landing], *, plain: bool) -> Iterator[Change | Rejected]:
        """Each landing as a change or as rejected, in order. `plain` says whether plain commits are changes."""
        rejected: dict[str, Rejected] = {}
        tellings = self._settle(self._open_all(landings, plain, rejected), rejected)
        kept = {}
        for telling in tellings:
            with self._attempt(telling.landing, rejected):
                self._filter_paths(telling)
                kept[telling.landing.id] = telling
        self._filter_sizes(kept, rejected)
        tellings = list(kept.values())
        patches = self._patches(tellings)
        place = 0
        for landing in landings:
            if landing.id in kept:
                if place % AHEAD == 0:
                    self._prefetch(tellings[place : place + AHEAD])
                place += 1
                with self._attempt(landing, rejected):
                    yield self._build(kept[landing.id], next(patches))
                    continue
            yield rejected.pop(landing.id)

    @contextlib.contextmanager
    def _attempt(self, landing: Landing, rejected: dict[str, Rejected]) -> Iterator[None]:
        """Turn what keeps a landing from becoming a change into its rejection."""
        try:
            yield
        except (DropError, SourceError) as error:
            detail = error.detail if isinstance(error, DropError) else str(error)
            rejected[landing.id] = Rejected(
                id=landing.id, repo=self.source.name, stage="changes", reason=error.reason, detail=detail
            )

    # Commits

    def _open_all(self, landings: Sequence[Landing], plain: bool, rejected: dict[str, Rejected]) -> list[Telling]:
        wanted = []
        for landing in landings:
            with self._attempt(landing, rejected):
                self._check_landing(landing, plain)
                wanted.append(landing)
        oids = [oid for landing in wanted for oid in (*landing.commits, landing.snapshot, landing.landed)]
        with contextlib.suppress(ObjectError):  # A missing one is met again, and rejected, where it is needed.
            self.repository.prefetch(oids)
        tellings = []
        for landing in wanted:
            with self._attempt(landing, rejected):
                tellings.append(self._open(landing))
        return tellings

    def _check_landing(self, landing: Landing, plain: bool) -> None:
        if landing.duplicate_of:
            raise DropError("duplicate", f"same patches as {landing.duplicate_of}")
        if landing.kind == "plain" and not plain:
            raise DropError("plain-commit", "not part of a pull request")
        if not landing.snapshot:
            raise DropError("no-parent", "a root commit has no snapshot")

    def _open(self, landing: Landing) -> Telling:
        headers = [self.repository.commit(oid) for oid in landing.commits]
        reason = filters.by_author(headers, self.recipe.filters)
        if reason:
            raise DropError(reason, headers[0].author_name)
        if len(headers) > MOST_COMMITS or any(not header.parents for header in headers):
            return self._as_landed(landing)
        pairs = [(header.parents[0], oid) for header, oid in zip(headers, landing.commits, strict=True)]
        return Telling(landing, headers, pairs)

    def _as_landed(self, landing: Landing) -> Telling:
        """The change as one difference: what the landed commit did to the mainline."""
        if not landing.landed_parent:
            raise DropError("no-parent", "a root commit has no snapshot")
        header = self.repository.commit(landing.landed)
        before = landing.snapshot if landing.kind == "rebase" else landing.landed_parent
        return Telling(landing, [header], [(before, landing.landed)])

    # Raw differences

    def _settle(self, tellings: list[Telling], rejected: dict[str, Rejected]) -> list[Telling]:
        """Read the raw differences, and tell as landed what cannot be told commit by commit."""
        self._read_raws(tellings, rejected)
        again = []
        for place, telling in enumerate(tellings):
            if telling.landing.id in rejected:
                continue
            with self._attempt(telling.landing, rejected):
                if not self._follows(telling):
                    tellings[place] = self._as_landed(telling.landing)
                    again.append(tellings[place])
        self._read_raws(again, rejected)
        for telling in again:
            if telling.landing.id not in rejected:
                self._follows(telling)
        return [telling for telling in tellings if telling.landing.id not in rejected]

    def _read_raws(self, tellings: list[Telling], rejected: dict[str, Rejected]) -> None:
        pairs = [pair for telling in tellings for pair in telling.wanted()]
        if not pairs:
            return
        try:
            raws = iter(self.repository.raw_differences(pairs))
        except SourceError:
            # Some object of the batch cannot be read: find out whose it is, so that the others go on.
            raws = None
        for telling in tellings:
            with self._attempt(telling.landing, rejected):
                wanted = telling.wanted()
                own = [next(raws) for _ in wanted] if raws else self.repository.raw_differences(wanted)
                telling.raws = dict(zip(wanted, own, strict=True))

    def _follows(self, telling: Telling) -> bool:
        """Whether the commits, applied in order to the snapshot, give the head on every touched path.

        A chain of commits does by construction. Otherwise the states are compared with the snapshot's and the head's
        trees. Fills `before`, and restricts the overall difference to what the commits touch.
        """
        state: dict[bytes, State] = {}
        chain = telling.is_chain
        snapshot = "" if chain else self.repository.commit(telling.span[0]).tree

        def current(path: bytes, expected: State) -> State:
            if path not in state:
                state[path] = expected if chain else self._state(snapshot, path)
                if state[path] != NOTHING:
                    telling.before[path] = state[path]
            return state[path]

        for pair in telling.pairs:
            raw = telling.raws[pair]
            for edit in raw:
                expected = NOTHING if edit.status == "A" else (edit.old_mode, edit.old_blob)
                if current(edit.old_path, expected) != expected:
                    return False
            state |= {edit.old_path: NOTHING for edit in raw if edit.status in "DR"}
            for edit in raw:
                if edit.status == "R" and current(edit.new_path, NOTHING) != NOTHING:
                    return False
            state |= {edit.new_path: (edit.new_mode, edit.new_blob) for edit in raw if edit.status != "D"}
        if not chain:
            head = self.repository.commit(telling.span[1]).tree
            if any(self._state(head, path) != known for path, known in state.items()):
                return False
            overall = telling.raws[telling.span]
            telling.raws[telling.span] = [edit for edit in overall if edit.old_path in state and edit.new_path in state]
        return telling.landing.kind != "squash" or self._same_paths(telling)

    def _state(self, tree: str, path: bytes) -> State:
        entry = self.trees.lookup(tree, path)
        return (entry.mode, entry.oid) if entry else NOTHING

    def _same_paths(self, telling: Telling) -> bool:
        """Whether original commits and squash touch the same paths."""
        original = {(edit.old_path, edit.new_path, edit.new_mode) for edit in telling.raws[telling.span]}
        return original == {(edit.old_path, edit.new_path, edit.new_mode) for edit in telling.raws[telling.landed]}

    # Filters

    def _filter_paths(self, telling: Telling) -> None:
        recipe = self.recipe.filters
        overall = telling.raws[telling.span]
        reason, detail = filters.by_paths(overall, self.recipe.languages, recipe)
        if not reason and len(telling.pairs) > 1:
            touched = [edit for pair in telling.pairs for edit in telling.raws[pair]]
            reason, detail = filters.by_modes(touched)
        if reason:
            raise DropError(reason, detail)

    def _filter_sizes(self, kept: dict[str, Telling], rejected: dict[str, Rejected]) -> None:
        """Drop changes that touch large files, before anything of them is read."""
        blobs = {blob for telling in kept.values() for blob in telling.blobs()}
        known = self.repository.known_sizes(sorted(blobs))
        most = self.recipe.filters.most_file_bytes
        for telling in list(kept.values()):
            with self._attempt(telling.landing, rejected):
                sizes = {blob: known[blob] for blob in telling.blobs()}
                missing = next((blob for blob, size in sizes.items() if size is None), None)
                if missing:
                    raise DropError("missing-object", f"object {missing} is not in {self.repository.git_dir}")
                largest = max((size or 0 for size in sizes.values()), default=0)
                if largest > most:
                    raise DropError("file-too-large", f"{largest} bytes")
                continue
            del kept[telling.landing.id]

    # Patches

    def _patches(self, tellings: list[Telling]) -> Iterator[dict[Pair, list[bytes]] | SourceError]:
        """The patches of each telling's differences, in step with the list; an error where they cannot be read."""
        stream = self.repository.patches([pair for telling in tellings for pair in _streamed(telling)])
        broken = False
        for telling in tellings:
            pairs = _streamed(telling)
            try:
                if not broken:
                    try:
                        patches = dict(zip(pairs, (next(stream) for _ in pairs), strict=True))
                    except (SourceError, StopIteration, RuntimeError):
                        broken = True  # Some object of the batch cannot be read: go on one by one.
                if broken:
                    patches = dict(zip(pairs, self.repository.patches(pairs), strict=True))
                if telling.is_composed:
                    patches[telling.span] = telling.compose(patches)
                elif telling.span not in patches:
                    paths = {path for edit in telling.raws[telling.span] for path in (edit.old_path, edit.new_path)}
                    patches[telling.span] = self.repository.patch(telling.span, sorted(paths)) if paths else []
            except SourceError as error:
                yield error
            else:
                yield patches

    def _as_it_landed(self, telling: Telling, patches: dict[Pair, list[bytes]]) -> Telling:
        """The telling itself, or the squashed commit where the original commits do not amount to it."""
        if telling.landing.kind != "squash" or telling.span == telling.landed:
            return telling
        raws = telling.raws
        states = [{edit.new_path: edit.new_blob for edit in raws[pair]} for pair in (telling.span, telling.landed)]
        if states[0] == states[1] or _lines(patches[telling.span]) == _lines(patches[telling.landed]):
            return telling
        landed = self._as_landed(telling.landing)
        landed.raws = {telling.landed: raws[telling.landed]}
        self._follows(landed)
        return landed

    # Changes

    def _build(self, telling: Telling, patches: dict[Pair, list[bytes]] | SourceError) -> Change:
        if isinstance(patches, SourceError):
            raise patches
        landing = telling.landing
        telling = self._as_it_landed(telling, patches)
        size = sum(len(patch) for patch in patches[telling.span])
        if size > self.recipe.filters.most_patch_bytes:
            raise DropError("patch-too-large", f"{size} bytes")
        contents = self._contents(telling)
        encodings = {path.decode(): decode(content)[1] for path, content in contents.items()}
        edits = self._edits(telling.raws[telling.span], patches[telling.span], dict(encodings))
        self._check_content(contents, edits)
        landed = texts.clean(self.repository.commit(landing.landed).message)
        first = texts.clean(self.repository.commit(landing.commits[0]).message)
        title, body = texts.title_of(landing.kind, landed.text, first.text)
        commits = []
        cleaned = [texts.clean(header.message) for header in telling.headers]
        for header, message, pair in zip(telling.headers, cleaned, telling.pairs, strict=True):
            is_bot = filters.is_bot(header.author_name, header.author_email, self.recipe.filters.bots)
            commits.append(
                Commit(
                    sha=pair[1],
                    message=texts.thought_of(message.text) if len(header.parents) < 2 else f"{title}\n\n{body}".strip(),
                    author_kind="bot" if is_bot else "person",
                    authored_at=header.authored_at,
                    edits=edits if pair == telling.span else self._edits(telling.raws[pair], patches[pair], encodings),
                )
            )
        pull = self.pulls.pull(self.source.name, landing.number) if self.pulls and landing.number else PullText()
        title, body = pull.title or title, pull.body if pull.title else body
        issues = self._issues(pull, title, body, *(commit.message for commit in commits))
        licence, found = self._licence(telling.span[0])
        if not licences.is_allowed(licence, self.recipe.filters.licences):
            raise DropError("licence", licence or "unknown")
        return Change(
            id=landing.id,
            repo=self.source.name,
            number=landing.number,
            kind=landing.kind,
            title=title,
            body=body,
            issues=issues,
            comments=pull.comments,
            commits=tuple(commits),
            snapshot=telling.span[0],
            head=telling.span[1],
            landed=landing.landed,
            landed_at=landing.landed_at,
            files=self._files(telling, contents),
            edits=edits,
            licence=licence,
            licence_found=found,
            reverts=landing.reverts,
            reverted_by=landing.reverted_by,
            redacted_emails=landed.emails + sum(one.emails for one in cleaned) + pull.emails,
            redacted_trailers=landed.trailers + sum(one.trailers for one in cleaned) + pull.trailers,
        )

    def _prefetch(self, tellings: Sequence[Telling]) -> None:
        """Read the old texts of some changes, and the root trees of their snapshots, in one round trip."""
        with contextlib.suppress(ObjectError):  # A missing one is met again, and rejected, where it is needed.
            blobs = [blob for telling in tellings for _, blob in telling.before.values()]
            roots = [self.repository.commit(telling.span[0]).tree for telling in tellings]
            self.repository.prefetch(blobs + roots)

    def _contents(self, telling: Telling) -> dict[bytes, bytes]:
        """Bytes of the touched files at the snapshot."""
        self.repository.prefetch(blob for _, blob in telling.before.values())
        return {path: self.repository.read(blob) for path, (_, blob) in sorted(telling.before.items())}

    def _edits(self, raw: Raw, patches: list[bytes], encodings: dict[str, Encoding]) -> tuple[FileEdit, ...]:
        if len(raw) != len(patches):
            raise DropError("inconsistent", f"{len(raw)} entries in the raw difference, {len(patches)} in the patch")
        return tuple(self._edit(edit, patch, encodings) for edit, patch in zip(raw, patches, strict=True))

    def _edit(self, edit: RawEdit, patch: bytes, encodings: dict[str, Encoding]) -> FileEdit:
        old_path, new_path = edit.old_path.decode(), edit.new_path.decode()
        text, encoding = decode(patch)
        if encodings.get(old_path) == "latin-1" and encoding == "utf-8":
            text, encoding = patch.decode("latin-1"), "latin-1"
        encodings[new_path] = (
            encoding if edit.status == "A" or encoding == "latin-1" else encodings.get(old_path, "utf-8")
        )
        added, deleted = edit.status == "A", edit.status == "D"
        return FileEdit(
            status=_status(edit),
            path=new_path,
            old_path=old_path if old_path != new_path else "",
            old_mode="" if added else edit.old_mode,
            new_mode="" if deleted else edit.new_mode,
            old_blob="" if added else edit.old_blob,
            new_blob="" if deleted else edit.new_blob,
            role=filters.role_of(new_path, self.recipe.languages),
            patch=text,
            encoding=encoding,
        )

    def _check_content(self, contents: dict[bytes, bytes], edits: Sequence[FileEdit]) -> None:
        for path, content in contents.items():
            reason = filters.by_content(content)
            if reason:
                raise DropError(reason, path.decode())
        for edit in edits:
            if "\0" in edit.patch:
                raise DropError("binary", edit.path)
            before = contents.get((edit.old_path or edit.path).encode())
            added = "".join(run.added for run in parse_runs(edit.patch)) if before is None else ""
            content = before if before is not None else added.encode(edit.encoding)
            if filters.LFS_POINTER in edit.patch:
                raise DropError("lfs-pointer", edit.path)
            if self.recipe.filters.skip_generated and filters.is_generated(edit.path, content):
                raise DropError("generated", edit.path)

    def _files(self, telling: Telling, contents: dict[bytes, bytes]) -> tuple[SnapshotFile, ...]:
        files = []
        for path, content in contents.items():
            mode, blob = telling.before[path]
            language = languages.language_of(path.decode())
            files.append(
                SnapshotFile(
                    path=path.decode(),
                    language=language.name if language else "",
                    blob=blob,
                    mode=mode,
                    bytes=len(content),
                )
            )
        return tuple(files)

    def _licence(self, commit: str) -> tuple[str, str]:
        """SPDX expression at a commit, and how it was found."""
        if self.source.licence:
            return self.source.licence, "list"
        root = self.trees.entries(self.repository.commit(commit).tree)
        found = [
            entry for name, entry in root.items() if entry.mode.startswith("100") and licences.is_licence_file(name)
        ]
        key = tuple(entry.oid for entry in found)
        if key not in self._licences:
            contents = [self.repository.read(oid) for oid in key]
            self._licences[key] = licences.combine([licences.detect(decode(content)[0]) for content in contents])
        names = ", ".join(decode(entry.name)[0] for entry in found)
        return self._licences[key], names if self._licences[key] else ""

    def _issues(self, pull: PullText, *words: str) -> tuple[Issue, ...]:
        if self.pulls is None:
            return ()
        numbers = dict.fromkeys((*pull.closes, *texts.closed_issues(*words)))
        issues = tuple(issue for number in numbers if (issue := self.pulls.issue(self.source.name, number)) is not None)
        for issue in issues:
            if len(issue.comments) > self.recipe.filters.most_comments:
                raise DropError("too-many-comments", f"issue {issue.number} has {len(issue.comments)}")
        return issues


def _streamed(telling: Telling) -> list[Pair]:
    """The differences whose patches come from the common stream.

    That of a whole is put together from its commits, or read apart where the branch brought more than the change.
    """
    apart = telling.span not in telling.pairs and (telling.is_composed or not telling.is_chain)
    return [pair for pair in telling.raws if not (apart and pair == telling.span)]


def _status(edit: RawEdit) -> FileStatus:
    if edit.status == "A":
        return "added"
    if edit.status == "D":
        return "deleted"
    if edit.status == "R":
        return "renamed"
    return "mode" if edit.old_blob == edit.new_blob else "modified"


def _lines(patches: list[bytes]) -> list[bytes]:
    """The changed lines of some patches, without their places."""
    return [
        line
        for patch in patches
        for line in patch.split(b"\n")[1:]
        if line[:1] in b"+-" and line[:4] not in (b"+++ ", b"--- ")
    ]
