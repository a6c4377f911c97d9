"""Faults of sandboxes as what they mean for a job: it is owed."""

from collections.abc import Iterator
from contextlib import contextmanager

from agentdata.errors import OwedError
from sandboxes.errors import ImageError, SandboxError


@contextmanager
def owing() -> Iterator[None]:
    """Raises OwedError for a SandboxError; final for an image that is missing, which will not come by itself."""
    try:
        yield
    except SandboxError as error:
        raise OwedError(str(error), final=isinstance(error, ImageError)) from error
