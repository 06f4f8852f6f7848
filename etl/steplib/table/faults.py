"""What is wrong at which place of a table, and the error that says so without any value."""

from collections.abc import Sequence
from typing import NamedTuple

from steplib.errors import DataError
from steplib.table.schema import Columns

BAD_TARGET = "невалидные данные в target"
MOST_FAULTS = 10
LONGEST_NAME_SHOWN = 60


class Fault(NamedTuple):
    """What is wrong at one place; lines and columns count from 1, column 0 is the whole line."""

    line: int
    column: int
    found: str


def refusal(faults: Sequence[Fault], columns: Columns) -> DataError:
    """Return one line with the first faults: places, and what is wrong there, but no value."""
    faults = faults[:MOST_FAULTS]
    # Diagnoses of new cases are only read to find shifted columns.
    target = columns.target + 1 if columns.target is not None and columns.is_diagnosed else None
    bad_target = any(fault.column == target for fault in faults)
    places = "; ".join(_describe(fault, columns) for fault in faults)
    lead = f"{BAD_TARGET}: expected B or M" if bad_target else "invalid data"
    taken = "; line 1 was read as data, not as a header" if faults[0].line == 1 else ""
    rest = f" (the first {MOST_FAULTS}; there may be more)" if len(faults) >= MOST_FAULTS else ""
    return DataError(f"{lead}; found at {places}{rest}{taken}; correct these places at the source")


def _describe(fault: Fault, columns: Columns) -> str:
    if not fault.column:
        return f"line {fault.line}: {fault.found}"
    name = columns.names[fault.column - 1][:LONGEST_NAME_SHOWN]
    return f"line {fault.line}, column {fault.column} ({name}): {fault.found}"
