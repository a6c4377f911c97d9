"""Documents of a unit on disk, between tokenising and packing: three flat arrays, and one line for each document."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from agentdata.midtrain.documents import Document

LINE = np.dtype(
    [("offset", "<u8"), ("tokens", "<u8"), ("trained", "<u8"), ("cuts", "<u8"), ("kind", "<u2"), ("licence", "<u2")]
)
"""One document: its place among the unit's tokens, how many it has and trains, the end of its cuts, and two names."""
ARRAYS: Mapping[str, Any] = {"ids": "<u4", "train": "?", "kinds": "u1", "cuts": "<u4", "lines": LINE}
"""The files of a unit and the types of their values."""


class ArrayFiles:
    """Flat arrays that are written beside their final names and published together."""

    def __init__(self, folder: Path, name: str, types: Mapping[str, Any]) -> None:
        self._paths = {part: folder / f"{name}.{part}" for part in types}
        self._types = {part: np.dtype(kind) for part, kind in types.items()}
        self._digests = {part: hashlib.sha256() for part in types}
        self._files: dict[str, BinaryIO] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self._files = {
            part: open(_unfinished(path), "wb")  # noqa: SIM115 - closed by __exit__
            for part, path in self._paths.items()
        }
        return self

    def write(self, part: str, values: npt.NDArray[Any]) -> None:
        """Append values to one of the arrays."""
        data = np.ascontiguousarray(values, self._types[part]).data.cast("B") if values.size else b""
        self._files[part].write(data)
        self._digests[part].update(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            if error is None:
                file.flush()
                os.fsync(file.fileno())
            file.close()
        for path in self._paths.values():
            if error is None:
                _unfinished(path).replace(path)
            else:
                _unfinished(path).unlink(missing_ok=True)

    def digests(self) -> dict[str, tuple[int, str]]:
        """Bytes and SHA-256 of each published file, by its name."""
        return {path.name: (path.stat().st_size, self._digests[part].hexdigest()) for part, path in self._paths.items()}


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")


class SpoolWriter:
    """Appends documents to the files of a unit."""

    def __init__(self, files: ArrayFiles) -> None:
        self._files = files
        self._tokens = self._cuts = 0
        self._lines: list[tuple[int, ...]] = []
        self.names: dict[str, list[str]] = {"kind": [], "licence": []}

    def write(self, document: Document, kind: str, licence: str) -> None:
        self._files.write("ids", document.ids)
        self._files.write("train", document.train)
        self._files.write("kinds", document.kinds)
        self._files.write("cuts", document.cuts)
        size = len(document.ids)
        self._cuts += len(document.cuts)
        names = (self._place("kind", kind), self._place("licence", licence))
        self._lines.append((self._tokens, size, int(np.count_nonzero(document.train)), self._cuts, *names))
        self._tokens += size

    def _place(self, column: str, name: str) -> int:
        names = self.names[column]
        if name not in names:
            names.append(name)
        return names.index(name)

    def close(self) -> None:
        """Write the lines of the documents."""
        self._files.write("lines", np.array(self._lines, LINE))


def read_array(folder: Path, unit: str, part: str) -> npt.NDArray[Any]:
    """One of a unit's arrays, mapped from its file."""
    path = folder / f"{unit}.{part}"
    kind = np.dtype(ARRAYS[part])
    if not path.stat().st_size:
        return np.empty(0, kind)
    return np.memmap(path, kind, mode="r")
