"""Which published run is in use, and since when: numbered records, which are never changed or removed.

<STORAGE_URL>/promotions/<n>.json    create-only, n from 1: each act by which a run came into use
<STORAGE_URL>/latest.json            a copy of the highest record
"""

import getpass
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from steplib.errors import DataError, PipelineError, UsageError
from steplib.publish.records import LATEST, Promotion, find_highest, number_of, path_of, read, read_highest
from steplib.runs import manifest
from steplib.storage import objects
from steplib.storage.places import open_storage, translate_errors

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PUBLICATION, ROLL_BACK = "publication", "roll-back"
# A run is promoted after its start, by clocks that differ by less than this.
CLOCKS_DIFFER = timedelta(days=1)
# How long the process that has made a record may take to copy it to latest.json.
SECONDS_TO_COPY = 1


def promote_published(
    files: "AbstractFileSystem", root: str, published: bytes, log: logging.Logger, *, is_new: bool
) -> None:
    """Promote a published run, if it started later than the one in use; each run only once.

    `published` is the run's manifest, and `is_new` says whether it was published just now. Whatever it finds, it leaves
    latest.json as a copy of the highest record.
    """
    number, current = read_highest(files, root)
    if current and manifest.starts_in_future(current):
        log.warning(manifest.FUTURE, current["run"], current["started"])
    # Older versions gave runs no id, and promoted them without a record when they published them.
    may_be_due = is_new or current is None or "id" in manifest.parse(published, LATEST)
    own = None
    while may_be_due and _is_due(files, root, published, number, current):
        if own := _promote(files, root, published, number + 1, PUBLICATION):
            break
        number, current = read_highest(files, root)
    _update_latest(files, root, own)


def roll_back(url: str, stamp: str) -> None:
    """Promote an older run. Raises UsageError if it is not published, DataError if a file of it is missing."""
    with translate_errors(url):
        files, root = open_storage(url)
        _, before = read_highest(files, root)
        own = _promote_next(files, root, _read_whole(files, root, stamp, url))
        try:
            # A pruning that had not seen the record may have removed the run.
            _read_whole(files, root, stamp, url)
        except PipelineError:
            if before:
                own = _promote_next(files, root, _read_whole(files, root, before["run"], url))
            raise
        finally:
            _update_latest(files, root, own)


def _promote_next(files: "AbstractFileSystem", root: str, published: bytes) -> bytes:
    """Write the next record of a roll-back and return it."""
    while not (own := _promote(files, root, published, read_highest(files, root)[0] + 1, ROLL_BACK)):
        pass  # someone else was faster
    return own


def _read_whole(files: "AbstractFileSystem", root: str, stamp: str, url: str) -> bytes:
    """Return the manifest of a published run whose files are all there with their sizes."""
    folder = f"{root}/runs/{stamp}"
    content = objects.read(files, f"{folder}/{manifest.NAME}")
    if content is None:
        raise UsageError(f"{url}: there is no published run {stamp}; correct the stamp")
    for name, made in manifest.parse(content, f"{folder}/{manifest.NAME}")["artifacts"].items():
        if objects.size(files, f"{folder}/{name}") != made["bytes"]:
            msg = f"{url}: expected the file {name} of run {stamp}, found none or one of a different size"
            raise DataError(f"{msg}; choose a different run, or repeat its etl/evaluate.py where it was made")
    return content


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


def _is_due(files: "AbstractFileSystem", root: str, published: bytes, number: int, current: Promotion | None) -> bool:
    """Return whether a published run started later than the one in use, and has not been promoted before."""
    record = manifest.parse(published, LATEST)
    if current is None:
        return True
    if manifest.start(record) <= manifest.start(current):
        return False
    return all(
        (earlier["run"], earlier.get("act")) != (record["run"], PUBLICATION)
        for earlier in _records_since(files, root, number, manifest.start(record) - CLOCKS_DIFFER)
    )


def _records_since(files: "AbstractFileSystem", root: str, number: int, moment: datetime) -> Iterator[Promotion]:
    """Yield the records from the highest down to the last one before a moment."""
    for n in range(number, 0, -1):
        record = read(files, root, n)
        # Only the clock of a machine that publishes is compared; anyone may roll back.
        if record and record.get("act") == PUBLICATION and manifest.read_time(record.get("at")) < moment:
            return
        if record:
            yield record


def _promote(files: "AbstractFileSystem", root: str, published: bytes, number: int, act: str) -> bytes | None:
    """Write the record with this number and return it; None if a different process has written it."""
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
    return content if objects.create(files, content, path_of(root, number)) == content else None


def _update_latest(files: "AbstractFileSystem", root: str, own: bytes | None) -> None:
    """Make latest.json a copy of the highest record, also if there is a new one by then.

    Each process copies its own record, once the one before has been copied, so that a slow one never replaces a newer
    copy. What a process that was killed has not copied is copied by the next one.
    """
    waiting_for, end = 0, 0.0
    while True:
        latest = objects.read(files, f"{root}/{LATEST}")
        number, content = find_highest(files, root, latest)
        if not number or content in {None, latest}:
            return
        if number != waiting_for:
            waiting_for, end = number, time.monotonic() + SECONDS_TO_COPY
        if own and number_of(latest) == number_of(own) - 1:
            objects.send_bytes(files, own, f"{root}/{LATEST}", create=False)
        elif time.monotonic() > end:
            objects.send_bytes(files, content or b"", f"{root}/{LATEST}", create=False)
        else:
            time.sleep(SECONDS_TO_COPY / 20)


def _who() -> str:
    """Return who acts, for the record."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container need not have names for its users
        name = str(os.getuid())
    return f"{name}@{os.uname().nodename}"
