"""Rows that repeat an earlier one in a table of any size, found by digests; memory grows with the repeats alone."""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from steplib.table.rows import DIGEST_BYTES

# About 100 MB while they are compared.
ROWS_AT_A_TIME = 1 << 21
ROWS_READ_AT_A_TIME = 1 << 17


def find_repeats(digests: BinaryIO, rows: int) -> NDArray[np.int64]:
    """Return the positions, in order, of the rows whose digest has occurred before.

    They are compared in groups, one at a time; equal digests are always in the same group.
    """
    groups = rows // ROWS_AT_A_TIME + 1
    return np.sort(np.concatenate([_repeats_in_group(digests, group, groups) for group in range(groups)]))


def _repeats_in_group(digests: BinaryIO, group: int, groups: int) -> NDArray[np.int64]:
    halves = np.concatenate([part[part[:, 0] % groups == group, 0] for _, part in _read(digests)])
    halves.sort()
    twice = halves[1:][halves[1:] == halves[:-1]]
    if not len(twice):
        return np.empty(0, dtype=np.int64)
    # Repeats are rare, so positions and whole digests are read only now.
    positions, whole = [], []
    for start, part in _read(digests):
        found = _positions_of(twice, part[:, 0])
        positions.append(start + found)
        whole.append(part[found])
    _, first = np.unique(np.concatenate(whole), axis=0, return_index=True)
    return np.delete(np.concatenate(positions), first)


def _positions_of(wanted: NDArray[np.uint64], found: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the positions in `found` of values that occur in `wanted`, which is sorted."""
    nearest = wanted.take(np.searchsorted(wanted, found), mode="clip")
    return np.flatnonzero(nearest == found)


def _read(digests: BinaryIO) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Yield some digests at a time, (rows, 2), with the position of the first of them."""
    start = 0
    digests.seek(0)
    while content := digests.read(DIGEST_BYTES * ROWS_READ_AT_A_TIME):
        part = np.frombuffer(content, dtype=np.uint64).reshape(-1, 2)
        yield start, part
        start += len(part)
