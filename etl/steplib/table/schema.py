"""The table's columns, B and M, what counts as missing, and which rows are test rows."""

import hashlib
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from steplib.errors import DataError
from steplib.table.csvfile import LEAST_COLUMNS, Row

ID, DIAGNOSIS, TARGET = "id", "diagnosis", "target"
TARGET_CODES = {"B": 0, "M": 1}
MISSING = {"", "na", "nan", "null", "?"}
TEST_FRACTION = 0.2
# As the first eight bytes of a hash.
TEST_BELOW = int(TEST_FRACTION * 2**64).to_bytes(8, "big")
# Of cross-validation, among the training rows.
FOLDS = 10
SPLIT = (
    f"test rows: sha256 of the id, as a fraction of its range, below {TEST_FRACTION}; "
    f"fold: bytes 8 to 16 of it, as a fraction of their range, times {FOLDS}"
)

# Ten measurements of the cell nuclei, each as mean, standard error and worst: the standard names of the WDBC data.
WDBC_FEATURES = [
    f"{measurement}_{kind}"
    for kind in ("mean", "se", "worst")
    for measurement in (
        *("radius", "texture", "perimeter", "area", "smoothness"),
        *("compactness", "concavity", "concave_points", "symmetry", "fractal_dimension"),
    )
]


class Columns(NamedTuple):
    """The names of all columns, and the positions of those that are read, counted from 0.

    `target` None: it is not read; `is_diagnosed`: whether a missing diagnosis is a fault.
    """

    names: list[str]
    features: Sequence[int]
    id: int = 0
    target: int | None = 1
    has_header: bool = False
    is_diagnosed: bool = True

    @property
    def feature_names(self) -> list[str]:
        """The names of the features."""
        return [self.names[position] for position in self.features]

    @property
    def unused(self) -> list[str]:
        """The names of the columns that are neither ids nor features."""
        used = {self.id, *self.features}
        return [name for position, name in enumerate(self.names) if position not in used]


def of_records(features: Sequence[str], *, has_header: bool) -> Columns:
    """Return the columns of diagnosed cases; the first two names say what they are, not what the source calls them."""
    return Columns([ID, DIAGNOSIS, *features], range(2, len(features) + 2), has_header=has_header)


def find_columns(first_rows: list[Row]) -> Columns:
    """Find the columns from the first two rows. Raises DataError if there is no row of data."""
    if not first_rows:
        raise DataError("expected rows of data, found an empty file; check the source")
    line, (first, *rest) = first_rows[0][0], ([cell.strip() for cell in cells] for _, cells in first_rows)
    if len(first) < LEAST_COLUMNS:
        msg = f"expected record id, diagnosis and at least one feature, found {len(first)} column(s)"
        raise DataError(f"{msg}; correct the first line at the source")
    # If both rows look like names, both are data: a value must never be taken for a name and then be logged.
    if not _holds_names(first) or (rest and _holds_names(rest[0])):
        count = len(first) - 2
        features = WDBC_FEATURES if count == len(WDBC_FEATURES) else [f"feature_{i}" for i in range(1, count + 1)]
        return of_records(features, has_header=False)
    if not rest:
        raise DataError("expected rows of data, found a header line alone; check the source")
    names = name_columns(first, rest[0])
    check_unique(names, line, "the header line")
    check_unique([ID, TARGET, *names[2:]], line, "clear_data.csv")
    return of_records(names[2:], has_header=True)


def _holds_names(cells: list[str]) -> bool:
    """Return whether these are names: no number in column 1, no B or M in column 2, words from column 3 on."""
    features = [cell for cell in cells[2:] if cell.lower() not in MISSING]
    # Strict on purpose: mistaking a row for a header loses a patient and prints their values as column names.
    words = all(re.match(r"[^\W\d]|_", name) and name.lower() not in {"inf", "infinity"} for name in features)
    return bool(features) and words and cells[1] not in TARGET_CODES and not re.match(r"[-+]?[0-9.,]+$", cells[0])


def name_columns(header: list[str], row: list[str]) -> list[str]:
    """Return the names in a header, and a name for each column that has none."""
    # Kaggle's data.csv ends its header with a comma that the rows do not have.
    without_end = header[:-1] if not header[-1] and len(row) == len(header) - 1 else header
    return [name or f"column_{number}" for number, name in enumerate(without_end, start=1)]


def check_unique(names: list[str], line: int, where: str) -> None:
    """Raise DataError if a name occurs twice."""
    first: dict[str, int] = {}
    for number, name in enumerate(names, start=1):
        if first.setdefault(name, number) != number:
            found = f"found the same name in columns {first[name]} and {number}"
            raise DataError(f"line {line}: expected a different name for each column of {where}, {found}; rename one")


def read_number(text: str) -> float | None:
    """Return the number in a text, or None if it is not a finite number."""
    # float() would also accept digits of other scripts and 1_000.
    if not text.isascii() or "_" in text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def is_test(record_id: str) -> bool:
    """Return whether a record is held out.

    The id alone decides, so a record stays on its side at every retraining, in any batch and on any machine
    (the stable-hash split of Géron, Hands-On Machine Learning, chapter 2).
    """
    return hashlib.sha256(record_id.encode()).digest() < TEST_BELOW


def fold_of(record_id: str) -> int:
    """Return the fold of a training row, 0 to 9; the id alone decides, so that no row changes fold when others come."""
    return int.from_bytes(hashlib.sha256(record_id.encode()).digest()[8:16], "big") * FOLDS >> 64
