"""The predictions that two runs stored when they had not seen the row, paired by the id."""

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from steplib.gate.rule import MOST_PERMUTED, Array, Mask, Pairs
from steplib.model.threshold import DEFAULT, is_called
from steplib.table.schema import TEST_FRACTION

HELD_OUT, OUT_OF_FOLD = "predictions.csv", "cross_validation.csv"
# Where training rows are not cross-validated, so many common test rows decide, those of smallest hash.
MOST_HELD_OUT = 20_000
# Of each run's predictions, about so many bytes are in memory at once.
BYTES_AT_ONCE = 1_000_000

# An id, and how many rows of the file had it before.
Key = tuple[str, int]


class Stored(NamedTuple):
    """A run's folder, and its threshold (None: the classifier decides in its own way)."""

    folder: Path
    threshold: float | None


class Judged(NamedTuple):
    """A row's diagnosis, its stored probability of M, and whether it was called M."""

    is_m: bool
    probability: float
    is_called: bool


def pair(before: Stored, now: Stored) -> Pairs:
    """Return the rows that champion (`before`) and challenger have both judged out of sample.

    Rows of one id are paired in file order. Memory stays flat: see BYTES_AT_ONCE.
    """
    is_validated = all((run.folder / OUT_OF_FOLD).is_file() for run in (before, now))
    if is_validated:
        old, new = _read(before, [HELD_OUT, OUT_OF_FOLD]), _read(now, [HELD_OUT, OUT_OF_FOLD])
        keys = [key for key in new if key in old]
    else:
        old, new, keys = _read_held_out(before, now)
    if len(keys) <= MOST_PERMUTED:
        keys = _in_file_order(keys, now.folder / "clear_data.csv")
    is_m, p_new, m_new = _columns([new[key] for key in keys])
    _, p_old, m_old = _columns([old[key] for key in keys])
    changed = sum(old[key].is_m != new[key].is_m for key in keys)
    return Pairs(is_m, p_old, p_new, m_old, m_new, changed)


def _columns(rows: list[Judged]) -> tuple[Mask, Array, Mask]:
    is_m, probability, called = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    return is_m > 0, probability, called > 0


def _read_held_out(before: Stored, now: Stored) -> tuple[dict[Key, Judged], dict[Key, Judged], list[Key]]:
    """Return the test rows of both runs, as many as are needed, and those in both of smallest hash."""
    parts = 1 + max((run.folder / HELD_OUT).stat().st_size for run in (before, now)) // BYTES_AT_ONCE
    old: dict[Key, Judged] = {}
    new: dict[Key, Judged] = {}
    keys: list[Key] = []
    for part in range(parts):
        # Test rows are those whose hash, as a fraction of its range, is below TEST_FRACTION.
        low, high = (int(TEST_FRACTION * 2**64 * end / parts).to_bytes(9, "big")[1:] for end in (part, part + 1))
        old_part, new_part = (_read(run, [HELD_OUT], (low, high)) for run in (before, now))
        common = sorted((key for key in new_part if key in old_part), key=lambda key: (_hash(key[0]), key[1]))
        common = common[: MOST_HELD_OUT - len(keys)]
        old |= {key: old_part[key] for key in common}
        new |= {key: new_part[key] for key in common}
        keys += common
        if len(keys) == MOST_HELD_OUT:
            break
    return old, new, keys


def _hash(record_id: str) -> bytes:
    return hashlib.sha256(record_id.encode()).digest()


def _read(run: Stored, names: list[str], between: tuple[bytes, bytes] | None = None) -> dict[Key, Judged]:
    """Return rows of a run's predictions; `between`: only those whose hash is from the first to below the second."""
    found: dict[Key, Judged] = {}
    # A classifier without a threshold has 0.5 in its metrics.
    threshold = None if run.threshold == DEFAULT else run.threshold
    seen: Counter[str] = Counter()
    for name in names:
        for row in _rows(run.folder / name, between):
            probability = float(row["probability"])
            called = row["y_pred"] == "1" if "y_pred" in row else bool(is_called(np.array(probability), threshold))
            found[row["id"], seen[row["id"]]] = Judged(row["y_true"] == "1", probability, called)
            seen[row["id"]] += 1
    return found


def _in_file_order(keys: list[Key], clear: Path) -> list[Key]:
    wanted = set(keys)
    with clear.open(encoding="utf-8", newline="") as file:
        return [key for key in number(record_id for record_id, *_ in csv.reader(file)) if key in wanted]


def number(ids: Iterable[str]) -> Iterator[Key]:
    """Yield each id with the number of rows that had it before, which together are unique."""
    seen: Counter[str] = Counter()
    for record_id in ids:
        yield record_id, seen[record_id]
        seen[record_id] += 1


def _rows(path: Path, between: tuple[bytes, bytes] | None) -> Iterator[dict[str, str]]:
    """Yield rows by the columns' names; the first column has the ids, by which they are chosen before all else."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=True)
        names = next(reader, [])
        for cells in reader:
            if cells and (not between or between[0] <= _hash(cells[0])[:8] < between[1]):
                yield dict(zip(names, cells, strict=True))
