"""One attempt: the policy speaks, the tools answer, until there is a reason to stop."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agentdata.journal import GENERATOR
from agentdata.records import Observation, Step, StopReason, Task, ToolCall, Trajectory, Verdict
from agentdata.rollouts.leaks import leaks_in
from agentdata.rollouts.parsing import FormatError, read_calls
from agentdata.rollouts.policy import ContextOverflow, Policy, Reply, Sampling, TurnRefused
from agentdata.rollouts.prompts import conversation, opening
from agentdata.rollouts.scaffold import Budget, Scaffold
from agentdata.rollouts.submission import Baseline
from agentdata.rollouts.toolbox import Toolbox
from sandboxes.errors import LimitExceeded
from sandboxes.protocol import Sandbox

NOT_GRADED = "not-graded"
ELIDED_SHARE = 4
"""A quarter of the observations that are still seen is left out each time the context is full."""


@dataclass(frozen=True)
class Setting:
    """What every attempt of a run has in common."""

    model: str
    scaffold: Scaffold
    budget: Budget
    sampling: Sampling
    open_sandbox: Callable[[str], Sandbox]
    """Image to a new sandbox."""
    heard: Callable[[Step], None] = lambda step: None
    """Told of each step as it ends, for whoever watches."""


class Stopped(Exception):  # noqa: N818
    """Why an attempt is over."""

    def __init__(self, reason: StopReason, detail: str = "") -> None:
        super().__init__(detail)
        self.reason = reason


def run_attempt(task: Task, number: int, seed: int, policy: Policy, setting: Setting) -> Trajectory:
    """Let a policy work on a task in a fresh sandbox; the trajectory is not graded.

    Raises SandboxError and PolicyGone for faults that are not the policy's: the attempt is then owed. A sandbox that the
    policy's own commands ruined ends the attempt as `sandbox-gone`.
    """
    began, created = time.monotonic(), datetime.now(UTC)
    attempt = _Attempt(task, seed, policy, setting)
    submission = ""
    with setting.open_sandbox(task.image) as sandbox:
        try:
            baseline = Baseline(sandbox)
            end = attempt.walk(Toolbox(sandbox, setting.scaffold))
            submission = baseline.diff()
        except LimitExceeded as error:
            end = Stopped("sandbox-gone", str(error))
    return Trajectory(
        id=f"{task.id}/{number}",
        task=task.id,
        repo=task.repo,
        base_commit=task.base_commit,
        licence=task.licence,
        attempt=number,
        seed=seed,
        model=setting.model,
        sampling=setting.sampling.model_dump_json(),
        scaffold=setting.scaffold.name,
        scaffold_version=setting.scaffold.version,
        form=setting.scaffold.form,
        tools=setting.scaffold.tools,
        prompt=attempt.prompt,
        steps=tuple(attempt.steps),
        stop=end.reason,
        detail=str(end),
        submission=submission,
        leaks=leaks_in(attempt.steps),
        verdict=Verdict(task=task.id, model=setting.model, resolved=False, reason=NOT_GRADED),
        seconds=time.monotonic() - began,
        created_at=created.isoformat(timespec="seconds"),
        generator=GENERATOR,
    )


class _Attempt:
    """A conversation on its way."""

    def __init__(self, task: Task, seed: int, policy: Policy, setting: Setting) -> None:
        self.prompt = opening(setting.scaffold, task)
        self.steps: list[Step] = []
        self.seed = seed
        self.policy = policy
        self.setting = setting
        self.elided = 0

    def walk(self, toolbox: Toolbox) -> Stopped:
        """Step by step, until there is a reason to stop."""
        began = time.monotonic()
        try:
            while True:
                require_budget(self.steps, self.setting.budget, time.monotonic() - began)
                self._act(self._ask(), toolbox)
        except Stopped as stopped:
            return stopped

    def _ask(self) -> Reply:
        """The policy's turn. Raises Stopped where the conversation does not fit any more."""
        scaffold, budget = self.setting.scaffold, self.setting.budget
        tools = scaffold.tools if scaffold.form == "tool-calls" else ""
        if self.steps and _used(self.steps[-1]) >= budget.context_tokens > 0:
            self._elide(f"{_used(self.steps[-1]):,} of {budget.context_tokens:,} tokens are used")
        while True:
            messages = conversation(scaffold, self.prompt, self.steps, self.elided)
            try:
                return self.policy.reply(messages, tools, self.setting.sampling, self.seed)
            except ContextOverflow as error:
                self._elide(str(error))
            except TurnRefused as error:
                raise Stopped("policy-gone", str(error)) from error

    def _elide(self, why: str) -> None:
        """Leave out older observations from now on; the newest stays. Raises Stopped where that is not wanted."""
        left = sum(len(step.observations) for step in self.steps) - self.elided - 1
        if self.setting.budget.overflow == "end" or left < 1:
            raise Stopped("context-limit", why)
        self.elided += max(1, left // ELIDED_SHARE)

    def _act(self, reply: Reply, toolbox: Toolbox) -> None:
        """Run the calls of a turn and keep the step, whatever ends it. Raises Stopped when the work is handed in."""
        calls: tuple[ToolCall, ...] = reply.tool_calls
        observations: list[Observation] = []
        try:
            calls = read_calls(self.setting.scaffold, reply, len(self.steps))
            for call in calls:
                if toolbox.is_submit(call):
                    raise Stopped("submitted")
                observations.append(toolbox.run(call))
                if toolbox.handed_in:
                    raise Stopped("submitted")
        except FormatError as error:
            observations.append(Observation(tool_call_id="", content=str(error), status=1))
        finally:
            given = {**dict(reply), "tool_calls": calls, "observations": tuple(observations), "elided": self.elided}
            self.steps.append(continued(Step(**given), self.steps))
            self.setting.heard(self.steps[-1])


def continued(step: Step, before: Sequence[Step]) -> Step:
    """The step with only those tokens of its prompt that the steps before do not hold already."""
    known = _tokens_of(before)
    if not known or step.prompt_token_ids[: len(known)] != known:
        return step
    return step.model_copy(update={"continues": True, "prompt_token_ids": step.prompt_token_ids[len(known) :]})


def _tokens_of(steps: Sequence[Step]) -> tuple[int, ...]:
    """Prompt and reply of the last step; empty where they are not known."""
    parts: list[tuple[int, ...]] = []
    for step in reversed(steps):
        parts += [step.token_ids, step.prompt_token_ids]
        if not step.continues:
            break
    return tuple(token for part in reversed(parts) for token in part)


def require_budget(steps: Sequence[Step], budget: Budget, seconds: float) -> None:
    """Raises Stopped when an attempt has used up what it was given."""
    sampled = sum(step.completion_tokens for step in steps)
    if budget.steps and len(steps) >= budget.steps:
        raise Stopped("step-limit", f"{len(steps)} steps")
    if budget.seconds and seconds >= budget.seconds:
        raise Stopped("time-limit", f"{seconds:.0f} seconds")
    if budget.tokens and sampled >= budget.tokens:
        raise Stopped("token-budget", f"{sampled:,} tokens were sampled")
    if budget.format_errors and _tail(steps, _unreadable) >= budget.format_errors:
        raise Stopped("format-errors", f"{budget.format_errors} turns one after the other could not be read")
    if budget.repeats and steps and _tail(steps, lambda step: _said(step) == _said(steps[-1])) >= budget.repeats:
        raise Stopped("repeated-actions", f"{budget.repeats} identical turns one after the other")


def _tail(steps: Sequence[Step], holds: Callable[[Step], bool]) -> int:
    """How many of the last steps something holds for."""
    return next((count for count, step in enumerate(reversed(steps)) if not holds(step)), len(steps))


def _unreadable(step: Step) -> bool:
    return any(not observation.tool_call_id for observation in step.observations)


def _said(step: Step) -> tuple[object, ...]:
    """What a step did, without the ids of its calls; the words of a step without calls."""
    return tuple(call.function for call in step.tool_calls) or (step.content,)


def _used(step: Step) -> int:
    return step.prompt_tokens + step.completion_tokens
