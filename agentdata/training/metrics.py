"""What a training measures: a JSON line each in RUN/metrics.jsonl, and trackers beside it; unusual losses noticed.

Events are `train` (a step), `held-out` (a loss of a source and kind) and `notice` (something unusual).
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agentdata.errors import RunError, UsageError
from agentdata.shards import write_whole

MOST_NOT_FINITE = 5
"""Steps in a row without a finite loss after which a training ends."""
SPIKE = 6.0
"""Deviations above the running mean that make a spike."""
MEMORY = 0.98
"""Share that the running mean keeps in each step."""
SETTLED = 20
"""Steps before a running mean says anything."""
STALLED = 0.5
"""Share of a step's time spent on waiting for rows that is noticed."""


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file of metrics."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                return


class Metrics:
    """Appends events. Only the first process has one that writes."""

    def __init__(
        self, path: Path | None, *, stage: str, done: int, trackers: tuple[str, ...] = (), name: str = ""
    ) -> None:
        """stage, done: the stage that begins or goes on, and its last step that counts: later ones are done again."""
        self._path = path
        self._trackers: list[Callable[[dict[str, float], int], None]] = []
        if path is None:
            return
        kept = [event for event in read_metrics(path) if event["stage"] != stage or event["step"] <= done]
        write_whole(path, "".join(json.dumps(event) + "\n" for event in kept))
        self._trackers = [_tracker(tracker, path.parent, name) for tracker in trackers]

    def add(self, event: str, stage: str, step: int, **values: Any) -> None:
        """Write one event."""
        if self._path is None:
            return
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, "stage": stage, "step": step, **values}) + "\n")
        prefix = "/".join([event, *(str(values[key]) for key in ("source", "kind") if key in values)])
        numbers = {
            f"{prefix}/{key}": float(value)
            for key, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        for tracker in self._trackers:
            tracker(numbers, step)


def _tracker(kind: str, run: Path, name: str) -> Callable[[dict[str, float], int], None]:
    try:
        if kind == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            writer = SummaryWriter(str(run / "tensorboard"))

            def log(values: dict[str, float], step: int) -> None:
                for key, value in values.items():
                    writer.add_scalar(key, value, step)
                writer.flush()

            return log
        import importlib

        tracker = importlib.import_module(kind)
        tracker.init(project="agentdata", name=name)
        return lambda values, step: tracker.log(values, step=step)
    except ImportError as error:
        raise UsageError(f"log names {kind}, which is not installed: pip install {kind}, or leave it out.") from error


class Watch:
    """Looks at the losses that go by: says what is unusual, and ends a training that has lost its way."""

    def __init__(self) -> None:
        self._mean = self._square = 0.0
        self._seen = self._not_finite = 0

    def look(self, loss: float, seconds: float, waited: float, *, norm: float = 0.0) -> Iterator[tuple[str, str]]:
        """Reasons and details of what is unusual about a step. Raises RunError for the last one that is not finite.

        norm: of the gradient.
        """
        if not math.isfinite(loss + norm):
            self._not_finite += 1
            if self._not_finite == MOST_NOT_FINITE:
                raise RunError(
                    f"Loss or gradient was not finite in {MOST_NOT_FINITE} steps in a row: lower the rate, or look at "
                    "the rows of these steps. The last checkpoint is kept."
                )
            yield "not-finite", f"loss {loss}, gradient norm {norm}: the step was left out"
            return
        self._not_finite = 0
        deviation = math.sqrt(max(0.0, self._square - self._mean**2))
        if self._seen >= SETTLED and loss > self._mean + SPIKE * max(deviation, 0.01 * self._mean):
            yield "loss-spike", f"loss {loss:.4f}, running mean {self._mean:.4f}"
        share = MEMORY if self._seen >= SETTLED else self._seen / (self._seen + 1)
        self._mean = share * self._mean + (1 - share) * loss
        self._square = share * self._square + (1 - share) * loss**2
        self._seen += 1
        if self._seen > 2 and waited > STALLED * seconds:
            yield "stalled-loader", f"{waited:.2f} of {seconds:.2f} s were spent on waiting for rows"
