"""Documents to rows of one length: best fit over a window of open rows.

Each piece goes into the open row that it fills best; if it fits in none and the window is full, the fullest row is closed.
Pieces come in stretches that would fill STRETCH windows, the longest of a stretch first, since short pieces fill what long
ones leave; what is in the window at the end is packed once more in that way. One pass: the same documents in the same order
give the same rows.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence

Row = list[int]
"""Numbers of the pieces of a row, in order."""
Piece = tuple[int, int]
"""(number, tokens) of a piece."""
STRETCH = 1.5


def fill_rows(pieces: Iterable[Piece], row_length: int, window: int) -> Iterator[Row]:
    """Rows of pieces, each piece in one row. The pieces are read as rows are asked for, a stretch ahead."""
    open_rows = BestFit(row_length, window)
    for stretch in _stretches(pieces, int(STRETCH * window * row_length)):
        for number, tokens in stretch:
            yield from open_rows.add(number, tokens)
    left = _longest_first(open_rows.take_all())
    last = BestFit(row_length, len(left) + 1)
    for number, tokens in left:
        yield from last.add(number, tokens)
    yield from last.close()


def _stretches(pieces: Iterable[Piece], size: int) -> Iterator[list[Piece]]:
    stretch: list[Piece] = []
    held = 0
    for piece in pieces:
        stretch.append(piece)
        held += piece[1]
        if held >= size:
            yield _longest_first(stretch)
            stretch, held = [], 0
    yield _longest_first(stretch)


def _longest_first(pieces: Iterable[Piece]) -> list[Piece]:
    return sorted(pieces, key=lambda piece: (-piece[1], piece[0]))


class BestFit:
    """An open window of rows. Rows are yielded as they are closed."""

    def __init__(self, row_length: int, window: int) -> None:
        self.row_length = row_length
        self.window = window
        self._room: list[tuple[int, int]] = []
        """(tokens of room, number of the row) of the open rows, ascending."""
        self._rows: dict[int, list[Piece]] = {}
        """(number, tokens) of the pieces of each open row."""
        self._opened = 0

    def add(self, piece: int, tokens: int) -> Iterator[Row]:
        """Put a piece of at most a row's length into a row; yields the rows that this closes."""
        if not 0 < tokens <= self.row_length:
            raise ValueError(f"a piece of {tokens} tokens in rows of {self.row_length}")
        place = bisect_left(self._room, (tokens, -1))
        if place < len(self._room):
            room, number = self._room.pop(place)
        else:
            if len(self._room) >= self.window:
                yield self._take(self._room.pop(0)[1])
            room, number = self.row_length, self._opened
            self._rows[number] = []
            self._opened += 1
        self._rows[number].append((piece, tokens))
        if room == tokens:
            yield self._take(number)
        else:
            insort(self._room, (room - tokens, number))

    def _take(self, number: int) -> Row:
        return [piece for piece, _ in self._rows.pop(number)]

    def take_all(self) -> list[Piece]:
        """The pieces of all open rows, which are open no more."""
        pieces = [piece for row in self._rows.values() for piece in row]
        self._room, self._rows = [], {}
        return pieces

    def close(self) -> Iterator[Row]:
        """The rows that are still open, the oldest first."""
        self._room = []
        yield from (self._take(number) for number in sorted(self._rows))


def split(tokens: int, cuts: Sequence[int], row_length: int) -> Iterator[tuple[int, int]]:
    """A document as (first token, tokens) of pieces that fit into a row.

    A piece ends at the last border of segments or messages that leaves it at least half a row long; where one segment
    is so long that there is none, at the length of a row. `cuts` are the borders, ascending.
    """
    start = 0
    while tokens - start > row_length:
        place = bisect_left(cuts, start + row_length + 1) - 1
        cut = int(cuts[place]) if place >= 0 else 0
        end = cut if cut - start >= row_length / 2 else start + row_length
        yield start, end - start
        start = end
    yield start, tokens - start
