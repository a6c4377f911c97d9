"""Every error that a user is meant to read: one sentence with the value and the remedy.

AgentdataError
├── UsageError       an option, recipe, file list or run directory cannot be used (exit status 2)
├── RunError         the run as a whole cannot go on: disk full, directory locked (exit status 1)
├── OwedError        one job failed for no fault of its own, as when an engine is gone: it is done again later
│   └── IndexUnreachableError  the package index does not answer
└── SourceError      one repository cannot be harvested; the others go on (exit status 1 at the end)
    └── ObjectError  one object of a repository is missing or corrupt; the change that needs it is rejected
"""

import errno


class AgentdataError(Exception):
    """Base of the errors that are shown to a user without a traceback."""


class UsageError(AgentdataError):
    """What was asked for cannot be used as it stands."""


class RunError(AgentdataError):
    """The run cannot go on; what is finished stays, and the same command continues it."""


class OwedError(AgentdataError):
    """A job is owed: what failed was not the job's own doing. `final` says that trying again at once is no use."""

    def __init__(self, detail: str, *, final: bool = False) -> None:
        super().__init__(detail)
        self.final = final


class IndexUnreachableError(OwedError):
    """The package index does not answer, which says nothing about what was asked of it."""


class SourceError(AgentdataError):
    """One repository cannot be harvested. `reason` is the short word that is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason

    def __reduce__(self) -> tuple[type["SourceError"], tuple[str, str]]:
        return type(self), (self.reason, str(self))


class ObjectError(SourceError):
    """An object of the repository is missing or cannot be read."""


def explain_os_error(error: OSError, doing: str) -> RunError:
    """The sentence for an operating-system error met while `doing` something."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return RunError(
            f"No space left while {doing}: {error}. Free some space and run the same command again; finished shards are kept."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return RunError(
            f"Not permitted while {doing}: {error}. Choose another directory with -o, or change its permissions."
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return RunError(f"A file is in the way while {doing}: {error}. Choose another directory with -o.")
    return RunError(f"Failed while {doing}: {error}. Run the same command again; finished shards are kept.")
