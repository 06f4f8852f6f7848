"""The run in use, with the files that a new run is compared with."""

from pathlib import Path
from typing import Any, NamedTuple

from steplib.errors import DataError
from steplib.gate.pairs import HELD_OUT, OUT_OF_FOLD, Stored
from steplib.runs import manifest
from steplib.runs.records import nearest, read_highest
from steplib.runs.stores import Store

CLEAR = "clear_data.csv"
LIMIT = 1e15


class Champion(NamedTuple):
    """The run in use; `problem` says why its files cannot be read, if so."""

    stamp: str
    record: manifest.Record
    folder: Path
    problem: str | None


def find(store: Store, scratch: Path) -> tuple[int, Champion | None]:
    """Return the number of the last promotion, and the run in use; files from a storage are put into `scratch`."""
    number, current = read_highest(store)
    if current is None:
        return number, None
    stamp, expected = current["run"], current.get("manifest_sha256")
    record, folder, problem = open_run(nearest(store, current), stamp, scratch, expected)
    return number, Champion(stamp, record or {"run": stamp, "started": current["started"]}, folder, problem)


def open_run(
    store: Store, stamp: str, scratch: Path, expected: str | None = None
) -> tuple[manifest.Record | None, Path, str | None]:
    """Return a run's manifest and folder, and what is wrong with its files; `expected`: the sha256 of its manifest."""
    folder = store.bring(stamp, [manifest.NAME], scratch)
    path = folder / manifest.NAME
    if not path.is_file():
        return None, folder, f"run {stamp}, which is in use, is not in {store.name}"
    try:
        record = manifest.read(folder)
    except DataError:
        record = None
    if record is None or record["run"] != stamp or expected not in {None, manifest.sha256(path)}:
        return None, folder, f"run {stamp}, which is in use, has a manifest that has changed"
    names = [name for name in (CLEAR, HELD_OUT, OUT_OF_FOLD) if name in record["artifacts"]]
    store.bring(stamp, names, scratch)
    for name in {CLEAR, HELD_OUT, *names}:
        made = record["artifacts"].get(name)
        if made is None or not (folder / name).is_file() or manifest.sha256(folder / name) != made["sha256"]:
            return record, folder, f"run {stamp}, which is in use, has a {name} that is missing or has changed"
    return record, folder, None


def stored(folder: Path, metrics: dict[str, Any]) -> Stored:
    """Return what a run stored about rows that it had not seen; its metrics have the threshold."""
    threshold = metrics.get("threshold")
    # A manifest from elsewhere may hold anything.
    if not isinstance(threshold, int | float) or abs(threshold) >= LIMIT:
        return Stored(folder, None)
    return Stored(folder, float(threshold))
