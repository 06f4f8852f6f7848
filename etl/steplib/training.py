"""The training rows as numbers in a scratch file, so that each pass over them reads no text."""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

from steplib import newton, vectors
from steplib.batches import Batch
from steplib.moments import Moments, largest_of, moments_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Of the features, a column of ones for the intercept, and the target: what a row has besides its features.
MORE_COLUMNS = 2
FLOAT_BYTES = 8
# So that a block of rows and what is made of it stay in the processor's cache.
BLOCK_BYTES = 1 << 19
LEAST_ROWS_OF_BLOCK = 64
# What a task of a pass works on, at least.
TASK_BYTES = 1 << 22


class Part(NamedTuple):
    """Some training rows in the scratch file: float64, (rows, columns), from a place in bytes on."""

    path: str
    place: int
    rows: int
    columns: int

    def open(self) -> "NDArray[np.float64]":
        """Map the rows into memory for reading; only as long as the array is used."""
        import numpy as np

        return np.memmap(self.path, np.float64, "r", self.place, (self.rows, self.columns))


class Stored(NamedTuple):
    """What was stored, and what it says: the features' moments, and how many rows have target 0 and 1."""

    part: Part
    moments: Moments
    classes: "NDArray[np.int64]"


def store(batch: Batch, first_line: int, features: int, path: str) -> Stored:
    """Put the training rows of a batch of clear_data.csv, whose rows begin at `first_line`, into the scratch file."""
    import numpy as np

    table = vectors.read_clear(batch, features)
    is_training_row = ~table.is_test_row
    target = table.target[is_training_row]
    rows = np.column_stack([table.features[is_training_row], np.ones(len(target)), target])
    # A row takes a line at least, so no two batches meet; what stays between them takes no room on the disk.
    place = (batch.first_line - first_line) * rows.shape[1] * FLOAT_BYTES
    _write(path, place, rows)
    part = Part(path, place, *rows.shape)
    # The test rows must not be too large either.
    told = moments_of(rows[:, :features])._replace(largest=largest_of(table.features))
    return Stored(part, told, np.bincount(target, minlength=2))


def blocks(part: Part, mean: "NDArray[np.float64]", scale: "NDArray[np.float64]") -> "Iterator[NDArray[np.float64]]":
    """Yield the rows of a part, their gaps filled with the means, and scaled; as many at a time as a cache holds."""
    import numpy as np

    rows = part.open()
    size = max(LEAST_ROWS_OF_BLOCK, BLOCK_BYTES // rows.strides[0])
    for start in range(0, len(rows), size):
        block = np.array(rows[start : start + size])
        features = block[:, :-MORE_COLUMNS]
        features -= mean
        features /= scale
        np.copyto(features, 0, where=np.isnan(features))
        yield block


def derivatives(
    parts: Sequence[Part], weights: "NDArray[np.float64]", mean: "NDArray[np.float64]", scale: "NDArray[np.float64]"
) -> newton.Derivatives:
    """Return what the rows of some parts add to the loss."""
    return reduce(
        newton.add, (newton.derivatives(block, weights) for part in parts for block in blocks(part, mean, scale))
    )


def group(parts: Sequence[Part]) -> list[Sequence[Part]]:
    """Return the parts in groups of a size that is worth a task."""
    ends = list(accumulate(part.rows * part.columns * FLOAT_BYTES for part in parts))
    numbers = [end // TASK_BYTES for end in ends]
    cuts = [0, *(i for i in range(1, len(parts)) if numbers[i] != numbers[i - 1]), len(parts)]
    return [parts[start:stop] for start, stop in pairwise(cuts)]


def _write(path: str, place: int, rows: "NDArray[np.float64]") -> None:
    # Not through mapped memory: a disk that takes no more would end the process there.
    try:
        with open(path, "r+b") as file:  # noqa: PTH123 - one line of the same as Path.open
            file.seek(place)
            file.write(rows.data)
    except OSError as error:
        error.filename = error.filename or path
        raise
