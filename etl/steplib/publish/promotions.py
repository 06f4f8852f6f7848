"""Which published run is in use, and since when: numbered records, which are never changed or removed.

<STORAGE_URL>/promotions/<n>.json    create-only, n from 1: each act by which a run came into use
<STORAGE_URL>/latest.json            a copy of the highest record
"""

import getpass
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from steplib.errors import DataError, UsageError
from steplib.runs import manifest
from steplib.storage import objects
from steplib.storage.places import open_storage, translate_errors

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LATEST = "latest.json"
PUBLICATION, ROLL_BACK = "publication", "roll-back"
# A run is promoted after its start, by clocks that differ by less than this.
CLOCKS_DIFFER = timedelta(days=1)

# What latest.json says.
Promotion = dict[str, Any]


def promote_published(files: "AbstractFileSystem", root: str, published: bytes, log: logging.Logger) -> None:
    """Promote a run that has just been published, if it started later than the one in use; each run only once.

    `published` is the run's manifest. Whatever it finds, it leaves latest.json as a copy of the highest record.
    """
    number, current = read_highest(files, root)
    if current and manifest.starts_in_future(current):
        log.warning(manifest.FUTURE, current["run"], current["started"])
    while _is_due(files, root, published, number, current):
        if _promote(files, root, published, number + 1, PUBLICATION):
            break
        number, current = read_highest(files, root)
    _update_latest(files, root)


def roll_back(url: str, stamp: str) -> None:
    """Promote an older run. Raises UsageError if it is not published, DataError if a file of it is missing."""
    with translate_errors(url):
        files, root = open_storage(url)
        folder = f"{root}/runs/{stamp}"
        content = objects.read(files, f"{folder}/{manifest.NAME}")
        if content is None:
            raise UsageError(f"{url}: there is no published run {stamp}; correct the stamp")
        for name, made in manifest.parse(content, f"{folder}/{manifest.NAME}")["artifacts"].items():
            if not files.exists(f"{folder}/{name}") or files.info(f"{folder}/{name}")["size"] != made["bytes"]:
                msg = f"{url}: expected the file {name} of run {stamp}, found none or one of a different size"
                raise DataError(f"{msg}; choose a different run, or repeat its etl/evaluate.py where it was made")
        while not _promote(files, root, content, read_highest(files, root)[0] + 1, ROLL_BACK):
            pass  # someone else was faster
        _update_latest(files, root)


def read_highest(files: "AbstractFileSystem", root: str) -> tuple[int, Promotion | None]:
    """Return the highest record and its number; 0 for the latest.json of an older version, or if there is none."""
    current = _read(files, f"{root}/{LATEST}")
    number = current.get("number", 0) if current else 0
    number = number if isinstance(number, int) else 0
    while record := _read(files, f"{root}/promotions/{number + 1}.json"):
        number, current = number + 1, record
    return number, current


def describe(content: bytes) -> Promotion:
    """Return what latest.json says about the run of a manifest."""
    record = manifest.parse(content, LATEST)
    return {
        "run": record["run"],
        "started": record["started"],
        "manifest": f"runs/{record['run']}/{manifest.NAME}",
        "manifest_sha256": hashlib.sha256(content).hexdigest(),
        "metrics": manifest.metrics(record) or None,
    }


def parse(content: bytes, url: str) -> Promotion:
    """Return what latest.json says. Raises DataError if it names no run."""
    try:
        latest = json.loads(content)
        manifest.STAMP.fullmatch(latest["run"])[0]  # type: ignore[index]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{url}: expected the name of a run, found something else; publish a run again") from error
    return cast("Promotion", {"started": "", **latest})


def _is_due(files: "AbstractFileSystem", root: str, published: bytes, number: int, current: Promotion | None) -> bool:
    """Return whether a published run started later than the one in use, and has not been promoted before."""
    record = manifest.parse(published, LATEST)
    if current is None:
        return True
    # Without a number or an id, an older version has published the run, and has promoted it then.
    if manifest.start(record) <= manifest.start(current) or "id" not in record:
        return False
    return all(
        (earlier["run"], earlier.get("act")) != (record["run"], PUBLICATION)
        for earlier in _records_since(files, root, number, manifest.start(record) - CLOCKS_DIFFER)
    )


def _records_since(files: "AbstractFileSystem", root: str, number: int, moment: datetime) -> Iterator[Promotion]:
    """Yield the records from the highest down to the last one before a moment."""
    for n in range(number, 0, -1):
        record = _read(files, f"{root}/promotions/{n}.json")
        if record is None or manifest.read_time(record.get("at")) < moment:
            return
        yield record


def _promote(files: "AbstractFileSystem", root: str, published: bytes, number: int, act: str) -> bool:
    """Write the record with this number; return whether no other process has."""
    record = {
        "number": number,
        **describe(published),
        "act": act,
        "verdict": None,
        "at": datetime.now(UTC).isoformat(),
        "by": _who(),
        "reason": None,
    }
    content = json.dumps(record, indent=2).encode() + b"\n"
    return objects.create(files, content, f"{root}/promotions/{number}.json") == content


def _update_latest(files: "AbstractFileSystem", root: str) -> None:
    """Make latest.json a copy of the highest record, also if there is a new one by then."""
    while number := read_highest(files, root)[0]:
        content = objects.read(files, f"{root}/promotions/{number}.json")
        if content in {None, objects.read(files, f"{root}/{LATEST}")}:
            return
        objects.send_bytes(files, content or b"", f"{root}/{LATEST}", create=False)


def _read(files: "AbstractFileSystem", path: str) -> Promotion | None:
    content = objects.read(files, path)
    try:
        return None if content is None else parse(content, path)
    except DataError:
        # A damaged latest.json is written again; a record is never damaged, because it is created at once.
        if path.endswith(LATEST):
            return None
        raise


def _who() -> str:
    """Return who acts, for the record."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container need not have names for its users
        name = str(os.getuid())
    return f"{name}@{os.uname().nodename}"
