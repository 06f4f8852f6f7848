"""Rows that stand more than once in a file of any size, found by their digests; memory grows with the repeats alone."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

# About 100 MB while they are compared.
ROWS_AT_A_TIME = 1 << 21
ROWS_READ_AT_A_TIME = 1 << 17


def later_repeats(digests: Path, rows: int) -> "NDArray[np.int64]":
    """Return the places, in order, of the rows whose digest stands before as well.

    `digests` holds 16 bytes a row. They are compared in groups that hold all that may be equal, each group at a time.
    """
    import numpy as np

    groups = rows // ROWS_AT_A_TIME + 1
    found = [_repeats_in_group(digests, group, groups) for group in range(groups)]
    return np.sort(np.concatenate(found))


def _repeats_in_group(digests: Path, group: int, groups: int) -> "NDArray[np.int64]":
    import numpy as np

    halves = np.concatenate([half[half % groups == group] for _, half in _read(digests)])
    halves.sort()
    twice = halves[1:][halves[1:] == halves[:-1]]
    if not len(twice):
        return np.empty(0, dtype=np.int64)
    # Seldom, so only now are places and whole digests looked at.
    places = np.concatenate([start + _places_of(twice, half) for start, half in _read(digests)])
    whole = np.memmap(digests, dtype="V16", mode="r")[places]
    _, first = np.unique(whole, return_index=True)
    return np.delete(places, first)


def _places_of(wanted: "NDArray[np.uint64]", found: "NDArray[np.uint64]") -> "NDArray[np.int64]":
    """Return the places in `found` of what is among `wanted`, which is sorted."""
    import numpy as np

    nearest = wanted.take(np.searchsorted(wanted, found), mode="clip")
    return np.flatnonzero(nearest == found)


def _read(digests: Path) -> "Iterator[tuple[int, NDArray[np.uint64]]]":
    """Yield the first half of each digest, some rows at a time, with the place of the first of them."""
    import numpy as np

    start = 0
    with digests.open("rb") as file:
        while len(part := np.fromfile(file, dtype=np.uint64, count=2 * ROWS_READ_AT_A_TIME)):
            yield start, part[::2]
            start += ROWS_READ_AT_A_TIME
