"""The nouns: frozen records that travel between stages and into Parquet.

Every record has one Arrow schema (`agentdata.shards.arrow_schema`), the same for every shard. There are no open-keyed
dictionaries; a missing text is an empty string, so that no reader meets a null where it expects a value.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1

LandingKind = Literal["merge", "squash", "rebase", "plain"]
EventKind = Literal["issue", "search", "list", "read", "think", "edit", "done"]
EditKind = Literal["", "str_replace", "insert", "create", "delete", "rename", "chmod"]
Rendering = Literal["markdown", "xml", "messages"]
CallForm = Literal["tool-calls", "xml", "fenced"]
Encoding = Literal["utf-8", "latin-1"]
FileStatus = Literal["added", "modified", "deleted", "renamed", "mode"]
Split = Literal["train", "validation"]
StopReason = Literal[
    "submitted",
    "step-limit",
    "context-limit",
    "time-limit",
    "token-budget",
    "repeated-actions",
    "format-errors",
    "policy-gone",
    "sandbox-gone",
]


class Record(BaseModel):
    """A frozen row."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RepoSource(Record):
    """A repository to harvest from."""

    name: str
    """`owner/name` where the origin tells it, else the directory's name."""
    location: str
    """Path of a clone, bare mirror, or the URL that it was cloned from."""
    licence: str = ""
    """SPDX expression given by the source list; empty when it is to be detected at each snapshot."""
    stars: int = -1
    """Stars as given by the source list; -1 when unknown."""
    description: str = ""
    """One line on what the repository is."""


class HarvestedSource(RepoSource):
    """A repository as it was harvested."""

    git_dir: str
    """Git directory that was read."""
    head: str
    """Commit whose history was harvested."""
    plain: bool
    """Whether plain commits count as changes."""
    split: Split
    landings: int
    """Number of landings that were planned."""


class Landing(Record):
    """Where one change entered the history: the commits that make it, before anything of them is read."""

    id: str
    """Content address of repository and commits (16 hexadecimal digits)."""
    kind: LandingKind
    number: int = 0
    """Pull- or merge-request number; 0 when the history does not tell it."""
    snapshot: str = ""
    """Object name of the parent of the first commit."""
    head: str
    """Object name of the last commit of the change."""
    commits: tuple[str, ...]
    """Object names of the commits to tell, oldest first."""
    landed: str
    """Object name of the commit that brought the change onto the mainline."""
    landed_parent: str = ""
    """First parent of `landed`."""
    landed_at: int
    """Committer time of `landed`, seconds since the epoch."""
    reverts: str = ""
    """Id of the landing that this one reverts."""
    reverted_by: str = ""
    """Id of the landing that reverts this one."""
    duplicate_of: str = ""
    """Id of an earlier landing with the same patches (a cherry-pick)."""


class Comment(Record):
    """A comment on an issue or pull request, or a review."""

    author: str = ""
    body: str
    created_at: str = ""
    """ISO 8601 time as the source gave it."""
    path: str = ""
    """File that a review comment is attached to."""


class Issue(Record):
    """An issue that the change closes."""

    number: int
    title: str
    body: str
    comments: tuple[Comment, ...] = ()


class FileEdit(Record):
    """What one commit did to one file."""

    status: FileStatus
    path: str
    """Path after the commit (before it, for a deletion)."""
    old_path: str = ""
    """Path before the commit where it differs."""
    old_mode: str = ""
    """Octal mode before, empty for an added file."""
    new_mode: str = ""
    """Octal mode after, empty for a deleted file."""
    old_blob: str = ""
    """Object name before."""
    new_blob: str = ""
    """Object name after."""
    role: Literal["source", "test", "other"]
    """`source` and `test` are files of the chosen languages, apart from each other; `other` is everything else."""
    patch: str = ""
    """Unified diff of this file, three lines of context."""
    encoding: Encoding = "utf-8"
    """How `patch` maps to bytes; latin-1 stands for any bytes that are not UTF-8."""


class Commit(Record):
    """One commit of a change."""

    sha: str
    message: str
    """Message without trailers, CI marks and e-mail addresses."""
    author_kind: Literal["person", "bot"]
    authored_at: int
    """Seconds since the epoch."""
    edits: tuple[FileEdit, ...]


class SnapshotFile(Record):
    """A file that the change touches, as it was at the snapshot; its text is the blob's."""

    path: str
    language: str
    """Language of the file's suffix; empty when it is none of the known ones."""
    blob: str
    """Object name of its content."""
    mode: str
    bytes: int
    """Size of its content."""


class Change(Record):
    """One landed change: a pull request or a commit, with everything needed to tell it."""

    id: str
    repo: str
    number: int
    """Pull-request number, 0 when unknown."""
    kind: LandingKind
    title: str
    body: str
    issues: tuple[Issue, ...]
    comments: tuple[Comment, ...]
    """Conversation and reviews of the pull request, in order of time."""
    commits: tuple[Commit, ...]
    """Oldest first. One commit when the change is told as it landed."""
    snapshot: str
    """Object name of the parent of the first commit."""
    head: str
    landed: str
    landed_at: int
    """Seconds since the epoch."""
    files: tuple[SnapshotFile, ...]
    """Files that exist at the snapshot and that the change touches."""
    edits: tuple[FileEdit, ...]
    """The whole change, from snapshot to head."""
    licence: str
    """SPDX expression; empty when unknown."""
    licence_found: str
    """How the licence was found: the licence files' names, `list` or empty."""
    reverts: str = ""
    reverted_by: str = ""
    redacted_emails: int = 0
    """E-mail addresses replaced in messages and texts."""
    redacted_trailers: int = 0
    """Trailer lines and CI marks removed from messages."""

    @property
    def source_patch(self) -> str:
        """Unified diff from snapshot to head without the tests."""
        return "".join(edit.patch for edit in self.edits if edit.role != "test")

    @property
    def test_patch(self) -> str:
        """Unified diff from snapshot to head of the tests alone."""
        return "".join(edit.patch for edit in self.edits if edit.role == "test")


class Rejected(Record):
    """Something that did not become a row, and why."""

    id: str
    repo: str
    stage: str
    reason: str
    """A short word, counted in the manifest."""
    detail: str


class Event(Record):
    """One step of a contextual trace. Fields that a kind does not use keep their defaults."""

    kind: EventKind
    text: str = ""
    """Words (issue, think), the lines that are read, or what the tool prints (search, list, edit)."""
    command: str = ""
    """Shell command of a search or listing; for an edit the shell command where the editor has none."""
    path: str = ""
    """File that is read or edited, relative to the repository."""
    start: int = 0
    """First line that is read, from 1; 0 for a whole file."""
    end: int = 0
    """Last line that is read, inclusive."""
    edit: EditKind = ""
    commit: int = -1
    """Index of the commit that an edit or thought belongs to."""
    old: str = ""
    """Text that is replaced; it occurs exactly once at that moment."""
    new: str = ""
    """Text that is written."""
    line: int = 0
    """Line after which `new` is inserted."""
    new_path: str = ""
    """Target of a rename."""
    mode: str = ""
    """Octal mode given to a created or re-moded file."""
    encoding: Encoding = "utf-8"
    """How the file's text maps to bytes."""


class FileProof(Record):
    """One file of the change: the states between which the edits were replayed."""

    before_path: str
    """Empty for an added file."""
    before_mode: str
    before_blob: str
    after_path: str
    """Empty for a deleted file."""
    after_mode: str
    after_blob: str


class Proof(Record):
    """What replaying a trace established; `agentdata check` establishes it again."""

    snapshot: str
    head: str
    files: tuple[FileProof, ...]
    reads: int
    """Reads compared with the blob at that state."""
    searches: int
    """Searches and listings computed from the tree at the snapshot."""
    edits: int
    """Edits applied in order, each old text unique at its turn."""
    digest: str
    """SHA-256 over the events."""


NO_PROOF = Proof(snapshot="", head="", files=(), reads=0, searches=0, edits=0, digest="")


class Trace(Record):
    """The events of one change, told once; every rendering is made from them."""

    id: str
    change_id: str
    repo: str
    policy: Literal["direct", "explore"]
    seed: int
    unparsed: tuple[str, ...]
    """Source files whose snapshot the language's grammar does not accept; they are told as plain text."""
    events: tuple[Event, ...]
    proof: Proof


class Segment(Record):
    """A stretch of a sample's text, in characters, half open; segments tile the text."""

    kind: str
    """The event kind, or `context` for what surrounds them."""
    start: int
    end: int
    train: bool


class FunctionCall(Record):
    """A call of a tool."""

    name: str
    arguments: str
    """JSON text."""


class ToolCall(Record):
    """A tool call in the shape of OpenAI's chat messages."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(Record):
    """A chat turn."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    reasoning_content: str = ""
    """What the model thought before it answered, where its server tells it apart."""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    train: bool
    """Whether the turn's tokens are trained on."""


class Sample(Record):
    """What every training row carries besides its text or messages."""

    id: str
    kind: Literal["contextual", "environmental"]
    rendering: Literal[Rendering, "tokens"]
    repo: str
    change_id: str = ""
    number: int = 0
    snapshot: str
    """Commit that the work begins at."""
    head: str = ""
    landed_at: int = 0
    licence: str
    languages: tuple[str, ...] = ()
    tier: str
    """Data tier of L0-L4: L1 for rows that passed filters and carry a proof, or a verdict."""
    policy: str
    """How a contextual trace was told; the model of an environmental one."""
    unparsed: tuple[str, ...] = ()
    """Source files that the language's grammar does not accept."""
    tokens: int
    trained_tokens: int
    token_counter: str
    """The tokenizer, or the estimate, behind the counts."""
    proof: Proof = NO_PROOF
    generator: str
    """Name and version of the code, and of any model, that wrote the row."""
    task: str = ""
    """Task of an environmental row."""
    attempt: int = -1
    scaffold: str = ""
    """Name and version of the scaffold."""
    stop: str = ""
    """Why the attempt ended, a `StopReason`."""
    resolved: bool = False
    verdict: str = ""
    """Reason of the verdict."""
    repetition: int = 0
    """0 where a trajectory occurs first among the rows of its rendering, 1 for its first repetition."""


class TextSample(Sample):
    """A sample that is one text (markdown, xml)."""

    text: str
    segments: tuple[Segment, ...]


class ChatSample(Sample):
    """A sample that is a conversation with tools (messages)."""

    messages: tuple[Message, ...]
    tools: str
    """JSON text: the tools' schemas as given to a chat template."""


class TokenSample(Sample):
    """A sample that is the tokens that a policy saw and drew, as its server counted them."""

    input_ids: tuple[int, ...]
    mask: tuple[bool, ...]
    """For each token whether it is trained on: sampled ones, unless their step is masked."""


class Shard(Record):
    """A finished file of a table."""

    path: str
    """Relative to the run directory."""
    rows: int
    bytes: int
    sha256: str


class Count(Record):
    """How often something occurred."""

    name: str
    count: int


class Table(Record):
    """All shards of one table of a run."""

    name: str
    rows: int
    shards: tuple[Shard, ...]


class Manifest(Record):
    """What a finished run holds. It is written last: a run without one is not finished."""

    schema_version: int
    generator: str
    configuration: str
    """JSON text of the resolved configuration."""
    tables: tuple[Table, ...]
    counts: tuple[Count, ...]
    """Landings, changes and samples, by what became of them."""
    rejections: tuple[Count, ...]
    """`stage/reason` of everything that did not become a row."""
    tokens: tuple[Count, ...]
    """Tokens by rendering, and `rendering/trained`."""


# Environments and tasks


class Environment(Record):
    """Where the code of one commit runs, described well enough to be built again."""

    id: str
    """Content address of everything below that decides what is built."""
    repo: str
    git_dir: str
    """Repository that the tree is exported from."""
    commit: str
    """Commit whose tree is at /testbed."""
    change_id: str = ""
    """The change that starts at this commit."""
    python: str
    """Version as `3.11`."""
    base_image: str
    system_packages: tuple[str, ...] = ()
    lock: str
    """Requirements, every one with its version, as resolved for `until`."""
    lock_id: str
    """Content address of Python, base image, system packages and lock: names the image that environments share."""
    until: str
    """ISO 8601 time: no package that was uploaded later is in the lock, unless `origin` says so."""
    origin: str
    """What in the repository the requirements were read from, and the fallback that worked."""
    install: tuple[str, ...]
    """Commands, run in /testbed without a network, that make the project importable."""
    test_command: str
    """Command that runs the tests; names of files or tests are appended."""
    image: str
    """Name and tag of the image with the tree."""
    image_id: str
    """The engine's digest of it."""


class BuildAttempt(Record):
    """One way of building an environment that was tried."""

    id: str
    """Environment's or change's id, and the number of the attempt."""
    repo: str
    commit: str
    origin: str
    reason: str
    """A short word; empty when it worked."""
    log: str
    seconds: float


class Task(Record):
    """A problem to solve in an environment. What grades it is withheld in `TaskTests` and `GoldPatch` of the same id."""

    id: str
    """`owner__name-number` as in SWE-bench, or `owner__name-` and a content address."""
    repo: str
    environment: str
    """Id of the environment; empty for an imported task."""
    image: str
    """Image with the tree of the task at /testbed: one commit, nothing later."""
    base_commit: str
    problem_statement: str
    statement_source: Literal["issue", "pull-request", "commit", "tests", "benchmark"]
    hints: str = ""
    source: Literal["change", "mutation", "reversal", "benchmark"]
    mutations: tuple[str, ...] = ()
    """Kinds of mutation that made the problem."""
    created_at: str
    """ISO 8601."""
    version: str = ""
    """Version label of a benchmark row."""
    licence: str = ""


class TestCount(Record):
    """How often a test passed in repeated runs, without and with the gold patch."""

    name: str
    runs: int
    passed_before: int
    passed_after: int


class TaskTests(Record):
    """The tests that decide over a task."""

    id: str
    test_patch: str
    test_files: tuple[str, ...]
    """Files that the test command is given."""
    test_command: str
    fail_to_pass: tuple[str, ...]
    """pytest node ids (`path::Class::name[parameters]`)."""
    pass_to_pass: tuple[str, ...]
    flaky: tuple[str, ...] = ()
    """Tests whose outcome differed between equal runs; they decide nothing."""
    counts: tuple[TestCount, ...] = ()
    eval_script: str = ""
    """Script of an imported version-5 row; empty when ours is derived from the fields above."""
    log_parser: str = ""
    """Name of SWE-bench's parser for the output of `eval_script` or of an imported row."""
    canaries: bool = True
    """Whether the grader may put its own tests among these. Not where a project collects no tests but of its own kind;
    then a report that fits the exit status is believed."""


class GoldPatch(Record):
    """The known solution of a task."""

    id: str
    patch: str


TestStatus = Literal["passed", "failed", "error", "skipped", "missing"]


class TestResult(Record):
    """What became of one test."""

    name: str
    status: TestStatus


class Prediction(Record):
    """A submission in the field's form."""

    instance_id: str
    model_name_or_path: str = ""
    model_patch: str


class Verdict(Record):
    """What the grader found."""

    task: str
    model: str = ""
    resolved: bool
    reason: str
    """A short word: resolved, tests-failed, empty-patch, patch-does-not-apply, tests-did-not-run, forged-report, ..."""
    fail_to_pass: tuple[TestResult, ...] = ()
    pass_to_pass: tuple[TestResult, ...] = ()
    tampering: tuple[str, ...] = ()
    """`kind: path` of each change to tests or test infrastructure, which was undone before grading."""
    exit_status: int = -1
    """Of the test command; -1 when it was not run."""
    test_seconds: float = 0.0
    """Running time of the test command."""
    seconds: float = 0.0
    """From the submission to the verdict."""
    log: str = ""
    """End of what the test command printed."""
    grader: str = ""
    """Version of the grader."""


# Rollouts


class Observation(Record):
    """What a tool gave for one call."""

    tool_call_id: str
    content: str
    """As the policy saw it, cut by the scaffold's rule."""
    status: int = 0
    """Exit status of a shell command; 1 where another tool refused."""
    seconds: float = 0.0
    cut_characters: int = 0
    """Characters that the scaffold's rule took out."""


class Step(Record):
    """One turn of the policy, and what came of it."""

    content: str
    """The policy's words, verbatim."""
    reasoning_content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    """Calls as the server or the scaffold's parser read them out of the turn."""
    observations: tuple[Observation, ...] = ()
    """One for each call; one without an id where the turn could not be read and was corrected."""
    finish_reason: str = ""
    """As the server gave it: stop, length, tool_calls, ..."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_token_ids: tuple[int, ...] = ()
    """Tokens of the prompt, where the server gives them: what follows the prompt and reply of the step before where
    `continues`, else the whole."""
    continues: bool = False
    """Whether the prompt begins with the tokens of the prompt and the reply of the step before."""
    token_ids: tuple[int, ...] = ()
    """Tokens that were sampled, where the server gives them."""
    logprobs: tuple[float, ...] = ()
    """Natural logarithm of the probability of each sampled token, where the server gives them."""
    seconds: float = 0.0
    """What the policy took."""
    elided: int = 0
    """Oldest observations that the policy did not see any more at this turn."""


class Trajectory(Record):
    """One attempt of a policy at a task."""

    id: str
    """`TASK/ATTEMPT`."""
    task: str
    repo: str
    base_commit: str
    licence: str
    attempt: int
    seed: int
    model: str
    sampling: str
    """JSON text of the sampling options."""
    scaffold: str
    scaffold_version: str
    form: CallForm = "tool-calls"
    """How calls were written: the server's tool calls, `<function=...>` in the text, or one fenced block."""
    tools: str
    """JSON text of the tools' schemas, as given to the server or, for text forms, described in the prompt."""
    prompt: tuple[Message, ...]
    """What stood before the first step."""
    steps: tuple[Step, ...]
    stop: StopReason
    detail: str = ""
    """A sentence on why it stopped, where the reason alone does not tell."""
    submission: str
    """Diff of the tree against the base, computed outside of the policy's reach."""
    leaks: tuple[str, ...] = ()
    """`kind: command` of each command that looked for what the environment must not hold: later history, the package
    index, the tests that decide."""
    verdict: Verdict
    """Its reason is `not-graded` until the grader has spoken."""
    seconds: float
    created_at: str
    """ISO 8601."""
    generator: str


class TaskTally(Record):
    """How often a task was solved."""

    task: str
    repo: str
    attempts: int
    """Graded attempts."""
    resolved: int
    ungraded: int
    band: Literal["never", "sometimes", "always", "ungraded"]
