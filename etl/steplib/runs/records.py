"""Which run is in use, and since when: numbered records in a store, which are never changed or removed.

promotions/<n>.json    create-only, n from 1: each act by which a run came into use
latest.json            a copy of the highest record
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from steplib.errors import DataError
from steplib.runs import manifest, registry
from steplib.runs.folders import results, runs
from steplib.runs.stores import Disk, Store

LATEST = "latest.json"
READS_AT_ONCE = 4
# No store holds as many records.
LIMIT = 10**9
# The acts; the second name of each is that of older versions.
GATE, ROLL_BACK, PROMOTE = ("gate", "publication"), ("rollback", "roll-back"), ("promote",)

# What latest.json says.
Promotion = dict[str, Any]


def read_highest(store: Store) -> tuple[int, Promotion | None]:
    """Return the highest number, and the highest record that can be read.

    Without a record, the number is 0, and what an older version has left counts: latest.json, or results/latest.
    """
    number, content = find_highest(store, store.read(LATEST))
    return number, _parse_leniently(content) or (_linked() if isinstance(store, Disk) and not number else None)


def _linked() -> Promotion | None:
    stamp = registry.latest_stamp()
    return {"run": stamp, "started": manifest.read_leniently(runs() / stamp)["started"]} if stamp else None


def nearest(store: Store, promotion: Promotion) -> Store:
    """Return where to read a promoted run: this disk if the same run is on it, else the store that promoted it."""
    path = runs() / promotion["run"] / manifest.NAME
    is_here = path.is_file() and manifest.sha256(path) == promotion.get("manifest_sha256")
    return Disk(results()) if is_here else store


def read_all(store: Store) -> list[tuple[int, Promotion | None]]:
    """Return all records with their numbers, the highest first; None for a record that cannot be read."""
    number, current = read_highest(store)
    if not number:
        return [(0, current)] if current else []
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        return list(pool.map(lambda n: (n, read(store, n)), range(number, 0, -1)))


def read_before(store: Store) -> Promotion | None:
    """Return the record of the run that was in use before: each roll-back goes one promotion further back."""
    number, current = read_highest(store)
    # The promotion by which the run in use, to which one may have gone back, came into use first.
    for n in range(number, 0, -1):
        record = read(store, n) or {}
        if record.get("run") == (current or {}).get("run") and record.get("act") not in ROLL_BACK:
            number = n
            break
    stamp = (current or {}).get("run")
    earlier = (read(store, n) for n in range(number - 1, 0, -1))
    return next((found for found in earlier if found and found["run"] != stamp), None) or _before_records(store, stamp)


def _before_records(store: Store, stamp: str | None) -> Promotion | None:
    """Return the run that was in use before the first record, if that was made by comparing with one."""
    verdict = (read(store, 1) or {}).get("verdict")
    against = verdict.get("against") if isinstance(verdict, dict) else None
    is_other = isinstance(against, str) and manifest.STAMP.fullmatch(against) and against != stamp
    return {"run": against, "started": ""} if is_other else None


def in_use_and_before(store: Store) -> set[str]:
    """Return the stamps of the run in use and of the one to which a roll-back would go."""
    return {found["run"] for found in (read_highest(store)[1], read_before(store)) if found}


def parse(content: bytes, url: str) -> Promotion:
    """Return what latest.json says. Raises DataError if it names no run."""
    try:
        latest = json.loads(content)
        manifest.STAMP.fullmatch(latest["run"])[0]  # type: ignore[index]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{url}: expected the name of a run, found something else; publish a run again") from error
    return cast("Promotion", {"started": "", **latest})


def find_highest(store: Store, latest: bytes | None) -> tuple[int, bytes | None]:
    """Return the highest number and the content of the highest record that can be read, upwards from latest.json."""
    number = number_of(latest)
    content = store.read(path_of(number)) if number else None
    if content is None:
        number = 0  # the latest.json of an older version, or one that is damaged
    if not _parse_leniently(content):
        content = latest if _parse_leniently(latest) else None
    while (record := store.read(path_of(number + 1))) is not None:
        number += 1
        content = record if _parse_leniently(record) else content
    return number, content


def path_of(number: int) -> str:
    """Return where in a store the record with this number is."""
    return f"promotions/{number}.json"


def number_of(content: bytes | None) -> int:
    """Return the number of the record that latest.json is a copy of; 0 if there is none."""
    number = (_parse_leniently(content) or {}).get("number")
    return number if type(number) is int and 0 < number < LIMIT else 0


def read(store: Store, number: int) -> Promotion | None:
    """Return the record with this number; None if there is none, or it cannot be read."""
    return _parse_leniently(store.read(path_of(number)))


def _parse_leniently(content: bytes | None) -> Promotion | None:
    """Return what latest.json or a record says; None if there is none, or it names no run."""
    try:
        return None if content is None else parse(content, LATEST)
    except DataError:
        return None


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
