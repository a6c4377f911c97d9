"""Progress of long work: a bar with rate and time left on a terminal, one line a minute elsewhere.

With a file to keep it in, it can also be read from another terminal.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

SECONDS_BETWEEN_LINES = 60.0
SECONDS_BETWEEN_FILES = 2.0


class Progress:
    """Shows `done` of `total` on standard error. Nothing is shown for work that is already done.

    `status` says what else is worth showing; it is asked whenever something is shown. `file` always holds the last line.
    """

    def __init__(
        self,
        title: str,
        total: int,
        *,
        done: int = 0,
        unit: str = "",
        status: Callable[[], str] | None = None,
        file: Path | None = None,
    ) -> None:
        self.title = title
        self.total = total
        self.done = done
        self.unit = unit
        self.status = status
        self.file = file
        self._kept = 0.0
        self.extra: dict[str, int] = {}
        self._begun = self._said = time.monotonic()
        self._at_begin = done
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self.done < self.total and sys.stderr.isatty():
            from rich import progress

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
                progress.TextColumn("{task.fields[rate]}"),
                progress.TimeRemainingColumn(),
                console=_console(),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done, unit=self.unit, rate="")
        return self

    def advance(self, steps: int, /, **extra: int) -> None:
        """Count finished steps, and other things by name."""
        self.done += steps
        for name, count in extra.items():
            self.extra[name] = self.extra.get(name, 0) + count
        self.show()

    def show(self) -> None:
        """Bring what is shown up to date. Cheap: call it whenever time has passed."""
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, rate=self._rate())
        elif now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            print(self.line(), file=sys.stderr, flush=True)
        if self.file is not None and now - self._kept >= SECONDS_BETWEEN_FILES:
            self._kept = now
            self._keep(self.file)

    def line(self) -> str:
        """Where the work stands."""
        return f"{self.title}: {self.done:,}/{self.total:,} {self.unit}, {self._rate()}, {self._left()}"

    def _keep(self, file: Path) -> None:
        unfinished = file.with_name(f"{file.name}.tmp")
        with contextlib.suppress(OSError):  # A full disk stops the work itself, with a sentence of its own.
            unfinished.write_text(f"{self.line()}\n", encoding="utf-8")
            unfinished.replace(file)

    def _speed(self) -> float:
        return (self.done - self._at_begin) / max(time.monotonic() - self._begun, 1e-9)

    def _rate(self) -> str:
        others = "".join(f", {count:,} {name}" for name, count in self.extra.items())
        status = f", {self.status()}" if self.status is not None else ""
        return f"{self._speed():,.1f}/s{others}{status}"

    def _left(self) -> str:
        speed = self._speed()
        return f"about {(self.total - self.done) / speed / 60:.0f} min left" if speed else "time left unknown"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=True)
