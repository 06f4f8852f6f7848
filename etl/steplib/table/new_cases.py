"""The columns of new cases, which are matched with a model's features."""

from collections.abc import Sequence
from typing import NamedTuple

from steplib.errors import DataError, shorten
from steplib.table.csvfile import Csv, Row, first_rows
from steplib.table.schema import (
    DIAGNOSIS,
    ID,
    MISSING,
    TARGET,
    Columns,
    check_unique,
    name_columns,
    of_records,
    read_number,
)

# Of features that are missing, the first are named.
MOST_NAMES = 20


class Cases(NamedTuple):
    """New cases: the table, its columns, the line number of the first case, from 1, and how many lines there are."""

    table: Csv
    columns: Columns
    first_line: int
    lines: int


def find_cases(table: Csv, features: Sequence[str], lines: int) -> Cases:
    """Find a model's features in a table of new cases. Raises DataError if they are not there; see match_columns."""
    head = first_rows(table)
    columns = match_columns(head, features)
    return Cases(table, columns, head[int(columns.has_header)][0], lines)


def match_columns(head: list[Row], features: Sequence[str]) -> Columns:
    """Find the columns of new cases by the first two rows.

    A header is matched by name, in any order. Without one, the columns must be the id, perhaps the diagnosis, and the
    features in the model's order. Raises DataError for anything else.
    """
    if not head:
        raise DataError("expected rows of data, found an empty file; check the source")
    line, (first, *rest) = head[0][0], ([cell.strip() for cell in cells] for _, cells in head)
    if not _is_header(first, features):
        return _without_header(first, line, features)
    if not rest:
        raise DataError("expected rows of data, found a header line alone; check the source")
    names = name_columns(first, rest[0])
    check_unique(names, line, "the header line")
    if missing := [name for name in features if name not in names]:
        found = f"found none for {shorten(missing, MOST_NAMES)}"
        raise DataError(f"line {line}: expected a column for each feature of the model, {found}; add it at the source")
    position = names.index(ID) if ID in names else 0
    if names[position] in {DIAGNOSIS, TARGET, *features}:
        msg = f"line {line}: expected a column named {ID}, or the ids in column 1, found {names[position]} in column 1"
        raise DataError(f"{msg}; add the ids at the source")
    return Columns(names, [names.index(name) for name in features], position, None, has_header=True)


def _is_header(first: list[str], features: Sequence[str]) -> bool:
    """Return whether the first row names features; strict, because its cells may be shown.

    A single name may be somebody's id, unless there is no number beside it.
    """
    known = {*features} & {*first}
    return len(known) > 1 or (bool(known) and not any(read_number(cell) is not None for cell in first))


def _without_header(first: list[str], line: int, features: Sequence[str]) -> Columns:
    if not any(cell.lower() in MISSING or read_number(cell) is not None for cell in first[1:]):
        msg = (
            f"line {line}: expected the names of the model's features ({shorten(features)}), or numbers, found neither"
        )
        raise DataError(f"{msg}; correct the header at the source")
    number = len(features)
    if len(first) == number + 1:
        return Columns([ID, *features], range(1, number + 1), target=None)
    if len(first) == number + 2:
        return of_records(features, has_header=False)._replace(is_diagnosed=False)
    expected = f"{number + 1} columns (id, features) or {number + 2} (id, B or M, features)"
    msg = f"line {line}: expected {expected}, because no header names the features, found {len(first)}"
    raise DataError(f"{msg}; add a header at the source")
