"""What a harvest does and with which numbers. `recipes/*.yaml` fills it in; unknown keys are refused."""

import json
import re
from typing import Literal

from pydantic import Field, field_validator

from agentdata.records import Record, Rendering


class Filters(Record):
    """Which changes are kept. Each filter that drops something is counted under the reason named in its text."""

    plain_commits: Literal["auto", "always", "never"]
    """Whether commits outside any pull request are changes too; `auto`: where pull requests are scarce (plain-commit)."""
    plain_below: float = Field(ge=0, le=1)
    """`auto` takes plain commits where pull requests and merges are less than this share of what landed."""
    source_files: tuple[int, int]
    """Least and most source files of the chosen languages (no-source-files, too-many-source-files)."""
    most_files: int = Field(gt=0)
    """Most files in all (too-many-files)."""
    most_file_bytes: int = Field(gt=0)
    """Largest file that a change may touch, before or after (file-too-large)."""
    most_patch_bytes: int = Field(gt=0)
    """Largest unified diff of one change (patch-too-large)."""
    most_comments: int = Field(ge=0)
    """Most comments on an issue that the change closes (too-many-comments)."""
    bots: tuple[str, ...]
    """Regular expressions searched in `name <email>` of a commit's author, case ignored (bot-author)."""
    skip_generated: bool
    """Drop changes that touch generated files (generated)."""
    skip_vendored: bool
    """Drop changes whose source files are all vendored (vendored)."""
    licences: tuple[str, ...]
    """SPDX identifiers that are allowed; empty allows all, also unknown ones (licence)."""
    excluded_repositories: tuple[str, ...]
    """Repositories by `owner/name`, case ignored (excluded-repository)."""
    excluded_roots: tuple[str, ...]
    """Root commits: every fork and rename of an excluded repository shares them (excluded-repository)."""

    @field_validator("source_files")
    @classmethod
    def _ordered(cls, bounds: tuple[int, int]) -> tuple[int, int]:
        if bounds[0] > bounds[1]:
            raise ValueError("the least comes first")
        return bounds

    @field_validator("bots")
    @classmethod
    def _expressions(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return patterns


class Exploration(Record):
    """How the events before the edits are made."""

    policy: Literal["direct", "explore"]
    """`direct`: the changed files; `explore`: searches, plausible wrong files, then the right ones."""
    seed: int = Field(ge=0, lt=2**63)
    whole_file_lines: int = Field(gt=0)
    """Files up to this length are read whole, longer ones in ranges around what changes."""
    margin_lines: int = Field(ge=0)
    """Lines read around an edited place of a long file."""
    most_symbol_lines: int = Field(ge=0)
    """A function or class up to this length is read whole when a part of it is edited."""
    most_listed: int = Field(gt=0)
    """Paths in a listing; a larger tree is listed one level deep, then not at all."""
    searches: int = Field(ge=0)
    """Most searches of `explore`."""
    most_hits: int = Field(gt=0)
    """Lines that a search shows."""
    most_hit_files: int = Field(gt=0)
    """A term found in more files than this is too common to search for."""
    wrong_files: int = Field(ge=0)
    """Most files opened that need no change."""
    search_bytes: int = Field(gt=0)
    """Source text that a search may span; in a larger tree it is narrowed to the directory around the change."""
    widen_lines: int = Field(ge=0)
    """Lines of context each way that an old text may take to become unique."""


class HarvestRecipe(Record):
    """Everything that decides the bytes of a harvest, apart from the repositories."""

    languages: tuple[str, ...]
    """Names of the languages whose files are source files; see `agentdata.harvest.languages`."""
    filters: Filters
    exploration: Exploration
    renderings: tuple[Rendering, ...]
    mask: Literal["all", "actions-only"]
    """What is trained: everything, or only what the agent writes."""
    most_tokens: int = Field(gt=0)
    """Longest sample; longer ones are dropped per rendering (too-long)."""
    tokenizer: str
    """Path of a tokenizer.json, a Hub id, or empty for the estimate of `bytes_per_token`."""
    bytes_per_token: float = Field(gt=0, allow_inf_nan=False)
    """UTF-8 bytes per token assumed without a tokenizer."""
    validation_share: float = Field(ge=0, lt=1)
    """Share of repositories, chosen by the hash of their name, that form the validation split."""
    unit_changes: int = Field(gt=0)
    """Landings that make one unit of work and one shard of each table."""
    system_prompt: str
    """System message of the `messages` rendering."""
    tools: str
    """JSON text: the schemas of the tools in the `messages` rendering."""

    @field_validator("renderings")
    @classmethod
    def _once(cls, renderings: tuple[Rendering, ...]) -> tuple[Rendering, ...]:
        if len(set(renderings)) < len(renderings):
            raise ValueError("one is named twice")
        return renderings

    @field_validator("tools")
    @classmethod
    def _is_json(cls, tools: str) -> str:
        json.loads(tools)
        return tools
