"""Rows hold every piece once, none is longer than it may be, and long documents are split at their borders."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from agentdata.midtrain.packing import BestFit, fill_rows, split

LENGTH = 100
SIZES = st.lists(st.integers(1, LENGTH), max_size=300)


def packed(sizes: Sequence[int], window: int) -> list[list[int]]:
    return list(fill_rows(enumerate(sizes), LENGTH, window))


@given(SIZES, st.integers(1, 20))
def test_every_piece_is_in_one_row_and_no_row_is_too_long(sizes: list[int], window: int) -> None:
    rows = packed(sizes, window)
    assert sorted(piece for row in rows for piece in row) == list(range(len(sizes)))
    assert all(0 < sum(sizes[piece] for piece in row) <= LENGTH for row in rows)
    assert packed(sizes, window) == rows


@given(SIZES)
def test_at_most_one_row_is_less_than_half_full(sizes: list[int]) -> None:
    rows = packed(sizes, 8)
    assert sum(sum(sizes[piece] for piece in row) < LENGTH / 2 for row in rows) <= 1


@given(SIZES, st.integers(1, 20))
def test_no_more_rows_than_the_window_are_open(sizes: list[int], window: int) -> None:
    open_rows = BestFit(LENGTH, window)
    closed = 0
    for piece, size in enumerate(sizes):
        closed += sum(1 for _ in open_rows.add(piece, size))
        assert len(open_rows._rows) <= window
    assert closed + sum(1 for _ in open_rows.close()) <= len(sizes)


def test_a_piece_goes_where_it_leaves_the_least_room() -> None:
    open_rows = BestFit(LENGTH, 4)
    assert [row for piece, size in enumerate((60, 70, 30)) for row in open_rows.add(piece, size)] == [[1, 2]]
    assert list(open_rows.add(3, 40)) == [[0, 3]]
    assert open_rows.take_all() == []


def test_pieces_are_read_only_a_stretch_ahead() -> None:
    read = 0

    def endless() -> Iterator[tuple[int, int]]:
        nonlocal read
        while True:
            read += 1
            yield read, 10

    rows = fill_rows(endless(), LENGTH, 4)
    for _ in range(50):
        next(rows)
    assert read < 50 * 10 + 2 * 60


@given(st.integers(1, 1000), st.lists(st.integers(1, 999), unique=True), st.integers(8, 200))
def test_a_document_is_split_without_a_gap_and_at_borders_where_it_can_be(
    tokens: int, cuts: list[int], row_length: int
) -> None:
    borders = sorted(cut for cut in cuts if cut < tokens)
    pieces = list(split(tokens, borders, row_length))
    assert [start for start, _ in pieces] == [0, *accumulate(size for _, size in pieces)][:-1]
    assert sum(size for _, size in pieces) == tokens
    assert all(0 < size <= row_length for _, size in pieces)
    for (start, size), (end, _) in pairwise(pieces):
        within = [cut for cut in borders if start + row_length / 2 <= cut <= start + row_length]
        assert end == (within[-1] if within else start + row_length) == start + size


def test_documents_that_fit_are_not_split() -> None:
    assert list(split(100, [50], 100)) == [(0, 100)]
    assert list(split(101, [90], 100)) == [(0, 90), (90, 11)]
    assert list(split(101, [10], 100)) == [(0, 100), (100, 1)]
