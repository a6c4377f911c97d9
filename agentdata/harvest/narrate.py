"""A change as one ordered list of events, proved by replay before it is let out."""

import hashlib
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from agentdata import editor
from agentdata.errors import SourceError
from agentdata.harvest.edits import PatchError, UnfitError, apply_runs, make_edits, parse_runs
from agentdata.harvest.explore import Explorer, Files, Range, merge, read_event
from agentdata.harvest.recipe import HarvestRecipe
from agentdata.harvest.replay import File, ReplayError, prove
from agentdata.records import Change, Event, FileEdit, FileProof, Rejected, Trace

ROLES = ("source", "test", "other")
REGULAR = "100644"


class Narrator:
    """Tells changes of one repository."""

    def __init__(self, explorer: Explorer, recipe: HarvestRecipe) -> None:
        self.explorer = explorer
        self.recipe = recipe
        self.options = recipe.exploration

    def tell(self, change: Change) -> Trace | Rejected:
        """The trace of a change, or why it could not be proved."""
        repository = self.explorer.trees.repository
        try:
            repository.prefetch(file.blob for file in change.files)
            files = {file.path: File.read(file.mode, repository.read(file.blob)) for file in change.files}
            events = tuple(_Story(change, files, self.explorer, self.recipe).events())

            def snapshot(path: str) -> File | None:
                return files.get(path) or self._untouched(change, path)

            proof = prove(events, snapshot, file_proofs(change.edits), (change.snapshot, change.head))
        except PatchError as error:
            return Rejected(id=change.id, repo=change.repo, stage="traces", reason="patch-unfit", detail=str(error))
        except (ReplayError, SourceError) as error:
            return Rejected(id=change.id, repo=change.repo, stage="traces", reason=error.reason, detail=str(error))
        options = self.options
        return Trace(
            id=hashlib.sha256(f"{change.id} {proof.digest}".encode()).hexdigest()[:16],
            change_id=change.id,
            repo=change.repo,
            policy=options.policy,
            seed=options.seed,
            unparsed=self.explorer.unparsed(change, files),
            events=events,
            proof=proof,
        )

    def _untouched(self, change: Change, path: str) -> File | None:
        """A file that is read but not changed."""
        trees = self.explorer.trees
        entry = trees.lookup(trees.repository.commit(change.snapshot).tree, path.encode())
        return (
            File.read(entry.mode, trees.repository.read(entry.oid)) if entry and entry.mode.startswith("100") else None
        )


def file_proofs(edits: Sequence[FileEdit]) -> tuple[FileProof, ...]:
    """The states between which a change moves its files, by git's account."""
    return tuple(
        FileProof(
            before_path=(edit.old_path or edit.path) if edit.old_blob else "",
            before_mode=edit.old_mode,
            before_blob=edit.old_blob,
            after_path=edit.path if edit.new_blob else "",
            after_mode=edit.new_mode,
            after_blob=edit.new_blob,
        )
        for edit in edits
    )


class _Story:
    """The events of one change in the making: which lines were seen, and how the files stand."""

    def __init__(self, change: Change, files: Files, explorer: Explorer, recipe: HarvestRecipe) -> None:
        self.change = change
        self.before = files
        self.explorer = explorer
        self.options = recipe.exploration
        self.files: dict[str, File | None] = dict(files)
        """The touched files as they stand."""
        self.seen: dict[str, list[Range]] = {}
        """Ranges of lines seen so far, in the numbering of the file as it stands."""
        self.told: set[str] = set()
        self.asked = ""
        """The words of what was asked: a thought that only repeats them is left out."""
        edits = [edit for commit in change.commits for edit in commit.edits]
        self.targets = {edit.path for edit in edits if edit.status in ("added", "renamed")}

    def events(self) -> Iterator[Event]:
        issue = self._issue()
        self.asked = _plain(issue.text)
        yield issue
        for event in self.explorer.events(self.change, self.before):
            if event.kind == "read":
                self._see(event)
            yield event
        words = _words(self.change.title, self.change.body)
        if words not in self.told and self.change.issues:
            self.told.add(words)
            yield Event(kind="think", text=words)
        for number, commit in enumerate(self.change.commits):
            words = commit.message if commit.author_kind == "person" else ""
            if words and words not in self.told and _plain(words) not in self.asked:
                self.told.add(commit.message)
                yield Event(kind="think", text=commit.message, commit=number)
            for edit in self._ordered(commit.edits):
                yield from self._edit(edit, number)
        yield Event(kind="done")

    def _issue(self) -> Event:
        """What the agent is asked: the issues, else the words of the change itself."""
        if self.change.issues:
            return Event(
                kind="issue", text="\n\n".join(_words(issue.title, issue.body) for issue in self.change.issues)
            )
        words = _words(self.change.title, self.change.body)
        self.told.add(words)
        return Event(kind="issue", text=words)

    # Seeing

    def _see(self, event: Event) -> None:
        end = event.end or event.text.count("\n") + 1
        self._add(event.path, (event.start or 1, end))

    def _add(self, path: str, one: Range) -> None:
        self.seen[path] = merge([*self.seen.get(path, []), one])

    def _look(self, path: str, file: File, first: int, last: int) -> Iterator[Event]:
        """Read the lines around an edit if they were not all seen."""
        if any(start <= first and last <= end for start, end in self.seen.get(path, [])):
            return
        lines = file.text.split("\n")
        margin = self.options.margin_lines
        whole = len(lines) <= self.options.whole_file_lines
        event = read_event(
            path, file, lines, None if whole else (max(1, first - margin), min(len(lines), last + margin))
        )
        self._see(event)
        yield event

    def _shift(self, path: str, first: int, last: int, grown: int) -> None:
        """Move what was seen below an edited place, and count the place itself as seen."""
        moved = [
            (start if start <= first else start + grown, end if end < first else end + grown)
            for start, end in self.seen.get(path, [])
        ]
        self.seen[path] = merge([*moved, (first, max(first, last + grown))])

    # Editing

    def _ordered(self, edits: Sequence[FileEdit]) -> list[FileEdit]:
        """The files of a commit: implementation, tests, the rest; what makes room for something else comes first."""
        targets = {edit.path for edit in edits if edit.status in ("added", "renamed")}
        leaving = {edit.old_path or edit.path for edit in edits if edit.status in ("deleted", "renamed")}
        room = {path for path in leaving for target in targets if _collide(path, target)}

        def rank(edit: FileEdit) -> tuple[int, int, str]:
            makes_room = (edit.old_path or edit.path) in room and edit.status in ("deleted", "renamed")
            return 0 if makes_room else 1, ROLES.index(edit.role), edit.path

        pending, ordered = sorted(edits, key=rank), []
        while pending:
            occupied = {edit.old_path or edit.path for edit in pending if edit.status in ("deleted", "renamed")}
            free = next((edit for edit in pending if not self._waits(edit, occupied)), pending[0])
            pending.remove(free)
            ordered.append(free)
        return ordered

    def _waits(self, edit: FileEdit, occupied: set[str]) -> bool:
        return edit.status in ("added", "renamed") and any(
            _collide(edit.path, path) for path in occupied - {edit.old_path}
        )

    def _edit(self, edit: FileEdit, commit: int) -> Iterator[Event]:
        path = edit.path
        if edit.status == "added":
            yield from self._create(path, apply_runs("", parse_runs(edit.patch)), edit, commit)
            return
        if edit.status == "deleted":
            yield self._delete(path, commit)
            return
        if edit.status == "renamed":
            if _collide(edit.old_path, path) or self.files.get(path) is not None:
                yield from self._rewrite(edit.old_path, edit, commit)
                return
            yield self._rename(edit, commit)
        if edit.new_mode != edit.old_mode:
            yield self._chmod(path, edit.new_mode, commit)
        if not parse_runs(edit.patch):
            return
        kept, seen = self.files.get(path), list(self.seen.get(path, []))
        try:
            events = list(self._change_text(edit, commit))
        except UnfitError:
            # Nothing unique to hold on to: write the file anew.
            self.files[path], self.seen[path] = kept, seen
            events = list(self._rewrite(path, edit, commit))
        yield from events

    def _change_text(self, edit: FileEdit, commit: int) -> Iterator[Event]:
        path = edit.path
        file = self._file(path, edit)
        for place in make_edits(path, file.text, parse_runs(edit.patch), self.options.widen_lines):
            yield from self._look(path, file, place.first, place.last)
            file = File(file.mode, place.after, edit.encoding)
            yield place.event.model_copy(update={"encoding": edit.encoding, "commit": commit})
            self._shift(path, place.first, place.last, place.grown)
        self.files[path] = file

    def _file(self, path: str, edit: FileEdit) -> File:
        """A file as it stands, in the encoding of the patch."""
        file = self.files.get(path)
        if file is None:
            raise PatchError(f"{path} does not exist when it is changed")
        try:
            return File(file.mode, file.text_as(edit.encoding), edit.encoding)
        except UnicodeDecodeError as error:
            raise PatchError(f"{path} is not {edit.encoding} when it is changed") from error

    def _delete(self, path: str, commit: int) -> Event:
        self.files[path] = None
        return self._shell(f"rm {quote(path)}{self._tidy(path)}", edit="delete", path=path, commit=commit)

    def _rename(self, edit: FileEdit, commit: int) -> Event:
        old, new = edit.old_path, edit.path
        self.files[new], self.files[old] = self.files.get(old), None
        self.seen[new] = self.seen.pop(old, [])
        directory = new.rpartition("/")[0]
        make = f"mkdir -p {quote(directory)} && " if directory and directory != old.rpartition("/")[0] else ""
        command = f"{make}mv {quote(old)} {quote(new)}{self._tidy(old)}"
        return self._shell(command, edit="rename", path=old, new_path=new, commit=commit)

    def _chmod(self, path: str, mode: str, commit: int) -> Event:
        file = self.files.get(path)
        self.files[path] = File(mode, file.text, file.encoding) if file else None
        command = f"chmod {'+' if mode == '100755' else '-'}x {quote(path)}"
        return self._shell(command, edit="chmod", path=path, mode=mode, commit=commit)

    def _tidy(self, path: str) -> str:
        """What takes a directory away that the removal of a file empties, where a file is to take its name."""
        directory = path.rpartition("/")[0]
        needed = any(path.startswith(f"{target}/") for target in self.targets)
        return f" && rmdir -p --ignore-fail-on-non-empty {quote(directory)}" if needed else ""

    def _shell(self, command: str, **fields: Any) -> Event:
        """An edit that the editor does not have, as a silent shell command."""
        return Event(kind="edit", command=command, text=editor.SILENT, **fields)

    def _rewrite(self, old: str, edit: FileEdit, commit: int) -> Iterator[Event]:
        """Take a file away and write it anew, under its new name."""
        text = apply_runs(self._file(old, edit).text, parse_runs(edit.patch))
        for path in dict.fromkeys((old, edit.path)):
            if self.files.get(path) is not None:
                yield self._delete(path, commit)
        yield from self._create(edit.path, text, edit, commit)

    def _create(self, path: str, text: str, edit: FileEdit, commit: int) -> Iterator[Event]:
        self.files[path] = File(REGULAR, text, edit.encoding)
        self.seen[path] = [(1, text.count("\n") + 1)]
        yield Event(
            kind="edit",
            edit="create",
            path=path,
            new=text,
            mode=REGULAR,
            encoding=edit.encoding,
            text=editor.created(path),
            commit=commit,
        )
        if edit.new_mode != REGULAR:
            yield self._chmod(path, edit.new_mode, commit)


def _collide(one: str, other: str) -> bool:
    """Whether two paths cannot both be files: they are the same, or one is a directory of the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def quote(path: str) -> str:
    """A path as an argument of a shell command that no command takes for an option."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def _words(title: str, body: str) -> str:
    return f"{title}\n\n{body}".strip()


def _plain(text: str) -> str:
    """The words of a text, each between spaces."""
    return " ".join(["", *re.findall(r"\w+", text.lower()), ""])
