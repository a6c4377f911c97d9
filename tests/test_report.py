"""Reports: true to the rows, safe to open, the same for the same, readable in light and dark, wide and narrow."""

import json
import re
import shutil
import statistics
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentdata.datasets.publish import local_files
from agentdata.evaluate.report import read_report
from agentdata.midtrain.packed import read_pack_manifest
from agentdata.report.charts import ticks
from agentdata.report.distributions import Distribution
from agentdata.report.make import page_of, write_report
from agentdata.report.numbers import TIMES, duration, share, short, size
from agentdata.report.page import Figure, Page
from agentdata.report.thinned import MOST_POINTS, Thinned
from tests.assembled import build, chat, chats, write_run
from tests.chromium import opened, overflow
from tests.reported import HOSTILE, KINDS, train_event, training
from tests.runs import agentdata, contents, measured, reasons, table
from tests.trainings import ALONE, finish, held_out, losses, make_data, start, values_of, write_recipe

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """A directory of each kind."""
    return {kind: make(tmp_path_factory.mktemp("reported")) for kind, make in KINDS.items()}


def figure(page: Page, title: str) -> Figure:
    (found,) = [one for section in page.sections for one in section.figures if one.title == title]
    return found


def numbers(page: Page, title: str, column: int = 1) -> dict[str, int]:
    """The first cells of a figure's table with the numbers of another column."""
    return {row[0]: int(row[column].replace(",", "")) for row in figure(page, title).grid.rows}


def tiles(page: Page) -> dict[str, str]:
    found = {tile.name: tile.value for section in page.sections for tile in section.tiles}
    return found | {tile.name: tile.value for tile in page.tiles}


# What is told is so


@pytest.mark.parametrize("kind", KINDS)
def test_a_directory_is_told_for_what_it_is(made: Mapping[str, Path], kind: str) -> None:
    page = page_of(made[kind])
    assert page.kind == kind
    assert page.name == made[kind].name
    assert any(section.figures for section in page.sections)


def test_a_harvest_is_told_as_its_rows_are(made: Mapping[str, Path]) -> None:
    run = made["contextual run"]
    page, samples, changes = page_of(run), table(run, "markdown"), table(run, "changes")
    assert numbers(page, "From step to step") == {
        "landings": len(table(run, "landings")),
        "changes": len(changes),
        "traces": len(table(run, "traces")),
        **{
            f"samples, {name}": len(table(run, name))
            for name in ("markdown", "messages", "xml")
            if (run / name).exists()
        },
    }
    assert len(samples) > 2
    assert tiles(page)["tokens"] == short(sum(row["tokens"] for row in samples))
    years = Counter(datetime.fromtimestamp(row["landed_at"], UTC).year for row in changes)
    assert numbers(page, "Years of changes") == {str(year): count for year, count in years.items()}
    assert sum(reasons(run).values()) > 0
    words = figure(page, "Left out, by stage and reason").words
    told = numbers(page, "Left out, by stage and reason") if not words else {words.partition(":")[0]: 1}
    assert told.keys() == reasons(run).keys()
    events = Counter(event["kind"] for row in table(run, "traces") for event in row["events"])
    assert numbers(page, "Events by kind") == events


def test_a_dataset_is_told_as_its_rows_are(made: Mapping[str, Path]) -> None:
    dataset = made["dataset"]
    page, rows = page_of(dataset), table(dataset, "contextual-messages")
    assert numbers(page, "Repositories") == Counter(row["repo"] for row in rows)
    tokens = Counter[str]()
    for row in rows:
        tokens[row["repo"]] += row["tokens"]
    assert numbers(page, "Repositories", 2) == tokens
    assert numbers(page, "Licences") == Counter(row["licence"] for row in rows)
    median = statistics.median_low(row["tokens"] for row in rows)
    assert f"Median {short(median)}," in figure(page, "Tokens per sample").words
    assert f"largest {short(max(row['tokens'] for row in rows))}" in figure(page, "Tokens per sample").words
    assert sum(numbers(page, "Tokens per sample", 2).values()) == len(rows)
    assert tiles(page)["tasks"] == "3"


def test_attempts_are_told_as_they_were(made: Mapping[str, Path]) -> None:
    run = made["environmental run"]
    page, rows = page_of(run), table(run, "trajectories")
    assert numbers(page, "How attempts stopped") == Counter(row["stop"] for row in rows)
    good = Counter(row["stop"] for row in rows if row["verdict"]["resolved"])
    assert numbers(page, "How attempts stopped", 2) == {"submitted": good["submitted"], "step-limit": 0}
    graded = [row for row in rows if row["verdict"]["reason"] != "not-graded"]
    assert tiles(page)["resolved"] == share(good.total(), len(graded))
    statuses = Counter(seen["status"] for row in rows for one in row["steps"] for seen in one["observations"])
    told = numbers(page, "Exit status of calls")
    assert told == {"0 (went well)": statuses[0], "1": statuses[1], "2": statuses[2]}
    assert f"largest {max(len(row['steps']) for row in rows)}," in figure(page, "Steps per attempt").words
    written = [sum(one["completion_tokens"] for one in row["steps"]) for row in rows]
    assert f"Median {short(statistics.median_low(written))}," in figure(page, "Tokens written per attempt").words
    assert tiles(page)["tokens written"] == short(sum(written))
    assert figure(page, "Commands that looked for what must not be there").words == "history: all 3 commands."
    bands = Counter[str]()
    for task in {row["task"] for row in graded}:
        found = [row["verdict"]["resolved"] for row in graded if row["task"] == task]
        bands["always" if all(found) else "sometimes" if any(found) else "never"] += 1
    assert numbers(page, "Tasks by how often they were resolved") == bands
    assert len(bands) == 3


def test_tasks_and_environments_are_told_with_what_failed(made: Mapping[str, Path]) -> None:
    page = page_of(made["task run"])
    assert numbers(page, "From step to step") == {"environments that were tried": 8, "tasks": 4}
    assert figure(page, "Tests that must still pass").words.startswith("Median 1,")
    assert any("1 of 4 tasks have tests that are set aside" in section.words for section in page.sections)
    page = page_of(made["environment run"])
    assert numbers(page, "From step to step") == {"changes that were tried": 5, "environments": 3}
    assert numbers(page, "How builds ended") == {"worked": 3, "import-failed": 2}
    assert tiles(page)["sets of packages"] == "2"
    assert numbers(page_of(made["grading run"]), "Reasons of verdicts") == {"resolved": 3, "tests-failed": 1}


def test_an_evaluation_and_packed_rows_are_told_as_they_are_kept(made: Mapping[str, Path]) -> None:
    report = read_report(made["evaluation"])
    page = page_of(made["evaluation"])
    assert tiles(page)["resolved"] == f"{report.mean:.1%}" == "66.7%"
    assert numbers(page, "Tasks by how often they were resolved") == {"in every run": 80, "never": 40}
    ledger = read_pack_manifest(made["packed rows"]).ledger
    page = page_of(made["packed rows"])
    assert numbers(page, "Tokens by kind of text") == {kind.kind: kind.tokens for kind in ledger.kinds}
    assert numbers(page, "Tokens by kind of text", 2) == {kind.kind: kind.trained for kind in ledger.kinds}
    assert tiles(page)["tokens"] == short(ledger.tokens)


def test_a_training_is_told_as_it_was_measured(made: Mapping[str, Path]) -> None:
    page = page_of(made["training"])
    (stages,) = [grid for section in page.sections for title, grid in section.grids if title == "Stages"]
    assert stages.rows == (
        ("contextual", "40", "80,000", "60,000", "20 s", "5.0000", "1.1000", "600 MB"),
        ("environmental", "40", "80,000", "60,000", "20 s", "1.0976", "1.0500", "600 MB"),
    )
    (losses,) = [grid for section in page.sections for title, grid in section.grids if title == "First and last"]
    assert ("runs/click:messages", "edit", "900", "2.2000", "2.0250", "-0.1750") in losses.rows
    loss = figure(page, "Loss in training").grid.rows
    assert ("contextual", "6", "1.6667") in loss
    assert not [row for row in loss if row[:2] == ("contextual", "7")]  # no finite loss
    assert figure(page, "Notices by reason").words == "loss-spike: 1 notice."


def test_a_training_is_told_while_it_goes_on(tmp_path: Path) -> None:
    run = training(tmp_path)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"event": "train", "stage": "env')
    assert tiles(page_of(run))["steps"] == "80"


def test_a_real_training_is_told_and_not_disturbed(tmp_path: Path) -> None:
    data, run = make_data(tmp_path), tmp_path / "trained"
    recipe = write_recipe(data, values_of(data))
    status, said = finish(start(ALONE, recipe, run))
    assert status == 0, said
    write_report(run)
    page, found = page_of(run), losses(run)
    told = {(row[0], int(row[1])): float(row[2]) for row in figure(page, "Loss in training").grid.rows}
    assert told == {key: pytest.approx(loss, abs=1e-4) for key, loss in found.items()}
    edits = [float(row[2]) for row in figure(page, "Held-out loss by kind, unseen").grid.rows if row[0] == "edit"]
    # One point stands where the first stage ends and the second begins.
    assert edits[-1] == pytest.approx(held_out(run, "second", "edit")[-1], abs=1e-4)
    assert edits[0] == pytest.approx(held_out(run, "first", "edit")[0], abs=1e-4)
    assert {section.title for section in page.sections} >= {"What first was trained on", "What second was trained on"}
    status, said = finish(start(ALONE, recipe, run))
    assert status == 0, said
    assert losses(run) == found


# Numbers


@given(st.dictionaries(st.integers(0, 10**6), st.integers(1, 50), min_size=1, max_size=60))
def test_bins_hold_every_value_once(counts: dict[int, int]) -> None:
    found = Distribution({float(value): count for value, count in counts.items()})
    bins = found.bins()
    assert sum(one.count for one in bins) == sum(counts.values())
    assert all(one.low < one.high for one in bins)
    assert all(before.high == after.low for before, after in pairwise(bins))
    assert bins[0].low <= min(counts)
    assert max(counts) < bins[-1].high
    assert len(bins) <= 40
    for one in bins:
        assert one.count == sum(count for value, count in counts.items() if one.low <= value < one.high)
    values = sorted(value for value, count in counts.items() for _ in range(count))
    assert found.quantile(0.5) == statistics.median_low(values)


@given(st.dictionaries(st.floats(0, 10**6), st.integers(1, 50), min_size=1, max_size=60))
def test_bins_of_times_hold_every_value_once(counts: dict[float, int]) -> None:
    bins = Distribution(counts, TIMES).bins()
    assert sum(one.count for one in bins) == sum(counts.values())
    assert bins[0].low <= min(counts)
    assert max(counts) < bins[-1].high


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_ticks_are_around_what_they_measure(low: float, length: float) -> None:
    found = ticks(low, low + length)
    assert 2 <= len(found) <= 8
    assert found[0] <= low + 1e-6 * max(1, length)
    assert found[-1] >= low + length - 1e-6 * max(1, length)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (short(0), "0"), (short(0.125), "0.125"), (short(812), "812"), (short(3412), "3,412"), (short(12_345), "12.3 k"),
        (short(999_960), "1 M"), (short(1_234_567), "1.2 M"), (short(5e9), "5 G"), (short(-20_000), "-20 k"),
        (size(999), "999 B"), (size(1_900_000), "1.9 MB"), (duration(0.4), "0.4 s"), (duration(90), "90 s"),
        (duration(600), "10 min"), (duration(9000), "2.5 h"), (duration(864_000), "10 days"), (share(0, 0), "-"),
        (share(1, 3), "33%"), (share(1, 30), "3.3%"), (share(1, 5000), "<0.1%"), (share(4999, 5000), "99.9%"),
        (share(7, 7), "100%"),
    ],
)  # fmt: skip
def test_numbers_are_short_and_true(told: str, expected: str) -> None:
    assert told == expected


def test_a_long_measure_keeps_its_mean_in_few_points() -> None:
    found = Thinned()
    for step in range(1, 100_001):
        found.add(step, step % 7)
    curve = found.curve("m")
    assert len(curve.points) <= MOST_POINTS
    assert all(abs(value - 3) < 0.1 for _, value in curve.points)
    assert {(low, high) for _, low, high in curve.band} == {(0, 6)}


# The file


class _Parsed(HTMLParser):
    """Elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.targets: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        self.targets |= {value or "" for name, value in attrs if name in ("src", "href")}


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_needs_nothing_else(made: Mapping[str, Path], kind: str, tmp_path: Path) -> None:
    text = write_report(made[kind], tmp_path / "page.html").read_text(encoding="utf-8")
    found = _Parsed(text)
    assert not {"script", "link", "img", "iframe", "object", "form"} & found.tags.keys()
    assert not [name for name in found.attributes if name.startswith("on")]
    assert all(target.startswith("#s") for target in found.targets)
    assert "url(" not in text
    assert "@import" not in text
    assert found.tags["svg"] <= found.tags["desc"]
    assert len(text) < 500_000


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_directory_gives_the_same_bytes_wherever_it_lies(
    made: Mapping[str, Path], kind: str, tmp_path: Path
) -> None:
    first = write_report(made[kind], tmp_path / "first.html").read_bytes()
    shutil.copytree(made[kind], tmp_path / "elsewhere" / made[kind].name)
    second = write_report(tmp_path / "elsewhere" / made[kind].name, tmp_path / "second.html").read_bytes()
    assert first == second


def test_a_report_beside_the_rows_disturbs_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"messages": chats()})
    before = build(tmp_path / "dataset", run)
    files = local_files(tmp_path / "dataset")
    done = agentdata("report", tmp_path / "dataset")
    done.succeeds()
    assert done.out.startswith(f"{tmp_path / 'dataset/report.html'}: ")
    assert build(tmp_path / "dataset", run) == before
    assert local_files(tmp_path / "dataset") == files
    agentdata("check", tmp_path / "dataset").succeeds()
    assert {path for path in contents(tmp_path / "dataset") if path.endswith("html")} == {"report.html"}


def test_an_interrupted_run_goes_on_beside_its_report(made: Mapping[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "harvest"
    shutil.copytree(made["contextual run"], run)
    write_report(run)
    manifest = (run / "manifest.json").read_text()
    (run / "manifest.json").unlink()
    agentdata("report", run).explains("unfinished", status=2)
    source = made["contextual run"].parent / "repository"
    agentdata("harvest", "contextual", source, "-o", run, "-j1").succeeds()
    assert (run / "manifest.json").read_text() == manifest
    agentdata("check", run, "--share", "1").succeeds()


# Refusals


def test_what_cannot_be_told_is_refused_in_a_sentence(made: Mapping[str, Path], tmp_path: Path) -> None:
    agentdata("report", tmp_path).explains("nothing to report on", str(tmp_path), status=2)
    (tmp_path / "config.json").write_text('{"architectures": ["A"]}')  # a model
    agentdata("report", tmp_path).explains("nothing to report on", status=2)
    agentdata("report", tmp_path / "absent").explains("absent", status=2)
    agentdata("report", made["dataset"], "-o", tmp_path).explains("is a directory", status=2)
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1}\n')
    agentdata("report", tmp_path).explains("line 1, is no event", status=2)
    (tmp_path / "metrics.jsonl").write_text("1\n")
    agentdata("report", tmp_path).explains("line 1, is no event", status=2)
    (tmp_path / "metrics.jsonl").write_text("step,loss\n1,2\n")
    agentdata("report", tmp_path).explains("holds no event of a training yet", status=2)
    (tmp_path / "metrics.jsonl").write_text(json.dumps({**train_event("a", 1), "event": "held-out"}) + "\n")
    agentdata("report", tmp_path).explains("line 1", "'source'", status=2)
    (tmp_path / "file").write_text("")
    agentdata("report", made["dataset"], "-o", tmp_path / "file/page.html").explains("page.html", status=1)


@pytest.mark.parametrize("version", [0, 99])
def test_records_of_another_version_are_refused(made: Mapping[str, Path], tmp_path: Path, version: int) -> None:
    run = tmp_path / "run"
    shutil.copytree(made["dataset"], run)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "schema_version": version}))
    agentdata("report", run).explains(f"records of version {version}", "reads version 1", status=2)


def test_a_damaged_shard_is_named(made: Mapping[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made["dataset"], run)
    shard = next((run / "contextual-messages").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:200])
    agentdata("report", run).explains(shard.name, "agentdata check", status=1)


def test_long_texts_are_never_read(tmp_path: Path) -> None:
    rows = [chat(f"r{number}", "a/one") for number in range(200)]
    long = [
        row.model_copy(update={"messages": (row.messages[0].model_copy(update={"content": "x" * 2_000_000}),)})
        for row in rows
    ]
    run = write_run(tmp_path / "run", {"messages": long}, shard_rows=100)
    small = measured("report", write_run(tmp_path / "small", {"messages": rows}), "-o", tmp_path / "small.html")
    large = measured("report", run, "-o", tmp_path / "large.html")
    small.succeeds()
    large.succeeds()
    assert large.peak_megabytes < small.peak_megabytes + 40  # of 400 MB of text


# In a browser


def hostile_dataset(folder: Path) -> Path:
    """Names that would run scripts, turn text around, and push pages wide."""
    names = [HOSTILE, "a/" + "long" * 60, "b/\u202ereversed", "c/\x1b[31m\x00", "d/one", "e/ok"]
    rows = [
        chat(f"{place}-{n}", name, licence=HOSTILE, policy=f"{HOSTILE}{n}")
        for place, name in enumerate(names)
        for n in range(2)
    ]
    run = write_run(folder / "hostile", {"messages": rows}, rejections={f"changes/{HOSTILE}": 3, "changes/other": 1})
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "generator": HOSTILE}))
    return run


@pytest.mark.chromium
def test_hostile_names_are_text(chromium: "Browser", tmp_path: Path) -> None:
    file = write_report(hostile_dataset(tmp_path))
    with opened(chromium, file.as_uri(), width=400) as page:
        assert page.evaluate("document.body.id") == ""
        assert page.locator("script, img").count() == 0
        page.locator("summary").first.wait_for()
        for summary in page.locator("summary").all():
            summary.click()
        shown = page.inner_text("body")
        assert HOSTILE in shown
        assert "\x1b" not in shown
        assert overflow(page) == 0


OVERLAPS = """() => [...document.querySelectorAll('svg')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].map(one => [one.textContent, one.getBoundingClientRect()]);
  const wide = document.documentElement.clientWidth;
  const over = ([, a], [, b]) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4;
  const pairs = texts.flatMap((a, i) => texts.slice(i + 1).filter(b => over(a, b)).map(b => a[0] + ' / ' + b[0]));
  const outside = texts.filter(([, a]) => a.left < 0 || a.right > wide).map(a => a[0]);
  return [...pairs, ...outside];
})"""
CONTRAST = """() => {
  const parts = colour => colour.match(/[0-9.]+/g).slice(0, 3).map(part => {
    const one = part / 255; return one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4; });
  const light = colour => { const [r, g, b] = parts(colour); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const ratio = colour => { const ink = light(colour); return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05); };
  const words = [...document.querySelectorAll('h1,h2,h3,p,dt,dd,small,summary,th,td,a,li')]
    .map(one => getComputedStyle(one).color);
  const drawn = [...document.querySelectorAll('svg text')].map(one => getComputedStyle(one).fill);
  return Math.min(...[...words, ...drawn].map(ratio));
}"""
SMALLEST = """() => Math.min(...[...document.querySelectorAll('svg text')].map(one =>
  parseFloat(getComputedStyle(one).fontSize) * one.getScreenCTM().a))"""


@pytest.mark.chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_readable(
    made: Mapping[str, Path], chromium: "Browser", tmp_path: Path, kind: str, width: int, dark: bool
) -> None:
    file = write_report(made[kind], tmp_path / "page.html")
    with opened(chromium, file.as_uri(), width=width, dark=dark) as page:
        assert page.title() == f"{made[kind].name}, {kind}"
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper)[:3])) < 200) == dark
        assert page.evaluate(CONTRAST) > 4.5
        assert overflow(page) == 0
        assert page.evaluate(SMALLEST) >= 11
        assert page.evaluate(OVERLAPS) == []
        assert page.evaluate("[...document.querySelectorAll('svg')].every(one => one.querySelector(':scope > title'))")


@pytest.mark.chromium
def test_nothing_is_fetched(made: Mapping[str, Path], chromium: "Browser", tmp_path: Path) -> None:
    file = write_report(made["dataset"], tmp_path / "page.html")
    page = chromium.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_load_state("networkidle")
    page.close()
    assert asked == [file.as_uri()]
