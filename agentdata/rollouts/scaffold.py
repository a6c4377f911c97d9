"""What a policy lives in: prompts, tools and how they are called, as a versioned record that recipes hold."""

from typing import Literal

from pydantic import Field

from agentdata.records import CallForm, Record

Tools = Literal["editor", "bash-only"]
Form = CallForm


class Scaffold(Record):
    """Tools, prompts and parser. Its version changes whenever a policy would see something else."""

    name: str
    version: str
    toolbox: Tools
    """`editor`: bash, str_replace_editor, submit. `bash-only`: one shell command for each turn."""
    form: Form
    """How calls are written: the server's tool calls, `<function=...>` in the text, or one fenced block."""
    system_prompt: str
    """May have the field {tools}, for forms whose server does not show them."""
    task_prompt: str
    """With the fields {problem_statement}, {workdir} and {hints}."""
    tools: str = ""
    """JSON text of the tools' schemas; also given for text forms, where the prompt describes them."""
    most_observation_characters: int = Field(default=30_000, gt=0)
    """Longer observations keep head and tail, and say how much was cut."""
    observation_prompt: str = "{observation}"
    """What an observation looks like, with the field {observation}; a mark where observations are turns of the user."""
    format_error_prompt: str
    """What a turn gets that cannot be read, with the field {error}."""
    command_seconds: float = Field(default=120, gt=0)
    """What one command may take."""


class Budget(Record):
    """When an attempt ends that does not end by itself. Zero lifts a limit."""

    steps: int = Field(default=100, ge=0)
    context_tokens: int = Field(default=131_072, ge=0)
    """Prompt and reply together, as the server counts them."""
    overflow: Literal["end", "elide-observations"] = "end"
    """What happens when the context is full: the attempt ends, or the oldest observations are left out of what the
    policy sees, which is recorded with each step."""
    tokens: int = Field(default=0, ge=0)
    """Sampled in all."""
    seconds: float = Field(default=3600, ge=0)
    repeats: int = Field(default=4, ge=0)
    """Identical turns one after the other."""
    format_errors: int = Field(default=4, ge=0)
    """Turns one after the other that cannot be read."""
