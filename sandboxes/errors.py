"""How sandboxes fail.

A command that fails is a result. A sandbox that fails is an exception:

SandboxError             the sandbox or its engine failed; the command's outcome is unknown, so try again in a new one
├── EngineError          the engine does not answer, is not permitted, or refuses: says what to do
├── ImageError           an image is missing, or cannot be built
└── SandboxGone          the container or process died while it was used (killed, engine restarted)
    └── LimitExceeded    what ran in it exceeded a limit: it would again in a new one
"""


class SandboxError(Exception):
    """The sandbox failed, not what ran in it. The text is one sentence with the remedy."""


class EngineError(SandboxError):
    """The engine does not answer, does not permit it, or refuses."""


class ImageError(SandboxError):
    """An image is missing or cannot be built."""


class SandboxGone(SandboxError):  # noqa: N818
    """The sandbox died while it was used."""


class LimitExceeded(SandboxGone):
    """The sandbox was ended because what ran in it wrote or took more than it may."""
