"""The parts of a training: what is trained when, at which rate, on which tokens, and whether documents leak."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

import recipes
from agentdata.errors import RunError, UsageError
from agentdata.midtrain.packed import MASKED, PackedRows
from agentdata.training import isolation
from agentdata.training.batches import Batches, labels_of, steps_of
from agentdata.training.checkpoints import restore, state_of
from agentdata.training.estimates import check_memory, memory, shape_of, turns_of, work
from agentdata.training.loop import make_optimiser
from agentdata.training.metrics import MOST_NOT_FINITE, SETTLED, Watch
from agentdata.training.order import Order
from agentdata.training.parallel import World, joined, place
from agentdata.training.prepare import packed_folder, prepare
from agentdata.training.recipe import Optimiser, Schedule, TrainingRecipe
from agentdata.training.schedule import rate_share
from agentdata.training.scoring import Scorer
from tests.trainings import LENGTH, make_data, recipe_of, values_of, write_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def recipe(data: Path) -> TrainingRecipe:
    return recipe_of(data, values_of(data))


@pytest.fixture(scope="module")
def prepared(data: Path, recipe: TrainingRecipe) -> Path:
    prepare(data / "training", recipe, workers=1)
    return data / "training"


def tiny(attention: str = "sdpa", **more: object) -> torch.nn.Module:
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(vocab_size=97, num_key_value_heads=2, use_cache=False, **sizes, **more)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention)


def rates(steps: int, **schedule: object) -> list[float]:
    return [rate_share(Schedule.model_validate(schedule), step, steps) for step in range(steps)]


def test_each_epoch_has_every_row_once_in_an_order_of_its_own() -> None:
    order = Order(50, seed=1, name="first")
    epochs = [[order.at(50 * epoch + place) for place in range(50)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    # A place says its row by itself, whatever was asked for before.
    assert [Order(50, seed=1, name="first").at(place) for place in (149, 3, 70)] == [
        epochs[2][49],
        epochs[0][3],
        epochs[1][20],
    ]
    others = [
        [Order(50, seed=seed, name=name).at(place) for place in range(50)] for seed, name in ((2, "first"), (1, "b"))
    ]
    assert epochs[0] not in others


def test_rates_rise_hold_and_fall() -> None:
    cosine = rates(100, kind="cosine", warmup=0.1, minimum=0.1)
    assert cosine[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert cosine[10] == 1.0
    assert cosine[-1] == pytest.approx(0.1)
    assert cosine[10 + 89 // 2] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 44 / 89)) / 2)
    linear = rates(11, kind="linear", warmup=0.0, minimum=0.0)
    assert linear == pytest.approx([1 - step / 10 for step in range(11)])
    assert rates(7, kind="constant", warmup=0.0) == [1.0] * 7
    stable = rates(100, kind="warmup-stable-decay", warmup=0.05, decay=0.2, minimum=0.0)
    assert stable[5:80] == [1.0] * 75
    assert stable[80:] == pytest.approx([1 - step / 20 for step in range(1, 21)])
    root = rates(100, kind="warmup-stable-decay", warmup=0.0, decay=0.5, decay_shape="sqrt", minimum=0.0)
    assert root[50:] == pytest.approx([1 - math.sqrt(step / 50) for step in range(1, 51)])


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "warmup-stable-decay"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_rate_is_never_over_its_peak_nor_nothing(kind: str, steps: int) -> None:
    assert all(0 < rate <= 1 for rate in rates(steps, kind=kind, warmup=1.0))
    assert all(0 < rate <= 1 for rate in rates(steps, kind=kind))


def test_labels_are_the_next_tokens_of_the_same_document(prepared: Path, recipe: TrainingRecipe) -> None:
    rows = PackedRows(packed_folder(prepared, recipe.stages[1]))
    trained = 0
    for number in range(len(rows)):
        row = rows[number]
        for policy in ("all", "trained-only"):
            labels = labels_of(row, policy)  # type: ignore[arg-type]
            for at in range(LENGTH):
                inside = at + 1 < LENGTH and row.kinds[at + 1] > 0 and row.positions[at + 1] == row.positions[at] + 1
                wanted = inside and (policy == "all" or bool(row.train[at + 1]))
                assert labels[at] == (row.ids[at + 1] if wanted else MASKED)
        trained += int((labels_of(row, "trained-only") != MASKED).sum())
    assert trained == rows.manifest.ledger.trained


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_share_a_step_without_a_rest(prepared: Path, recipe: TrainingRecipe, size: int) -> None:
    stage = recipe.stages[0]
    rows = PackedRows(packed_folder(prepared, stage))
    device = torch.device("cpu")
    seen = []
    for rank in range(size):
        world = World(rank, size, rank, size, device)
        batch = Batches(rows, stage, world, seed=0, micro_rows=1).of_step(3)
        assert len(batch.micros) == -(-stage.batch_rows // size)
        seen += [bytes(micro.ids.numpy()) for micro in batch.micros if (micro.labels != MASKED).any()]
        assert batch.trained == Batches(rows, stage, place(), seed=0, micro_rows=4).of_step(3).trained
    order = Order(len(rows), 0, stage.name)
    taken = [rows[order.at(3 * stage.batch_rows + at)] for at in range(stage.batch_rows)]
    assert sorted(seen) == sorted(bytes(row.ids.astype(np.int64)) for row in taken)


def test_reading_ahead_changes_nothing(prepared: Path, recipe: TrainingRecipe) -> None:
    stage = recipe.stages[0]
    batches = Batches(PackedRows(packed_folder(prepared, stage)), stage, place(), seed=0, micro_rows=3)
    for step, batch in enumerate(batches.from_step(2, 6), 2):
        alone = batches.of_step(step)
        assert [len(micro.ids) for micro in batch.micros] == [3, 1]
        assert all(torch.equal(one.labels, other.labels) for one, other in zip(batch.micros, alone.micros, strict=True))


def test_epochs_give_the_steps(recipe: TrainingRecipe) -> None:
    half = recipe.stages[0].model_copy(update={"steps": 0, "epochs": 0.5})
    assert [steps_of(half, rows) for rows in (1, 80, 83)] == [1, 10, 10]
    assert steps_of(recipe.stages[0], 10_000) == 6


def test_documents_of_a_row_do_not_see_each_other() -> None:
    scorer = Scorer(tiny())
    assert isolation.check(scorer, place(), vocabulary=97, half=False) < 1e-5
    assert scorer.own_head


def test_a_model_whose_documents_see_each_other_is_refused() -> None:
    """The second document's tokens look at the first's where a model takes no notice of positions."""

    class Leaky(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = tiny()
            self.config = self.model.config

        def get_decoder(self) -> torch.nn.Module:
            inner = self.model.get_decoder()

            class Decoder(torch.nn.Module):
                def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, use_cache: bool) -> object:
                    return inner(input_ids=input_ids, use_cache=False)

            return Decoder()

        def get_output_embeddings(self) -> torch.nn.Module:
            return self.model.get_output_embeddings()

        def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, use_cache: bool) -> object:
            return self.model(input_ids=input_ids, use_cache=False)

    with pytest.raises(RunError, match="see each other"):
        isolation.check(Scorer(Leaky()), place(), vocabulary=97, half=False)


def test_a_head_that_does_more_is_left_to_the_model() -> None:
    """A model may scale or cap its logits: then its own forward pass is used, for all tokens."""
    from transformers import CohereConfig

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CohereConfig(vocab_size=97, use_cache=False, logit_scale=0.25, **sizes)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    scorer = Scorer(model)
    isolation.check(scorer, place(), vocabulary=97, half=False)
    assert not scorer.own_head
    ids = torch.randint(0, 97, (1, 8))
    labels = ids.roll(-1, 1)
    logits = model(input_ids=ids).logits[0]
    assert torch.allclose(
        scorer(ids, torch.arange(8)[None], labels), F.cross_entropy(logits, labels[0], reduction="sum")
    )


def test_losses_and_gradients_are_those_of_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = Scorer(tiny())
    ids = torch.randint(0, 97, (2, 40))
    labels = torch.where(torch.rand(2, 40) < 0.5, ids.roll(-1, 1), torch.full((2, 40), MASKED))
    positions = torch.arange(40)[None].repeat(2, 1)
    plain = F.cross_entropy(
        scorer.model(input_ids=ids).logits.flatten(0, 1), labels.flatten(), reduction="sum", ignore_index=MASKED
    )
    plain.backward()
    wanted = [one.grad.clone() for one in scorer.parameters() if one.grad is not None]
    for chunked in (1 << 27, 1):
        monkeypatch.setattr("agentdata.training.scoring.CHUNKED", chunked)
        scorer.zero_grad()
        found = scorer(ids, positions, labels)
        found.backward()
        assert torch.allclose(found, plain)
        gradients = [one.grad for one in scorer.parameters() if one.grad is not None]
        assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(gradients, wanted, strict=True))
    with torch.no_grad():
        assert torch.allclose(scorer(ids, positions, labels, each=True).sum(), plain)


def test_a_row_without_a_label_has_no_loss_but_gradients() -> None:
    scorer = Scorer(tiny())
    ids = torch.zeros((1, 8), dtype=torch.int64)
    loss = scorer(ids, torch.arange(8)[None], torch.full((1, 8), MASKED))
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(float(one.grad.abs().max()) == 0 for one in scorer.parameters() if one.grad is not None)


def test_work_is_six_operations_for_a_parameter_and_token() -> None:
    shape = shape_of(tiny(tie_word_embeddings=True))
    assert (
        shape.parameters == shape.multiplied == sum(one.numel() for one in tiny(tie_word_embeddings=True).parameters())
    )
    assert work(shape, 10, 0) == 60 * shape.parameters
    assert work(shape, 0, 5) == 12 * 2 * 32 * 5
    untied = shape_of(tiny(tie_word_embeddings=False))
    assert untied.multiplied == untied.parameters - 97 * 32


def test_too_little_memory_is_said_before_it_is_taken(recipe: TrainingRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = memory(shape_of(tiny()), recipe.stages[0], recipe, place(), half=False)
    check_memory(needed, recipe, recipe.stages[0], place())
    monkeypatch.setattr("agentdata.training.estimates.available", lambda _world: 1e4)
    with pytest.raises(
        RunError, match=r"'first' needs about .* and 10.0 kB are free: set activation_checkpointing, lower"
    ):
        check_memory(needed, recipe, recipe.stages[0], place())


def test_moments_go_on_with_the_numbers_of_their_new_stage(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    first = make_optimiser(model, Optimiser(rate=1e-3))
    model(torch.ones(1, 2)).sum().backward()
    first.step()
    first.zero_grad()
    second = make_optimiser(model, Optimiser(rate=1e-4, betas=(0.8, 0.9), epsilon=1e-6, weight_decay=0.0))
    with joined(place()):
        dcp.save(state_of(model, first), checkpoint_id=tmp_path / "checkpoint")
        restore(tmp_path / "checkpoint", model, second)
    assert [(one["lr"], one["betas"], one["eps"]) for one in second.param_groups] == [(1e-4, (0.8, 0.9), 1e-6)] * 2
    assert {one["weight_decay"] for one in second.param_groups} == {0.0}
    assert torch.equal(second.state[model.weight]["exp_avg"], first.state[model.weight]["exp_avg"])


def test_unusual_losses_are_noticed() -> None:
    watch = Watch()
    quiet = [3 + 0.01 * (step % 5) for step in range(2 * SETTLED)]
    assert not [told for loss in quiet for told in watch.look(loss, 1.0, 0.0)]
    assert [reason for reason, _ in watch.look(5.0, 1.0, 0.0)] == ["loss-spike"]
    assert [reason for reason, _ in watch.look(3.0, 1.0, 0.8)] == ["stalled-loader"]
    assert [reason for reason, _ in watch.look(math.nan, 1.0, 0.0)] == ["not-finite"]
    assert [reason for reason, _ in watch.look(3.0, 1.0, 0.0, norm=math.inf)] == ["not-finite"]
    assert not list(watch.look(3.0, 1.0, 0.0))
    for _ in range(MOST_NOT_FINITE - 1):
        assert list(watch.look(math.inf, 1.0, 0.0))
    with pytest.raises(RunError, match="not finite in 5 steps"):
        list(watch.look(math.inf, 1.0, 0.0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_tokens": LENGTH + 1}, "no multiple of row_length"),
        ({"sources": []}, "needs either sources or packed"),
        ({"name": "a/b"}, "letters, digits"),
        ({"after": "third"}, "comes after 'third'"),
        ({"name": "second"}, "two stages are called"),
        ({"epochs": 0, "steps": 0}, "neither epochs nor steps"),
        ({"optimiser": {"rate": -1}}, "greater than 0"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(
    data: Path, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    values = values_of(data)
    values["stages"][0] |= change
    with pytest.raises(UsageError, match=words):
        recipe_of(tmp_path, values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stages": None}, "stages is a list of mappings."),
        ({"stage": 3}, "stage is a mapping"),
        ({"stage": {"after": "x"}}, "fit: stage 'first' comes after 'x', which is no stage before it."),
        ({"stage": {"batch_tokens": 500}}, "fit: stages.0: batch_tokens 500 is no multiple of row_length 128."),
        ({"stage": {"setps": 5}}, r"fit: there is no key stages.0.setps \(got 5\)."),
    ],
)
def test_a_recipe_that_does_not_fit_is_told_in_short(
    data: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    values = values_of(data)
    inner = change.get("stage")
    values |= {"stage": values["stage"] | inner} if isinstance(inner, dict) else change
    with pytest.raises(UsageError, match=f"{words}$" if words.endswith(".") else words):
        recipe_of(tmp_path, values)


def test_what_the_stages_have_in_common_is_overridden_part_by_part(data: Path, tmp_path: Path) -> None:
    values = values_of(data)
    values["stages"][1]["optimiser"] = {"weight_decay": 0.0}
    first, second = recipe_of(tmp_path, values).stages
    assert (first.optimiser.rate, first.optimiser.weight_decay) == (1e-3, 0.1)
    assert (second.optimiser.rate, second.optimiser.weight_decay) == (1e-3, 0.0)
    assert first.mask == "all"
    assert all(earlier >= later for earlier, later in pairwise((first.row_length, second.row_length)))


def test_the_reference_and_its_small_twin_have_the_same_stages() -> None:
    """What the twin changes is size: model, rows, batch and rate, each in the same proportion for every stage."""
    large, small = recipes.load_training("davinci-dev"), recipes.load_training("davinci-dev-small")
    sizes = {"row_length", "batch_tokens", "optimiser"}
    assert [one.model_dump(exclude=sizes) for one in large.stages] == [
        one.model_dump(exclude=sizes) for one in small.stages
    ]
    assert [one.batch_rows for one in large.stages] == [1024, 1024, 128, 128]
    assert [one.batch_rows * 32 for one in small.stages] == [1024, 1024, 128, 128]
    for one, other in zip(large.stages, small.stages, strict=True):
        assert other.optimiser.rate == pytest.approx(10 * one.optimiser.rate)
    strong = large.stages[3]
    before = large.before(strong)
    assert before
    assert before.name == "software-engineering"
    assert [one.name for one in large.lineage(strong)] == ["general", "software-engineering", "strong"]


def test_overrides_reach_common_values_and_single_stages(data: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, values_of(data))
    given = [
        "stage.optimiser.rate=0.5",
        "stages.1.optimiser.rate=0.25",
        "stages.0.sources.0.name=x",
        "stages.1.epochs=3",
    ]
    first, second = recipes.load_training(str(path), given).stages
    assert (first.optimiser.rate, second.optimiser.rate) == (0.5, 0.25)
    assert (first.sources[0].name, second.epochs) == ("x", 3)
    for wrong in ("stages.2.steps=1", "stages.x.steps=1", "stages.0.stesp=1", "stages=1=2.x"):
        with pytest.raises(UsageError):
            recipes.load_training(str(path), [wrong])


def test_models_that_do_not_fit_beside_each_other_are_loaded_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = shape_of(tiny())
    worlds = [World(rank, 4, rank, 4, torch.device("cpu")) for rank in range(4)]
    for share, turns in ((100.0, 1), (7.9, 2), (2.1, 4), (0.1, 4)):
        monkeypatch.setattr(
            "agentdata.training.estimates.host_memory", lambda share=share: share * 4 * shape.parameters
        )
        assert turns_of(shape, worlds[0]) == turns
    waits: list[str] = []
    monkeypatch.setattr(World, "wait", lambda self: waits.append("wait"))
    for world, before in zip(worlds, (0, 1, 0, 1), strict=True):
        waits.clear()
        with world.in_turns(2):
            assert len(waits) == before
        assert len(waits) == 2
