"""Benchmarks to reports: what is read, graded, said and compared, and what is refused in one sentence."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentdata.environments.exchange import write_rows
from agentdata.errors import UsageError
from agentdata.evaluate.benchmark import image_names, read_benchmark
from agentdata.evaluate.compare import compare
from agentdata.evaluate.drawing import draw
from agentdata.evaluate.official import grade_officially, require_harness
from agentdata.evaluate.outcomes import Judgement, Outcome, outcomes_of
from agentdata.evaluate.predictions import Effort, Submitted, by_run, given, write_predictions
from agentdata.evaluate.report import Prices, Report, make_report, read_report
from agentdata.evaluate.telling import comparison_text, report_markdown, runs_grid
from agentdata.records import GoldPatch, Message, Prediction, Rejected, Step, Trajectory, Verdict
from sandboxes.engine import Engine
from tests import gradetoy
from tests.exchanged import make_toy
from tests.runs import agentdata, finish, launch

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def outcome(task: str, resolved: bool, run: int = 1, *, effort: Effort | None = None, reason: str = "") -> Outcome:
    judgement = Judgement(grader="g", resolved=resolved, reason=reason or ("resolved" if resolved else "tests-failed"))
    return Outcome(task=task, run=run, judgements=(judgement,), empty=False, effort=effort or Effort())


def report_of(resolved: Sequence[bool], *, start: int = 0, model: str = "m") -> Report:
    outcomes = [outcome(f"t-{start + place}", one) for place, one in enumerate(resolved)]
    return make_report(outcomes, benchmark="b", model=model)


def attempt(task: str, number: int, submission: str, *, stop: str = "submitted") -> Trajectory:
    steps = (
        Step(content="one", prompt_tokens=100, completion_tokens=10, seconds=1.5),
        Step(content="two", prompt_tokens=150, completion_tokens=20, seconds=0.5),
    )
    return Trajectory.model_validate(
        {
            **dict.fromkeys(
                ("repo", "base_commit", "licence", "sampling", "scaffold", "scaffold_version", "tools"), ""
            ),
            "id": f"{task}/{number}",
            "task": task,
            "attempt": number,
            "seed": 0,
            "model": "org/model",
            "prompt": (Message(role="user", content="fix it", train=False),),
            "steps": steps,
            "stop": stop,
            "submission": submission,
            "verdict": Verdict(task=task, resolved=False, reason="not-graded"),
            "seconds": 7200.0,
            "created_at": "2026-01-01T00:00:00+00:00",
            "generator": "",
        }
    )


# Benchmarks


def test_images_of_rows_without_one_follow_the_convention(tmp_path: Path) -> None:
    task = make_toy(tmp_path, image="").triple[0].model_copy(update={"id": "Pallets__Flask-5014"})
    published, built = image_names(task)
    assert published == "swebench/sweb.eval.x86_64.pallets_1776_flask-5014:latest"
    assert built == "sweb.eval.x86_64.pallets__flask-5014:latest"
    assert image_names(task.model_copy(update={"image": "own:1"})) == ("own:1",)
    assert image_names(task, "mine/{instance_id}:2") == ("mine/Pallets__Flask-5014:2",)


def test_a_file_is_read_in_its_order_and_a_bad_row_does_not_stop_it(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, [make_toy(tmp_path / "toy").triple])
    row = json.loads(rows.read_text())
    rows.write_text(f"{json.dumps(row | {'instance_id': 'b__b-2', 'patch': None})}\n{{\n{json.dumps(row)}\n")
    found = read_benchmark(str(rows))
    assert [one.reason if isinstance(one, Rejected) else one[0].id for one in found] == [
        "missing-column",
        "not-json",
        row["instance_id"],
    ]
    assert len(read_benchmark(str(rows), limit=3)) == 3
    assert len(read_benchmark(str(rows), instances=[row["instance_id"]])) == 1


@pytest.mark.parametrize(
    ("benchmark", "words"),
    [("verfied", ("no benchmark 'verfied'", "verified, lite, full")), (".", ("holds no manifest.json",))],
)
def test_what_is_no_benchmark_is_said(tmp_path: Path, benchmark: str, words: tuple[str, ...]) -> None:
    done = agentdata("evaluate", benchmark, "-p", "gold", "-o", "run", cwd=tmp_path)
    done.explains(*words, status=2)
    assert not (tmp_path / "run").exists()


def test_a_benchmark_of_unusable_rows_and_an_unknown_instance_are_said(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instance_id": "a__b-1", "repo": "a/b"}\n')
    with pytest.raises(UsageError, match=r"None of the 1 rows .* base_commit is absent or empty"):
        read_benchmark(str(rows))
    with pytest.raises(UsageError, match="no instance 'a__b-2'; it has 1, such as a__b-1"):
        read_benchmark(str(rows), instances=["a__b-2"])


def test_a_dataset_that_cannot_be_loaded_names_the_remedy(tmp_path: Path) -> None:
    environment = {**OFFLINE, "HF_HOME": str(tmp_path)}
    done = finish(launch("evaluate", "verified", "-p", "gold", "-o", tmp_path / "run", environment=environment))
    done.explains("SWE-bench/SWE-bench_Verified cannot be loaded", "local file", status=2)
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-p", "gold", "--image", "one:1"], "put {instance_id}"),
        (["-p", "none.jsonl"], "There are no predictions 'none.jsonl'"),
        ([], "Give either a --model"),
    ],
)
def test_bad_options_are_said_before_anything_is_written(tmp_path: Path, options: list[str], words: str) -> None:
    write_rows(tmp_path / "rows.jsonl", [make_toy(tmp_path / "toy").triple])
    done = agentdata("evaluate", "rows.jsonl", *options, "-o", "run", cwd=tmp_path)
    done.explains(words, status=2)
    assert not (tmp_path / "run").exists()


# Predictions


def test_attempts_become_predictions_in_the_official_form(tmp_path: Path) -> None:
    attempts = [attempt("a__b-1", 0, "diff 1"), attempt("a__b-2", 0, ""), attempt("a__b-1", 1, "diff 2")]
    runs = by_run(attempts)
    assert {number: len(submitted) for number, submitted in runs.items()} == {1: 2, 2: 1}
    assert runs[1][0].effort == Effort(
        stop="submitted", steps=2, prompt_tokens=250, completion_tokens=30, seconds=7200.0, policy_seconds=2.0
    )
    path = write_predictions(tmp_path, [one.prediction for one in runs[1]])
    row = {"instance_id": "a__b-1", "model_name_or_path": "org/model", "model_patch": "diff 1"}
    assert json.loads(path.read_text()).keys() == {"a__b-1", "a__b-2"}
    assert json.loads(path.read_text())["a__b-1"] == row
    assert json.loads((tmp_path / "preds.jsonl").read_text().splitlines()[0]) == row


def test_predictions_that_cannot_be_used_are_said_and_the_rest_stands(tmp_path: Path) -> None:
    triple = make_toy(tmp_path).triple
    rows = [{"instance_id": name, "model_name_or_path": "m", "model_patch": "x"} for name in (triple[0].id, "other")]
    file = tmp_path / "preds.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in [*rows, {"instance_id": "third"}]))
    said: list[str] = []
    assert [one.prediction.model_patch for one in given(str(file), [triple], said.append)] == ["x"]
    assert [line.split(":")[0] for line in said] == ["Left out a prediction", said[1]]
    assert "1 predictions of other tasks than the chosen ones, such as other" in said[1]
    file.write_text(json.dumps(rows[1]))
    with pytest.raises(UsageError, match="no prediction for any of the 1 tasks"):
        given(str(file), [triple], said.append)


# Reports


def test_a_task_without_a_prediction_counts_as_not_resolved() -> None:
    prediction = Prediction(instance_id="a", model_patch="diff")
    verdict = Verdict(task="a", resolved=True, reason="resolved")
    found = outcomes_of(1, ["a", "b"], [Submitted(prediction)], {"g": [verdict]})
    assert [(one.resolved, one.reason, one.empty) for one in found] == [
        (True, "resolved", False),
        (False, "no-prediction", True),
    ]
    report = make_report(found, benchmark="b", model="m")
    assert report.mean == 0.5
    assert "1 tasks have no prediction and count as not resolved." in report.notes


def test_a_report_over_runs_has_rates_cost_and_ends() -> None:
    spent = Effort(stop="submitted", steps=4, prompt_tokens=10**6, completion_tokens=10**5, seconds=1800.0)
    limit = spent.model_copy(update={"stop": "step-limit", "steps": 100})
    outcomes = [
        *(outcome("a", True, run, effort=spent) for run in (1, 2)),
        outcome("b", True, 1, effort=spent),
        outcome("b", False, 2, effort=limit),
        *(outcome("c", False, run, effort=limit) for run in (1, 2)),
    ]
    report = make_report(outcomes, benchmark="b", model="m", prices=Prices(prompt=1.0, completion=10.0))
    assert [run.rate for run in report.runs] == pytest.approx([2 / 3, 1 / 3])
    assert report.mean == pytest.approx(0.5)
    assert (report.ever, report.always) == (2, 1)
    assert [(stop.name, stop.count) for stop in report.stops] == [("step-limit", 3), ("submitted", 3)]
    assert [(stop.name, stop.count) for stop in report.stops_resolved] == [("submitted", 3)]
    assert (report.runs[0].cost, report.runs[0].hours) == pytest.approx((6.0, 1.5))
    assert runs_grid(report).rows[0][-2:] == ("6.00", "3.00")


def test_two_graders_that_differ_are_shown() -> None:
    verdicts = [Judgement(grader="official", resolved=True, reason="resolved")]
    verdicts.append(Judgement(grader="ours", resolved=False, reason="tests-failed", tampering=("conftest: c.py",)))
    outcomes = [Outcome(task="a", run=1, judgements=tuple(verdicts), empty=False, effort=Effort())]
    text = report_markdown(make_report(outcomes, benchmark="b", model="m"))
    assert "ours agrees on 0 of 1 verdicts." in text
    assert "a, run 1: resolved and tests-failed (conftest: c.py)." in text


def test_tasks_that_were_left_out_lower_the_quoted_rate() -> None:
    row = Rejected(id="z", repo="", stage="images", reason="no-image", detail="")
    report = make_report([outcome("a", True)], benchmark="b", model="m", left_out=[row])
    assert (
        "1 of 2 chosen tasks were left out, such as z (no-image); counted as not resolved they make the rate 50.0%."
        in (report.notes)
    )


def test_the_picture_is_well_formed_whatever_the_names() -> None:
    picture = ElementTree.fromstring(draw(report_of([True, False], model='<m> & "n"')))
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert '<m> & "n" on b' in texts
    assert {"1/2", "tests-failed"} <= set(texts)


# Comparisons


def test_two_points_on_five_hundred_tasks_are_noise() -> None:
    first = report_of([place < 200 for place in range(500)])
    second = report_of([20 <= place < 230 for place in range(500)])
    found = compare(first, second, names=("A", "B"))
    assert found.difference == pytest.approx(0.02)
    assert (len(found.only_first), len(found.only_second)) == (20, 30)
    assert found.p == pytest.approx(0.2026, abs=1e-4)
    assert found.interval.low < 0 < found.interval.high
    assert found.conclusion.startswith("No difference is shown")
    assert "resolved only by A: 20: t-0" in comparison_text(found)


def test_a_large_difference_is_concluded_for_the_better_one() -> None:
    first, second = report_of([True] * 60 + [False] * 40), report_of([True] * 40 + [False] * 60)
    found = compare(first, second, names=("A", "B"))
    assert found.p == pytest.approx(2**-19)
    assert found.conclusion.startswith("A resolves more of tasks like these 100 than B, by 20.0 points")
    assert found.test == "exact McNemar"


def test_a_comparison_is_over_common_tasks_and_says_what_differs() -> None:
    first, second = report_of([True, False, True]), report_of([True, True], start=1)
    second = second.model_copy(update={"grader": "other"})
    found = compare(first, second, names=("A", "B"))
    assert (found.tasks, found.first_mean, found.second_mean) == (2, 0.5, 1.0)
    assert any("Only the 2 common tasks" in note for note in found.notes)
    assert any("graders differ" in note for note in found.notes)
    with pytest.raises(UsageError, match="no task in common"):
        compare(first, report_of([True], start=9), names=("A", "B"))


def test_runs_without_a_report_cannot_be_compared(tmp_path: Path) -> None:
    done = agentdata("evaluate", "compare", tmp_path, tmp_path)
    done.explains("holds no report.json", status=2)


# Grading


def test_without_the_harness_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UsageError, match=r"not installed: pip install 'agentdata\[swebench\]', or .* --grader ours"):
        require_harness()


def test_nothing_but_empty_patches_needs_no_harness_to_run(tmp_path: Path) -> None:
    (verdict,) = grade_officially(tmp_path, tmp_path / "none.jsonl", [Prediction(instance_id="a", model_patch="")])
    assert (verdict.resolved, verdict.reason) == (False, "empty-patch")


def test_without_an_engine_the_remedy_is_said(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [make_toy(tmp_path / "toy").triple])
    environment = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    done = agentdata("evaluate", "rows.jsonl", "-p", "gold", "-o", "run", cwd=tmp_path, environment=environment)
    done.explains("No Docker engine answers", "DOCKER_HOST", status=1)


@pytest.fixture
def rows(engine: Engine, base: str, tmp_path: Path) -> Path:
    """Two rows of the toy, one of which has no image."""
    image = gradetoy.image(engine, base)
    with engine.open(image) as sandbox:
        commit = sandbox.run("git rev-parse HEAD", workdir="/testbed").text.strip()
    gold = GoldPatch(id="toy__calc-1", patch=gradetoy.diff(dict(gradetoy.SOLVED)))
    task, tests = gradetoy.task(image).model_copy(update={"base_commit": commit}), gradetoy.task_tests()
    other = {"id": "toy__calc-2"}
    missing = task.model_copy(update={**other, "image": "agentdata-test/none:1"})
    path = tmp_path / "rows.jsonl"
    write_rows(path, [(task, tests, gold), (missing, tests.model_copy(update=other), gold.model_copy(update=other))])
    return path


@pytest.mark.docker
def test_both_graders_resolve_the_solution_and_a_missing_image_is_left_out(rows: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ("evaluate", rows, "-p", "gold", "-p", "empty", "--grader", "both", "--no-pull", "-o", run)
    done = agentdata(*command, seconds=120)
    done.succeeds()
    assert "Left out toy__calc-2: no-image: There is no image agentdata-test/none:1" in done.err
    report = read_report(run)
    assert [(run.resolved, run.empty) for run in report.runs] == [(1, 0), (0, 1)]
    assert report.grader.startswith("swebench 5")
    assert report.disagreements == ()
    assert json.loads((run / "run-1/preds.json").read_text())["toy__calc-1"]["model_name_or_path"] == "gold"
    kept = (run / "run-1/official/harness.log").stat()
    agentdata(*command).succeeds()
    assert (run / "run-1/official/harness.log").stat() == kept, "the harness ran again"
    agentdata(*command[:-1], run, "--limit", "1").explains("was begun with another configuration", status=2)
