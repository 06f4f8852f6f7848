"""The acts by which a run comes into use; each is a numbered record that is never changed or removed (records.py).

gate        evaluate.py: the verdict allows it, or GATE=off
promote     runs.py promote, or a person's approval in Airflow
rollback    runs.py rollback
"""

import getpass
import json
import logging
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from steplib.errors import DataError, PipelineError, UsageError
from steplib.gate import verdicts
from steplib.runs import manifest, records, registry
from steplib.runs.folders import results
from steplib.runs.records import GATE, LATEST, PROMOTE, ROLL_BACK, Promotion, number_of, path_of, read_highest
from steplib.runs.run import Run
from steplib.runs.stores import Disk, Store, open_store
from steplib.settings import Settings

Names = tuple[str, ...]
# A run is promoted after its start, by clocks that differ by less than this.
CLOCKS_DIFFER = timedelta(days=1)
# How long the process that has made a record may take to copy it to latest.json.
SECONDS_TO_COPY = 1


def settle(run: Run, settings: Settings, log: logging.Logger) -> None:
    """Bring a finished run into use if its verdict allows it, only once, and show the run in use as results/latest.

    If another run has come into use since the verdict, the run is judged again, against that one. Whatever it finds, it
    leaves latest.json as a copy of the highest record.
    """
    # Imported here, because acts by hand need neither numpy nor scikit-learn.
    from steplib.gate.judging import judge_again

    record, path = manifest.read(run.folder), f"runs/{run.stamp}/{verdicts.NAME}"
    with open_store(settings.storage_url) as store:
        verdict = verdicts.choose(store.read(path), record)
        number, current = read_highest(store)
        if current and manifest.starts_in_future(current):
            log.warning(manifest.FUTURE, current["run"], current["started"])
        own = None
        while (verdict is None or verdict["promotes"]) and not _was_promoted(store, record, number, current):
            if verdict is None or (verdict["record"], verdict.get("against")) != (number, current and current["run"]):
                verdict = judge_again(run, manifest.metrics(record), settings, log)["verdict"]
                if not verdict["promotes"]:
                    store.create(path, json.dumps(verdict, indent=2).encode() + b"\n")
            elif own := _write(store, run.stamp, number + 1, _act_of(GATE, _who(), verdict["reason"], verdict)):
                break
            number, current = read_highest(store)
        if (second := store.read(path)) is not None:
            # For those who look on this disk alone.
            Disk(results()).replace(path, second)
        _update_latest(store, own)
        show_latest(store, log)


def show_latest(store: Store, log: logging.Logger) -> None:
    """Point results/latest at the run in use, if it is on this disk; else remove it, and log where that run is."""
    shown = None
    # Again if there is a newer one by then.
    while (current := read_highest(store)[1]) and current["run"] != shown:
        shown = current["run"]
        if not registry.point_latest_at(shown):
            log.info("run %s, which is in use, is not on this disk; it is in %s", shown, store.name)


def promote(url: str, stamp: str, by: str | None, reason: str) -> None:
    """Bring a run into use by hand. Raises UsageError if it is not there, DataError if a file of it is missing."""
    with open_store(url) as store:
        _act(store, stamp, PROMOTE, by, reason)


def roll_back(url: str, stamp: str | None, by: str | None, reason: str | None) -> str:
    """Bring an older run into use, and return its stamp; without a stamp, the run that was in use before."""
    with open_store(url) as store:
        if stamp is None:
            before = records.read_before(store)
            if before is None:
                raise UsageError(f"{store.name}: no run was in use before; name one: runs.py list shows them")
            stamp = str(before["run"])
            if store.read(f"runs/{stamp}/{manifest.NAME}") is None:
                msg = f"{store.name}: run {stamp}, which was in use before, has been removed"
                raise UsageError(f"{msg}; name another one: runs.py list shows them")
        _act(store, stamp, ROLL_BACK, by, reason)
    return stamp


def _act(store: Store, stamp: str, names: Names, by: str | None, reason: str | None) -> None:
    """Write the next record for a run that is whole."""

    def write(stamp: str) -> bytes:
        verdict = verdicts.choose(store.read(f"runs/{stamp}/{verdicts.NAME}"), _read_whole(store, stamp))
        record = _act_of(names, by or _who(), reason, verdict)
        while not (own := _write(store, stamp, read_highest(store)[0] + 1, record)):
            pass  # someone else was faster
        return own

    _, before = read_highest(store)
    own = write(stamp)
    try:
        # A pruning that had not seen the record may have removed the run.
        _read_whole(store, stamp)
    except PipelineError:
        if before:
            own = write(before["run"])
        raise
    finally:
        _update_latest(store, own)


def _read_whole(store: Store, stamp: str) -> manifest.Record:
    """Return the manifest of a finished run whose files are all there with their sizes."""
    path = f"runs/{stamp}/{manifest.NAME}"
    content = store.read(path)
    record = None if content is None else manifest.parse(content, path)
    if record is None or not manifest.is_finished(record):
        raise UsageError(f"{store.name}: there is no finished run {stamp}; correct the stamp")
    for name, made in record["artifacts"].items():
        if store.size(f"runs/{stamp}/{name}") != made["bytes"]:
            msg = f"{store.name}: expected the file {name} of run {stamp}, found none or one of a different size"
            raise DataError(f"{msg}; choose a different run, or repeat its etl/evaluate.py where it was made")
    return record


def _was_promoted(store: Store, record: manifest.Record, number: int, current: Promotion | None) -> bool:
    """Return whether a run has been in use before, so that the gate must not bring it into use again."""
    if current is None:
        return False
    # Older versions gave runs no id, and promoted them without a record when they published them.
    if current["run"] == record["run"] or "id" not in record:
        return True
    return any(
        earlier["run"] == record["run"]
        for earlier in _records_since(store, number, manifest.start(record) - CLOCKS_DIFFER)
    )


def _records_since(store: Store, number: int, moment: datetime) -> Iterator[Promotion]:
    """Yield the records from the highest down to the last one before a moment."""
    for n in range(number, 0, -1):
        record = records.read(store, n)
        # Only the clock of a machine that evaluates is compared; anyone may act by hand.
        if record and record.get("act") in GATE and manifest.read_time(record.get("at")) < moment:
            return
        if record:
            yield record


def _act_of(names: Names, by: str, reason: str | None, verdict: verdicts.Verdict | None) -> Promotion:
    return {"act": names[0], "verdict": verdict, "by": by, "reason": reason}


def _write(store: Store, stamp: str, number: int, act: Promotion) -> bytes | None:
    """Write the record with this number and return it; None if a different process has written it."""
    described = records.describe(store.read(f"runs/{stamp}/{manifest.NAME}") or b"")
    record = {"number": number, **described, **act, "at": datetime.now(UTC).isoformat()}
    content = json.dumps(record, indent=2).encode() + b"\n"
    return content if store.create(path_of(number), content) == content else None


def _update_latest(store: Store, own: bytes | None) -> None:
    """Make latest.json a copy of the highest record, also if there is a new one by then.

    Each process copies its own record, once the one before has been copied, so that a slow one never replaces a newer
    copy. What a process that was killed has not copied is copied by the next one.
    """
    waiting_for, end = 0, 0.0
    while True:
        latest = store.read(LATEST)
        number, content = records.find_highest(store, latest)
        if not number or content in {None, latest}:
            return
        if number != waiting_for:
            waiting_for, end = number, time.monotonic() + SECONDS_TO_COPY
        if own and number_of(latest) == number_of(own) - 1:
            store.replace(LATEST, own)
        elif time.monotonic() > end:
            store.replace(LATEST, content or b"")
        else:
            time.sleep(SECONDS_TO_COPY / 20)


def _who() -> str:
    """Return who acts, for the record."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container need not have names for its users
        name = str(os.getuid())
    return f"{name}@{os.uname().nodename}"
