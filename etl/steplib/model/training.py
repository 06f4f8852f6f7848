"""The training rows as numbers, on disk or in memory, so that each pass over them reads no text."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from steplib.errors import DataError
from steplib.model.moments import Moments, empty, magnitudes, merge, moments_of
from steplib.table.arrays import read_clear
from steplib.table.batches import WHOLE, Batch, split
from steplib.table.csvfile import Csv, first_rows
from steplib.table.pool import THIS_THREAD, Pool

Array = NDArray[np.float64]
# Columns of a stored row after its features: a 1 for the intercept, and the target.
EXTRA_COLUMNS = len(("intercept", "target"))
FLOAT_BYTES = 8
# A block of rows and what is computed from it should stay in the processor's cache.
BLOCK_BYTES = 1 << 19
LEAST_ROWS_OF_BLOCK = 64
# As many as make a product of matrices efficient.
ROWS_OF_PART = 256
# The least work that is worth a task.
TASK_BYTES = 1 << 22
# The square of this, summed over any number of rows, is still a finite float.
LARGEST_VALUE = 1e140


class Part(NamedTuple):
    """Some training rows, (rows, columns) of float64, NaN where missing; `load` returns them, to be read only."""

    rows: int
    columns: int
    load: Callable[[], Array]


class TrainingRows(NamedTuple):
    """The training rows, with the features' names and moments, and the number of rows with target 0 and 1.

    `scratch` is the file that holds the parts, None if they are in memory.
    """

    features: list[str]
    parts: list[Part]
    moments: Moments
    classes: NDArray[np.int64]
    scratch: Path | None = None

    @property
    def number(self) -> int:
        """The number of rows."""
        return int(self.classes.sum())


def read_training_rows(
    clear: Csv, scratch: Path | None = None, batch_bytes: int = WHOLE, pool: Pool = THIS_THREAD
) -> TrainingRows:
    """Return the training rows of a clear_data.csv.

    They are stored in the file `scratch` if given, otherwise in memory, 8 bytes per number. Raises DataError for
    numbers that are too large to compute with, in test rows too.
    """
    (_, names), (first_line, _) = first_rows(clear)
    features = names[2:]
    if scratch:
        scratch.touch()
    read = partial(_read_batch, features=len(features), first_line=first_line, scratch=scratch)
    parts, moments, classes = [], empty(len(features)), np.zeros(2, dtype=np.int64)
    for part, of_batch, in_batch in pool.map(read, split(clear, batch_bytes, first_line)):
        moments, classes = merge(moments, of_batch), classes + in_batch
        parts += [part] if part.rows else []
    for name, largest in zip(features, moments.largest, strict=True):
        if largest > LARGEST_VALUE:
            msg = f"feature {name}: expected numbers up to {LARGEST_VALUE:g}, found a larger one; correct the source"
            raise DataError(msg)
    return TrainingRows(features, parts, moments, classes, scratch)


def _read_batch(
    batch: Batch, features: int, first_line: int, scratch: Path | None
) -> tuple[Part, Moments, NDArray[np.int64]]:
    """Read and store the training rows of a batch, and return them with their moments and class counts."""
    table = read_clear(batch, features)
    is_training_row = ~table.find_test_rows()
    target = table.target[is_training_row]
    rows = np.column_stack([table.features[is_training_row], np.ones(len(target)), target])
    load: Callable[[], Array] = partial(np.asarray, rows)
    if scratch:
        # A row takes at least one line, so batches do not overlap; the gaps between them take no space on the disk.
        offset = (batch.first_line - first_line) * rows.shape[1] * FLOAT_BYTES
        # Not through mapped memory: there, a full disk would kill the process.
        with scratch.open("r+b") as file:
            file.seek(offset)
            file.write(rows.data)
        load = partial(_map, scratch, offset, rows.shape)
    moments = moments_of(rows[:, :features])._replace(largest=magnitudes(table.features))
    return Part(len(rows), rows.shape[1], load), moments, np.bincount(target, minlength=2)


def _map(scratch: Path, offset: int, shape: tuple[int, int]) -> Array:
    return np.memmap(scratch, np.float64, "r", offset, shape)


def blocks(part: Part, mean: Array, scale: Array) -> Iterator[Array]:
    """Yield the rows of a part, gaps filled with the means, scaled, in blocks that fit in the cache."""
    rows = part.load()
    size = max(LEAST_ROWS_OF_BLOCK, BLOCK_BYTES // rows.strides[0])
    for start in range(0, len(rows), size):
        block = np.array(rows[start : start + size])
        features = block[:, :-EXTRA_COLUMNS]
        features -= mean
        features /= scale
        np.copyto(features, 0, where=np.isnan(features))
        yield block


def standardize(rows: TrainingRows, mean: Array, scale: Array) -> list[Part]:
    """Return the rows with gaps filled with the means, and scaled, so that each pass over them only multiplies.

    They are stored in a second file beside the scratch file, or in memory if there is none.
    """
    scaled = (block for part in rows.parts for block in blocks(part, mean, scale))
    if not rows.scratch:
        return cut(np.concatenate(list(scaled)))
    path, columns = rows.scratch.with_name("standardized"), rows.parts[0].columns
    with path.open("wb") as file:
        for block in scaled:
            file.write(block.data)
    counts = [(start, min(ROWS_OF_PART, rows.number - start)) for start in range(0, rows.number, ROWS_OF_PART)]
    return [
        Part(count, columns, partial(_map, path, start * columns * FLOAT_BYTES, (count, columns)))
        for start, count in counts
    ]


def cut(table: Array) -> list[Part]:
    """Return rows in memory as parts."""
    pieces = (table[start : start + ROWS_OF_PART] for start in range(0, len(table), ROWS_OF_PART))
    return [Part(len(piece), piece.shape[1], partial(np.asarray, piece)) for piece in pieces]


def group(parts: Sequence[Part]) -> list[Sequence[Part]]:
    """Return the parts in groups of a size that is worth a task."""
    ends = list(accumulate(part.rows * part.columns * FLOAT_BYTES for part in parts))
    numbers = [end // TASK_BYTES for end in ends]
    cuts = [0, *(i for i in range(1, len(parts)) if numbers[i] != numbers[i - 1]), len(parts)]
    return [parts[start:stop] for start, stop in pairwise(cuts)]
