"""Whole trainings: what they leave, that stopping them changes nothing, and what they say of what cannot be."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentdata.errors import RunError, UsageError
from agentdata.midtrain.packed import PackedRows
from agentdata.training.checkpoints import folder_of
from agentdata.training.metrics import read_metrics
from agentdata.training.run import train
from tests.runs import agentdata
from tests.tiny_model import make_model
from tests.trainings import (
    ALONE,
    finish,
    held_out,
    kill_after,
    losses,
    make_data,
    ranks,
    recipe_of,
    start,
    values_of,
    write_recipe,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: Path) -> Path:
    """A training from begin to end in one process."""
    torch.set_num_threads(1)
    train(data / "whole", recipe_of(data, values_of(data)))
    return data / "whole"


def differ(one: dict[tuple[str, int], float], other: dict[tuple[str, int], float]) -> float:
    assert one.keys() == other.keys()
    return max(abs(one[key] - other[key]) for key in one)


def model_of(run: Path, stage: str) -> Path:
    return run / "stages" / stage / "model"


def test_every_step_and_held_out_loss_is_told(whole: Path) -> None:
    assert list(losses(whole)) == [("first", step) for step in range(1, 7)] + [
        ("second", step) for step in range(7, 11)
    ]
    for stage, measured in (("first", 3), ("second", 3)):
        found = held_out(whole, stage)
        assert len(found) == measured
        assert len(held_out(whole, stage, "edit")) == measured
    assert held_out(whole, "first")[-1] < held_out(whole, "first")[0] - 0.005
    last = [one for one in read_metrics(whole / "metrics.jsonl") if one["event"] == "train"][-1]
    assert last["tokens"] >= last["trained"] > 0
    assert last["memory"] > 1e8
    assert last["tokens_per_second"] == pytest.approx(last["tokens"] / last["seconds"], rel=0.01)


def test_losses_are_those_of_a_plain_loop(data: Path, whole: Path) -> None:
    """The first stage again, written down plainly: the model's own loss for each row, AdamW, no packing tricks."""
    from agentdata.training.batches import Batches
    from agentdata.training.parallel import place
    from agentdata.training.schedule import rate_share

    recipe = recipe_of(data, values_of(data))
    stage = recipe.stages[0]
    model = AutoModelForCausalLM.from_pretrained(recipe.model, dtype=torch.float32)
    matrices = [one for one in model.parameters() if one.ndim > 1]
    vectors = [one for one in model.parameters() if one.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    batches = Batches(PackedRows(whole / "stages/first/packed"), stage, place(), seed=0, micro_rows=1)
    for step in range(stage.steps):
        batch = batches.of_step(step)
        total = torch.zeros(())
        for micro in batch.micros:
            borders = [*np.flatnonzero(micro.positions[0].numpy() == 0), micro.ids.shape[1]]
            for first, last in pairwise(borders):
                # One document at a time: there is nothing that it could be isolated from.
                logits = model(input_ids=micro.ids[:, first:last]).logits[0]
                total = total + torch.nn.functional.cross_entropy(
                    logits, micro.labels[0, first:last], reduction="sum", ignore_index=-100
                )
        loss = total / batch.trained
        assert float(loss.detach()) == pytest.approx(losses(whole)["first", step + 1], abs=2e-5)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * rate_share(stage.schedule, step, stage.steps)
        optimiser.step()
        optimiser.zero_grad()


def test_a_model_loads_with_its_tokenizer_template_and_card(data: Path, whole: Path) -> None:
    folder = model_of(whole, "second")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = AutoTokenizer.from_pretrained(data / "model")
    told = [{"role": "user", "content": "list the files"}]
    assert tokenizer.apply_chat_template(told, tokenize=False) == given.apply_chat_template(told, tokenize=False)
    assert model.generation_config.eos_token_id is not None
    begun = AutoModelForCausalLM.from_pretrained(data / "model").state_dict()
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, begun[name])]
    assert len(moved) == len(begun)
    card = (folder / "README.md").read_text()
    ledger = PackedRows(whole / "stages/second/packed").manifest.ledger
    assert f"{ledger.tokens:,} packed tokens ({ledger.trained:,} to be trained)" in card
    steps = [
        one for one in read_metrics(whole / "metrics.jsonl") if one["event"] == "train" and one["stage"] == "second"
    ]
    read, trained = (sum(one[key] for one in steps) for key in ("tokens", "trained"))
    assert f"It read {read:,} tokens and was trained on {trained:,} of them in 4 steps" in card
    assert f"{held_out(whole, 'second')[-1]:.4f}" in card


def test_the_same_command_again_does_nothing(data: Path, whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.suffix and path.is_file()}
    train(whole, recipe_of(data, values_of(data)))
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("steps", [3, 8])
def test_a_killed_training_goes_on_with_the_same_losses(data: Path, whole: Path, tmp_path: Path, steps: int) -> None:
    path = write_recipe(tmp_path, values_of(data))
    kill_after(start(ALONE, path, tmp_path / "run"), tmp_path / "run", steps)
    assert len(losses(tmp_path / "run")) < 10
    status, said = finish(start(ALONE, path, tmp_path / "run"))
    assert status == 0, said
    assert differ(losses(tmp_path / "run"), losses(whole)) < 5e-7
    for stage in ("first", "second"):
        assert held_out(tmp_path / "run", stage) == pytest.approx(held_out(whole, stage), abs=5e-7)


def test_two_processes_train_as_one_does_and_one_goes_on_for_two(data: Path, whole: Path, tmp_path: Path) -> None:
    path, run = write_recipe(tmp_path, values_of(data)), tmp_path / "run"
    kill_after(start(ranks(2), path, run), run, 8)
    by_two = losses(run)
    assert max(abs(loss - losses(whole)[key]) for key, loss in by_two.items()) < 5e-6
    status, said = finish(start(ALONE, path, run))
    assert status == 0, said
    assert differ(losses(run), losses(whole)) < 5e-6
    one, other = (AutoModelForCausalLM.from_pretrained(model_of(each, "second")) for each in (run, whole))
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(torch.allclose(mine, its, atol=1e-4) for mine, its in pairs)


def test_a_process_that_dies_is_missed_in_one_sentence(data: Path, tmp_path: Path) -> None:
    values = values_of(data)
    values["stages"][0]["steps"] = 5000
    run = tmp_path / "run"
    training = start(ranks(2), write_recipe(tmp_path, values), run)
    deadline = time.monotonic() + 240
    while not losses(run) and time.monotonic() < deadline:
        time.sleep(0.05)
    children = [int(line) for line in Path(f"/proc/{training.pid}/task/{training.pid}/children").read_text().split()]
    os.kill(children[-1], signal.SIGKILL)
    status, said = finish(training)
    assert status != 0
    assert "Another process of the training is gone" in said
    assert "agentdata/training" not in said, "a traceback of ours"


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora"])
def test_an_adapter_is_trained_and_merged(data: Path, tmp_path: Path, kind: str) -> None:
    values = values_of(data) | {"adapter": {"kind": kind, "rank": 4}}
    values["stages"] = values["stages"][:1]
    values["stages"][0] |= {"optimiser": {"rate": 0.1}, "steps": 6}
    train(tmp_path / "run", recipe_of(tmp_path, values))
    found = held_out(tmp_path / "run", "first")
    # A random model has little to gain from additions alone: that they count is what can be asked.
    assert abs(found[-1] - found[0]) > 5e-4
    merged = AutoModelForCausalLM.from_pretrained(model_of(tmp_path / "run", "first"))
    begun = AutoModelForCausalLM.from_pretrained(data / "model").state_dict()
    moved = {name for name, value in merged.state_dict().items() if not torch.equal(value, begun[name])}
    assert moved == {name for name in begun if "_proj.weight" in name}
    told = json.loads((model_of(tmp_path / "run", "first") / "adapter/adapter_config.json").read_text())
    assert (told["r"], told["use_dora"], told["use_rslora"]) == (4, kind == "dora", kind == "rslora")
    # What was merged says what was measured last.
    values |= {"model": str(model_of(tmp_path / "run", "first")), "adapter": None}
    values["stages"][0] |= {"steps": 1}
    train(tmp_path / "again", recipe_of(tmp_path, values))
    assert held_out(tmp_path / "again", "first")[0] == pytest.approx(found[-1], abs=1e-5)


def test_a_decay_branches_off_with_its_moments(data: Path, tmp_path: Path) -> None:
    """A stable stage and a decay from it give what one warmup-stable-decay gives."""
    values = values_of(data)
    source = values["stages"][0]["sources"]
    stable = {"name": "stable", "sources": source, "steps": 4, "schedule": {"kind": "constant", "warmup": 0.5}}
    decay = {
        "name": "decay",
        "after": "stable",
        "keep_optimiser": True,
        "sources": source,
        "steps": 4,
        "schedule": {"kind": "warmup-stable-decay", "warmup": 0.0, "decay": 1.0, "minimum": 0.0},
    }
    other = decay | {"name": "forgets", "keep_optimiser": False}
    values["stages"] = [stable, decay, other]
    train(tmp_path / "run", recipe_of(tmp_path, values))
    firsts = {stage: held_out(tmp_path / "run", stage)[0] for stage in ("decay", "forgets")}
    assert firsts["decay"] == firsts["forgets"] == held_out(tmp_path / "run", "stable")[-1]
    rates = [one["rate"] for one in read_metrics(tmp_path / "run/metrics.jsonl") if one["event"] == "train"]
    falling = (7.5e-4, 5e-4, 2.5e-4, 0)
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 1e-3, *falling, *falling])
    assert held_out(tmp_path / "run", "decay")[-1] != held_out(tmp_path / "run", "forgets")[-1]


def test_less_memory_gives_the_same_losses(data: Path, whole: Path, tmp_path: Path) -> None:
    values = values_of(data) | {"activation_checkpointing": True, "micro_rows": 2}
    values["stages"] = values["stages"][:1]
    train(tmp_path / "run", recipe_of(tmp_path, values))
    found = losses(tmp_path / "run")
    assert all(loss == pytest.approx(losses(whole)[key], abs=5e-6) for key, loss in found.items())


def test_bf16_is_near(data: Path, whole: Path, tmp_path: Path) -> None:
    values = values_of(data) | {"precision": "bf16", "log": ["tensorboard"]}
    values["stages"] = values["stages"][:1]
    train(tmp_path / "run", recipe_of(tmp_path, values))
    found = losses(tmp_path / "run")
    assert 0 < max(abs(loss - losses(whole)[key]) for key, loss in found.items()) < 0.05
    assert list((tmp_path / "run/tensorboard").glob("events.out.tfevents.*"))


def corrupt(data: Path, run: Path, values: dict[str, Any]) -> None:
    path = next((run / "stages/first/packed/rows").glob("*.ids*"), None) or next(
        (run / "stages/first/packed/rows").iterdir()
    )
    with open(path, "r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))


def other_tokenizer(data: Path, run: Path, values: dict[str, Any]) -> None:
    make_model(data / "other", vocabulary=400, width=32, layers=2)
    values["model"] = str(data / "other")
    for stage in values["stages"]:
        stage |= {"packed": str(run / "stages" / stage["name"] / "packed"), "sources": [], "held_out": []}


def other_length(data: Path, run: Path, values: dict[str, Any]) -> None:
    values["stages"] = [
        values["stages"][0] | {"packed": str(run / "stages/first/packed"), "sources": [], "row_length": 64}
    ]


def no_model(data: Path, run: Path, values: dict[str, Any]) -> None:
    shutil.copytree(data / "model", run.parent / "broken")
    (run.parent / "broken/model.safetensors").write_bytes(b"nothing")
    values["model"] = str(run.parent / "broken")


def short_context(data: Path, run: Path, values: dict[str, Any]) -> None:
    shutil.copytree(data / "model", run.parent / "short")
    config = json.loads((run.parent / "short/config.json").read_text()) | {"max_position_embeddings": 64}
    (run.parent / "short/config.json").write_text(json.dumps(config))
    values["model"] = str(run.parent / "short")


def nothing_trained(data: Path, run: Path, values: dict[str, Any]) -> None:
    said = [{"role": "user", "content": "Do it, please, and soon.", "train": False}]
    (run.parent / "asked.jsonl").write_text((json.dumps({"messages": said}) + "\n") * 40)
    values["stages"] = [values["stages"][1] | {"sources": [{"path": str(run.parent / "asked.jsonl")}]}]


def other_recipe(data: Path, run: Path, values: dict[str, Any]) -> None:
    values["seed"] = 9


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (corrupt, RunError, "is corrupt: its digest is not the manifest's"),
        (other_tokenizer, UsageError, "with another tokenizer than that of"),
        (other_length, UsageError, "have 128 tokens and stage 'first' asks for 64"),
        (no_model, UsageError, "broken' cannot be loaded"),
        (short_context, UsageError, "have 128 tokens and the model .* has positions for 64"),
        (nothing_trained, UsageError, "'second' would train no token"),
        (other_recipe, UsageError, "seed"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(
    data: Path,
    whole: Path,
    tmp_path: Path,
    spoil: Callable[[Path, Path, dict[str, Any]], None],
    error: type[Exception],
    words: str,
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(model_of(run, "second"))
    values = values_of(data)
    spoil(data, run, values)
    target = run if spoil in (corrupt, other_recipe) else tmp_path / "fresh"
    with pytest.raises(error, match=words) as said:
        train(target, recipe_of(tmp_path, values))
    assert "\n" not in str(said.value)
    assert losses(run) == losses(whole)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "/not/there"},
        {"chat_template": "/not/there"},
        {"adapter": {"kind": "lora", "targets": ["none"]}},
        {"stages": [{"name": "first", "sources": [{"path": "/not/there"}], "steps": 1}]},
    ],
)
def test_what_is_misspelt_begins_no_run(data: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        train(tmp_path / "run", recipe_of(tmp_path, values_of(data) | change))
    assert not (tmp_path / "run/config.json").exists()


def test_losses_that_are_not_finite_end_a_training(data: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(data / "model", tmp_path / "model")
    weights = load_file(tmp_path / "model/model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    values = values_of(data) | {"model": str(tmp_path / "model")}
    with pytest.raises(RunError, match=r"do not depend|not finite"):
        train(tmp_path / "run", recipe_of(tmp_path, values))


def test_a_full_disk_is_said_and_the_checkpoint_before_is_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentdata.training import checkpoints

    real = shutil.disk_usage
    run = tmp_path / "run"
    values = values_of(data)

    def full(path: Path) -> Any:
        found = real(path)
        return (
            found if not list(folder_of(run, "first").glob("step-*")) else type(found)(found.total, found.total, 1000)
        )

    monkeypatch.setattr(checkpoints.shutil, "disk_usage", full)
    with pytest.raises(RunError, match=r"A checkpoint takes .* kB and .* has 1.0 kB free: free some space"):
        train(run, recipe_of(tmp_path, values))
    assert checkpoints.newest(folder_of(run, "first"))
    monkeypatch.undo()
    train(run, recipe_of(tmp_path, values))
    assert len(losses(run)) == 10


@pytest.mark.parametrize("kept", [0, 1])
def test_a_stage_does_not_begin_from_less_than_the_one_before(
    data: Path, whole: Path, tmp_path: Path, kept: int
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(model_of(run, "second"))
    for checkpoint in [*sorted(folder_of(run, "first").iterdir())[kept:], folder_of(run, "second")]:
        shutil.rmtree(checkpoint)
    with pytest.raises(RunError, match="after step 6 of stage 'first', which is gone"):
        train(run, recipe_of(tmp_path, values_of(data)))
    shutil.rmtree(model_of(run, "first"))
    train(run, recipe_of(tmp_path, values_of(data)))
    assert losses(run) == losses(whole)


def test_a_damaged_checkpoint_is_told_and_gone_around(data: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(model_of(run, "second"))
    last = sorted(folder_of(run, "second").iterdir())[-1]
    for path in [last / "state.json", *last.glob("*.distcp")]:
        path.write_bytes(b"")
    with pytest.raises(RunError, match=r"cannot be read: \w.*. Remove it"):
        train(run, recipe_of(tmp_path, values_of(data)))
    shutil.rmtree(last)
    train(run, recipe_of(tmp_path, values_of(data)))
    assert losses(run) == losses(whole)


def interrupt(*_given: object) -> None:
    raise KeyboardInterrupt


def test_a_checkpoint_of_another_model_is_refused(data: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    values = values_of(data) | {"adapter": {"kind": "lora"}}
    values["stages"] = [one | {"held_out": []} for one in values["stages"]]
    recipe = recipe_of(tmp_path, values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agentdata.training.run._train_one", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(run, recipe)
    shutil.copytree(folder_of(whole, "first"), folder_of(run, "first"))
    with pytest.raises(UsageError, match="is of another model or adapter"):
        train(run, recipe)


def test_the_command_says_what_comes_next_and_what_is_missing(data: Path, whole: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, values_of(data))
    agentdata("midtrain", path, "model=", "-o", tmp_path / "run").explains("model", status=2)
    agentdata("midtrain", "nothing", "-o", tmp_path / "run").explains("davinci-dev", status=2)
    status, said = finish(start(ALONE, path, whole))
    assert status == 0
    assert f"agentdata serve {model_of(whole, 'second')}" in said
