"""A change as one ordered list of events, proved by replay before it is let out."""

import hashlib
import shlex
from collections.abc import Iterator, Sequence

from agentdata import editor
from agentdata.harvest.edits import PatchError, UnfitError, apply_runs, make_edits, parse_runs
from agentdata.harvest.explore import Explorer, Range, merge, read_event
from agentdata.harvest.recipe import HarvestRecipe
from agentdata.harvest.replay import File, ReplayError, Workspace, prove
from agentdata.records import Change, Encoding, Event, FileEdit, FileProof, Rejected, SnapshotFile, Trace

ROLES = ("source", "test", "other")


class Narrator:
    """Tells changes of one repository."""

    def __init__(self, explorer: Explorer, recipe: HarvestRecipe) -> None:
        self.explorer = explorer
        self.recipe = recipe
        self.options = recipe.exploration

    def tell(self, change: Change) -> Trace | Rejected:
        """The trace of a change, or why it could not be proved."""
        try:
            events = tuple(_Story(change, self.explorer, self.recipe).events())
            files = {file.path: (file.mode, file.text.encode(file.encoding)) for file in change.files}

            def snapshot(path: str) -> File | None:
                return files.get(path) or self._untouched(change, path)

            proof = prove(events, snapshot, file_proofs(change.edits), (change.snapshot, change.head))
        except PatchError as error:
            return Rejected(id=change.id, repo=change.repo, stage="traces", reason="patch-unfit", detail=str(error))
        except ReplayError as error:
            return Rejected(id=change.id, repo=change.repo, stage="traces", reason=error.reason, detail=str(error))
        options = self.options
        return Trace(
            id=hashlib.sha256(f"{change.id} {proof.digest}".encode()).hexdigest()[:16],
            change_id=change.id,
            repo=change.repo,
            policy=options.policy,
            seed=options.seed,
            unparsed=self.explorer.unparsed(change),
            events=events,
            proof=proof,
        )

    def _untouched(self, change: Change, path: str) -> File | None:
        """A file that is read but not changed."""
        trees = self.explorer.trees
        entry = trees.lookup(trees.repository.commit(change.snapshot).tree, path.encode())
        return (entry.mode, trees.repository.read(entry.oid)) if entry and entry.mode.startswith("100") else None


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

    def __init__(self, change: Change, explorer: Explorer, recipe: HarvestRecipe) -> None:
        self.change = change
        self.explorer = explorer
        self.options = recipe.exploration
        self.before = {file.path: file for file in change.files}
        self.workspace = Workspace(self._snapshot)
        self.seen: dict[str, list[Range]] = {}
        """Ranges of lines seen so far, in the numbering of the file as it stands."""
        self.told: set[str] = set()

    def _snapshot(self, path: str) -> File | None:
        file = self.before.get(path)
        return (file.mode, file.text.encode(file.encoding)) if file else None

    def events(self) -> Iterator[Event]:
        yield self._issue()
        for event in self.explorer.events(self.change):
            if event.kind == "read":
                self._see(event)
            yield event
        words = _words(self.change.title, self.change.body)
        if words not in self.told and self.change.issues:
            self.told.add(words)
            yield Event(kind="think", text=words)
        for number, commit in enumerate(self.change.commits):
            if commit.message and commit.message not in self.told:
                self.told.add(commit.message)
                yield Event(kind="think", text=commit.message, commit=number)
            for edit in self._ordered(commit.edits):
                for event in self._edit(edit):
                    yield event.model_copy(update={"commit": number}) if event.kind == "edit" else event
        yield Event(kind="done")

    def _issue(self) -> Event:
        """What the agent is asked: the issues, else the words of the change itself."""
        if self.change.issues:
            return Event(
                kind="issue", text="\n\n".join(_words(issue.title, issue.body) for issue in self.change.issues)
            )
        words = _words(self.change.title, self.change.body)
        self.told |= {words, self.change.title}
        self.told |= {commit.message for commit in self.change.commits if _flat(commit.message) == _flat(words)}
        return Event(kind="issue", text=words)

    # Seeing

    def _see(self, event: Event) -> None:
        end = event.end or event.text.count("\n") + 1
        self._add(event.path, (event.start or 1, end))

    def _add(self, path: str, one: Range) -> None:
        self.seen[path] = merge([*self.seen.get(path, []), one])

    def _look(self, path: str, text: str, encoding: Encoding, first: int, last: int) -> Iterator[Event]:
        """Read the lines around an edit if they were not all seen."""
        if any(start <= first and last <= end for start, end in self.seen.get(path, [])):
            return
        lines = text.split("\n")
        margin = self.options.margin_lines
        whole = len(lines) <= self.options.whole_file_lines
        one = None if whole else (max(1, first - margin), min(len(lines), last + margin))
        file = SnapshotFile(path=path, language="", text=text, encoding=encoding, blob="", mode="")
        event = read_event(file, lines, one)
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
        room = {path for path in leaving for target in targets if target == path or target.startswith(path + "/")}

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
            edit.path == path or edit.path.startswith(path + "/") for path in occupied - {edit.old_path}
        )

    def _edit(self, edit: FileEdit) -> Iterator[Event]:
        path = edit.path
        if edit.status == "added":
            yield from self._create(path, apply_runs("", parse_runs(edit.patch)), edit)
            return
        if edit.status == "deleted":
            yield self._do(
                Event(kind="edit", edit="delete", path=path, command=f"rm {shlex.quote(path)}", text=editor.SILENT)
            )
            return
        if edit.status == "renamed":
            if self.workspace.at(path) is not None:
                yield from self._rewrite(edit.old_path, edit)
                return
            yield self._rename(edit)
        if edit.new_mode != edit.old_mode:
            sign = "+" if edit.new_mode == "100755" else "-"
            command = f"chmod {sign}x {shlex.quote(path)}"
            yield self._do(
                Event(kind="edit", edit="chmod", path=path, mode=edit.new_mode, command=command, text=editor.SILENT)
            )
        runs = parse_runs(edit.patch)
        if not runs:
            return
        kept = self.workspace.files.get(path) or self.workspace.at(path)
        seen = list(self.seen.get(path, []))
        try:
            events = list(self._change_text(edit))
        except UnfitError:
            # Nothing unique to hold on to: write the file anew.
            self.workspace.files[path] = kept
            self.seen[path] = seen
            events = list(self._rewrite(path, edit))
        yield from events

    def _change_text(self, edit: FileEdit) -> Iterator[Event]:
        text = self._text(edit.path, edit)
        for place in make_edits(edit.path, text, parse_runs(edit.patch), self.options.widen_lines):
            yield from self._look(edit.path, text, edit.encoding, place.first, place.last)
            yield self._do(place.event.model_copy(update={"encoding": edit.encoding}))
            self._shift(edit.path, place.first, place.last, place.after.count("\n") - text.count("\n"))
            text = place.after

    def _text(self, path: str, edit: FileEdit) -> str:
        file = self.workspace.at(path)
        if file is None:
            raise PatchError(f"{path} does not exist when it is changed")
        try:
            return file[1].decode(edit.encoding)
        except UnicodeDecodeError as error:
            raise PatchError(f"{path} is not {edit.encoding} when it is changed") from error

    def _rename(self, edit: FileEdit) -> Event:
        old, new = edit.old_path, edit.path
        directory = new.rpartition("/")[0]
        make = f"mkdir -p {shlex.quote(directory)} && " if directory and directory != old.rpartition("/")[0] else ""
        command = f"{make}mv {shlex.quote(old)} {shlex.quote(new)}"
        if old in self.seen:
            self.seen[new] = self.seen.pop(old)
        return self._do(Event(kind="edit", edit="rename", path=old, new_path=new, command=command, text=editor.SILENT))

    def _rewrite(self, old: str, edit: FileEdit) -> Iterator[Event]:
        """Take a file away and write it anew, under its new name."""
        text = apply_runs(self._text(old, edit), parse_runs(edit.patch))
        for path in dict.fromkeys((old, edit.path)):
            if self.workspace.at(path) is not None:
                command = f"rm {shlex.quote(path)}"
                yield self._do(Event(kind="edit", edit="delete", path=path, command=command, text=editor.SILENT))
        yield from self._create(edit.path, text, edit)

    def _create(self, path: str, text: str, edit: FileEdit) -> Iterator[Event]:
        mode = edit.new_mode
        yield self._do(
            Event(
                kind="edit",
                edit="create",
                path=path,
                new=text,
                mode="100644",
                encoding=edit.encoding,
                text=editor.created(path),
            )
        )
        self._add(path, (1, text.count("\n") + 1))
        if mode != "100644":
            command = f"chmod +x {shlex.quote(path)}"
            yield self._do(Event(kind="edit", edit="chmod", path=path, mode=mode, command=command, text=editor.SILENT))

    def _do(self, event: Event) -> Event:
        self.workspace.apply(event)
        return event


def _words(title: str, body: str) -> str:
    return f"{title}\n\n{body}".strip()


def _flat(text: str) -> str:
    return " ".join(text.split())
