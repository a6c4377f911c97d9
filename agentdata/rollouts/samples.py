"""A trajectory as a sample: `messages` as it was seen, `xml` as one text, and `tokens` as its server counted them.

`xml` is the rendering of the reference recipe: reasoning in `<think>`, calls as `<function=bash><parameter=command>`,
results of tools as turns of the user. `tokens` needs no tokenizer and no chat template: it is what was sampled.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from agentdata import __version__
from agentdata.records import (
    ChatSample,
    FunctionCall,
    Message,
    Rejected,
    Sample,
    Segment,
    Step,
    TextSample,
    TokenSample,
    Trajectory,
)
from agentdata.rollouts.prompts import conversation
from agentdata.rollouts.scaffold import Scaffold
from agentdata.rollouts.view import EnvironmentalRendering, ErrorMask, ViewRecipe
from agentdata.tokens import CountTokens, count_message

NOT_RUN = (124, 126, 127)
"""Exit statuses of a shell for a command that was stopped, cannot be executed, or does not exist."""


def seen(
    trajectory: Trajectory, prompt: Sequence[Message] | None = None, steps: Sequence[Step] | None = None
) -> list[Message]:
    """The conversation as the policy saw it, or that of a part of its turns."""
    scaffold = Scaffold(
        name=trajectory.scaffold,
        version=trajectory.scaffold_version,
        toolbox="editor",
        form=trajectory.form,
        system_prompt="",
        task_prompt="",
        format_error_prompt="",
    )
    prompt = trajectory.prompt if prompt is None else prompt
    return conversation(scaffold, tuple(prompt), tuple(trajectory.steps if steps is None else steps))


class Renderer:
    """Renders trajectories by one view. `count_tokens` gives the tokens of a text, `token_counter` its name."""

    def __init__(self, view: ViewRecipe, count_tokens: CountTokens, token_counter: str) -> None:
        self.view = view
        self.count_tokens = count_tokens
        self.token_counter = token_counter

    def render(self, rendering: EnvironmentalRendering, trajectory: Trajectory) -> Sample | Rejected:
        """The sample, or why there is none: observations-elided, no-token-ids, tokens-drift, too-long."""
        if any(step.elided for step in trajectory.steps):
            # No one conversation holds what all of its steps saw.
            detail = "observations were left out of what later steps saw"
            return _rejected(trajectory, rendering, "observations-elided", detail)
        make: Callable[[Trajectory], Sample | Rejected] = {
            "messages": self._chat,
            "xml": self._text,
            "tokens": self._tokens,
        }[rendering]
        sample = make(trajectory)
        if isinstance(sample, Sample) and sample.tokens > self.view.most_tokens:
            return _rejected(trajectory, rendering, "too-long", f"{sample.tokens} tokens")
        return sample

    def messages(self, trajectory: Trajectory) -> list[Message]:
        """What was seen, each turn marked by whether it is trained on."""
        masked = masked_steps(trajectory, self.view.mask_errors)
        trained = []
        number = -len(assistants(trajectory.prompt))
        for message in seen(trajectory):
            train = self.view.mask == "all"
            if message.role == "assistant":
                train = number not in masked if number >= 0 else train
                number += 1
            trained.append(message.model_copy(update={"train": train}))
        return trained

    def _common(self, rendering: EnvironmentalRendering, trajectory: Trajectory) -> dict[str, Any]:
        view = f"{self.view.mask} {self.view.mask_errors}"
        return {
            "id": hashlib.sha256(f"{trajectory.id} {trajectory.generator} {rendering} {view}".encode()).hexdigest()[
                :16
            ],
            "kind": "environmental",
            "rendering": rendering,
            "repo": trajectory.repo,
            "snapshot": trajectory.base_commit,
            "licence": trajectory.licence,
            "tier": "L1" if trajectory.verdict.resolved else "L0",
            "policy": trajectory.model,
            "token_counter": self.token_counter,
            "generator": f"agentdata {__version__}; {trajectory.model}",
            "task": trajectory.task,
            "attempt": trajectory.attempt,
            "scaffold": f"{trajectory.scaffold} {trajectory.scaffold_version}".strip(),
            "stop": trajectory.stop,
            "resolved": trajectory.verdict.resolved,
            "verdict": trajectory.verdict.reason,
        }

    def _chat(self, trajectory: Trajectory) -> Sample:
        messages = self.messages(trajectory)
        counts = [count_message(message, self.count_tokens) for message in messages]
        return ChatSample(
            **self._common("messages", trajectory),
            tokens=sum(counts),
            trained_tokens=sum(count for count, message in zip(counts, messages, strict=True) if message.train),
            messages=tuple(messages),
            tools=trajectory.tools,
        )

    def _text(self, trajectory: Trajectory) -> Sample:
        messages = self.messages(trajectory)
        segments: list[Segment] = []
        texts: list[str] = []
        tokens = trained = place = 0
        for kind, text, train in self._pieces(messages):
            count = self.count_tokens(text)
            tokens += count
            trained += count if train else 0
            segments.append(Segment(kind=kind, start=place, end=place + len(text), train=train))
            texts.append(text)
            place += len(text)
        return TextSample(
            **self._common("xml", trajectory),
            tokens=tokens,
            trained_tokens=trained,
            text="".join(texts),
            segments=tuple(segments),
        )

    def _pieces(self, messages: Sequence[Message]) -> Iterator[tuple[str, str, bool]]:
        """Marks, words and ends of the turns. An end is trained with its turn: it is where the policy stops."""
        for message in messages:
            role = "user" if message.role == "tool" else message.role
            yield "context", self.view.turn_start.replace("{role}", role), self.view.mask == "all"
            yield message.role, xml_words(message) + self.view.turn_end, message.train
            yield "context", self.view.turn_gap, self.view.mask == "all"

    def _tokens(self, trajectory: Trajectory) -> Sample | Rejected:
        joined = join_tokens(trajectory, masked_steps(trajectory, self.view.mask_errors))
        if isinstance(joined, Rejected):
            return joined
        ids, mask = joined
        common = {**self._common("tokens", trajectory), "token_counter": f"server of {trajectory.model}"}
        return TokenSample(**common, tokens=len(ids), trained_tokens=sum(mask), input_ids=ids, mask=mask)


def assistants(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message.role == "assistant"]


def masked_steps(trajectory: Trajectory, errors: ErrorMask) -> set[int]:
    """Numbers of the steps that are not trained on."""
    return {number for number, step in enumerate(trajectory.steps) if errors != "none" and _failed(step, errors)}


def _failed(step: Step, errors: ErrorMask) -> bool:
    """Whether an observation of the step is an error.

    A failing command may be just what was wanted, as when a test shows a bug: `refused` counts only turns that could not
    be read, editors that refused, and commands that did not run or were stopped.
    """
    names = {call.id: call.function.name for call in step.tool_calls}
    for observation in step.observations:
        if not observation.tool_call_id:
            return True
        shell = names.get(observation.tool_call_id) == "bash"
        if observation.status and (errors == "all" or not shell or observation.status in NOT_RUN):
            return True
    return False


def join_tokens(trajectory: Trajectory, masked: set[int]) -> tuple[tuple[int, ...], tuple[bool, ...]] | Rejected:
    """The tokens of all steps and which were sampled, where each prompt continues what came before it."""
    ids: list[int] = []
    mask: list[bool] = []
    for number, step in enumerate(trajectory.steps):
        given = step.prompt_token_ids
        if not step.token_ids or not (given or step.continues):
            return _rejected(trajectory, "tokens", "no-token-ids", f"step {number + 1} has none")
        if not step.continues:
            if list(given[: len(ids)]) != ids:
                place = next(
                    (at for at, (new, old) in enumerate(zip(given, ids, strict=False)) if new != old), len(given)
                )
                detail = f"the prompt of step {number + 1} leaves what came before at token {place + 1} of {len(ids)}"
                return _rejected(trajectory, "tokens", "tokens-drift", detail)
            given = given[len(ids) :]
        ids += [*given, *step.token_ids]
        mask += [False] * len(given) + [number not in masked] * len(step.token_ids)
    if not ids:
        return _rejected(trajectory, "tokens", "no-token-ids", "there is no step")
    return tuple(ids), tuple(mask)


def xml_words(message: Message) -> str:
    """A turn as text: thoughts, words, then calls as tags."""
    thoughts = f"<think>\n{message.reasoning_content}\n</think>\n\n" if message.reasoning_content else ""
    calls = "\n".join(xml_call(call.function) for call in message.tool_calls)
    return thoughts + message.content + ("\n\n" if message.content and calls else "") + calls


def xml_call(function: FunctionCall) -> str:
    """A call as tags. Arguments that are no JSON object stand as they are."""
    try:
        arguments = json.loads(function.arguments)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return f"<function={function.name}>\n{function.arguments}\n</function>"
    inner = "".join(f"<parameter={name}>{_value(value)}</parameter>\n" for name, value in arguments.items())
    return f"<function={function.name}>\n{inner}</function>"


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # A text of several lines stands on lines of its own, so that its first line keeps its indentation.
    return f"\n{text}\n" if "\n" in text else text


def _rejected(trajectory: Trajectory, stage: str, reason: str, detail: str) -> Rejected:
    return Rejected(id=trajectory.id, repo=trajectory.repo, stage=stage, reason=reason, detail=detail)
