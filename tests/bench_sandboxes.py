"""Time sandboxes: `python -m tests.bench_sandboxes`. Needs a Docker engine; prints a table, and fails when a goal is missed."""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from sandboxes.engine import Engine
from sandboxes.images import base_image
from sandboxes.protocol import Limits

STARTS = 15
COMMANDS = 3000


class Measured(NamedTuple):
    """A figure with its goal."""

    what: str
    figure: str
    goal: str
    reached: bool


def session_overhead(engine: Engine, image: str) -> Measured:
    """What a command costs beyond its own work."""
    with engine.open(image) as box:
        session = box.session()
        times = sorted(_timed(lambda: session.run("true")) for _ in range(COMMANDS))
    middle, late = times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3
    return Measured("session command", f"p50 {middle:.2f} ms, p99 {late:.2f} ms", "p50 <= 1 ms", middle <= 1)


def start_to_first_command(engine: Engine, image: str) -> Measured:
    """From nothing to the output of the first command, taken in turns with the same by `docker run`."""

    def ours() -> None:
        box = engine.open(image)
        assert box.run("echo hello").text == "hello\n"

    def theirs() -> None:
        subprocess.run(
            ["docker", "run", "--rm", "--network=none", image, "echo", "hello"], check=True, capture_output=True
        )

    pairs = []
    for _ in range(STARTS):
        pairs.append((_timed(ours), _timed(theirs)))
        engine.close_all()
    own, other = (statistics.median(column) for column in zip(*pairs, strict=True))
    figure = f"{own * 1e3:.0f} ms, docker run {other * 1e3:.0f} ms: {own / other:.2f} times"
    return Measured("start to first command", figure, "<= 1.3 times", own / other <= 1.3)


def many_at_once(engine: Engine, image: str, *, boxes: int, commands: int) -> Measured:
    """Sandboxes at once, each with a session; every command's output is checked."""

    def work(place: int) -> int:
        share = commands // boxes + (place < commands % boxes)
        with engine.open(image, limits=Limits(memory_bytes=256 << 20)) as box:
            session = box.session()
            return sum(session.run(f"echo {place}-{i}").text == f"{place}-{i}\n" for i in range(share))

    began = time.perf_counter()
    with ThreadPoolExecutor(boxes) as pool:
        right = sum(pool.map(work, range(boxes)))
    seconds = time.perf_counter() - began
    own = engine.labels("")
    left = len([box for box in engine.containers() if own.items() <= box["Labels"].items()])
    figure = f"{right:,} of {commands:,} right in {seconds:.1f} s ({commands / seconds:,.0f}/s), {left} containers left"
    return Measured(f"{boxes} sandboxes at once", figure, "none lost, none left", right == commands and not left)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default="3.11")
    parser.add_argument("--boxes", type=int, default=32)
    parser.add_argument("--commands", type=int, default=10_000)
    options = parser.parse_args()
    engine = Engine()
    image = base_image(engine, options.python)
    found = [
        session_overhead(engine, image),
        start_to_first_command(engine, image),
        many_at_once(engine, image, boxes=options.boxes, commands=options.commands),
    ]
    engine.close()
    for one in found:
        print(f"{'ok  ' if one.reached else 'MISS'}  {one.what}: {one.figure} (goal: {one.goal})")
    sys.exit(not all(one.reached for one in found))


if __name__ == "__main__":
    main()
