"""A model's predictions for new cases, and how the cases differ from the training rows."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from steplib.errors import DataError
from steplib.model.fitting import without_names
from steplib.model.scoring import predict_rows
from steplib.model.training import LARGEST_VALUE
from steplib.table.arrays import GOLDEN, share_of_sample
from steplib.table.batches import WHOLE, Batch, split
from steplib.table.faults import MOST_FAULTS, Fault, refusal
from steplib.table.new_cases import Cases
from steplib.table.pool import THIS_THREAD, Pool
from steplib.table.rows import quote, read_batch
from steplib.table.schema import Columns

HEADER = b"id,y_pred,probability\n"
CALLED = np.array([b",0,", b",1,"])

Array = NDArray[np.float64]
Counts = NDArray[np.int64]


class Scored(NamedTuple):
    """Scored cases: their number; for each feature, how many values are outside the range, and how many are missing.

    `sample`: (rows, features), the values of some rows.
    """

    rows: int
    outside: Counts
    missing: Counts
    sample: Array


class _Part(NamedTuple):
    """Scored cases of a batch, as lines of the output; where there are `faults` or an `error`, nothing else counts."""

    lines: bytes
    scored: Scored | None
    faults: Sequence[Fault] = ()
    error: str | None = None


class Scorer(NamedTuple):
    """What all batches are scored with: the model, the columns, the range of each feature, the share of the sample."""

    model: Pipeline
    columns: Columns
    low: Array
    high: Array
    share: float


def predict(  # noqa: PLR0913, PLR0917 - what is read, what is written, and how
    model: Pipeline,
    cases: Cases,
    about_training: dict[str, Any],
    out: BinaryIO,
    batch_bytes: int = WHOLE,
    pool: Pool = THIS_THREAD,
) -> Scored:
    """Write a model's predictions for new cases, and return what the cases are like.

    `about_training`: what ranges.describe returned. Raises DataError for what transform.py would refuse in a row, and
    for numbers that are too large to compute with.
    """
    columns, ranges = cases.columns, about_training.get("features", {})
    limits = [[_or_nan(ranges.get(name, {}).get(end)) for name in columns.feature_names] for end in ("low", "high")]
    low, high = np.array(limits)
    share = share_of_sample(cases.lines + 1, len(columns.features))
    scorer = Scorer(without_names(model), columns, low, high, share)
    parts = pool.map(partial(_score_batch, scorer=scorer), split(cases.table, batch_bytes, cases.first_line))
    return _write(parts, columns, out)


def _or_nan(number: float | None) -> float:
    return np.nan if number is None else number


def _write(parts: Iterable[_Part], columns: Columns, out: BinaryIO) -> Scored:
    """Write the lines of all batches, and add up the rest."""
    none = np.zeros(len(columns.features), dtype=np.int64)
    rows, outside, missing, samples = 0, none, none, [np.empty((0, len(none)))]
    faults: list[Fault] = []
    out.write(HEADER)
    for part in parts:
        faults += part.faults
        if len(faults) >= MOST_FAULTS:
            break
        if part.error:
            raise DataError(part.error)
        out.write(part.lines)
        if part.scored:
            rows, outside = rows + part.scored.rows, outside + part.scored.outside
            missing = missing + part.scored.missing
            samples.append(part.scored.sample)
    if faults:
        raise refusal(faults, columns)
    return Scored(rows, outside, missing, np.concatenate(samples))


def _score_batch(batch: Batch, scorer: Scorer) -> _Part:
    """Score the cases of a batch."""
    raw = read_batch(batch, scorer.columns)
    if raw.faults or raw.error or not raw.ids:
        return _Part(b"", None, raw.faults, raw.error)
    values = np.asarray(raw.values, dtype=np.float64)
    _check_size(values, scorer.columns)
    y_pred, probability = predict_rows(scorer.model, values)
    # Each number as a text that reads back to the very same float.
    numbers = orjson.dumps(probability, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    parts = zip(quote(raw.ids), CALLED[y_pred].tolist(), numbers, strict=True)
    lines = b"".join([record_id + called + number + b"\n" for record_id, called, number in parts])
    outside = ((values < scorer.low) | (values > scorer.high)).sum(axis=0)
    places = np.arange(batch.first_line, batch.first_line + len(values), dtype=np.uint64)
    is_chosen = places * GOLDEN < min(scorer.share, 1) * 2.0**64
    return _Part(lines, Scored(len(values), outside, np.isnan(values).sum(axis=0), values[is_chosen]))


def _check_size(values: Array, columns: Columns) -> None:
    """Raise DataError for numbers that are too large to compute with, as train.py does."""
    sizes = np.abs(values)
    # First over all, because that is ten times as fast.
    if np.fmax.reduce(sizes, axis=None) > LARGEST_VALUE:
        name = columns.feature_names[int(np.fmax.reduce(sizes).argmax())]
        msg = f"feature {name}: expected numbers up to {LARGEST_VALUE:g}, found a larger one"
        raise DataError(f"{msg}; correct the source")
