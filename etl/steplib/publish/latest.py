"""latest.json: which published run is in use."""

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from steplib.errors import DataError, UsageError
from steplib.runs import manifest
from steplib.storage import objects
from steplib.storage.places import open_storage, translate_errors

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

NAME = "latest.json"
# The start of the newest run at the time of a roll-back, which lasts until a run that started later is published.
ROLLED_BACK_FROM = "rolled_back_from"
# Stamps are local times, and those of one moment differ by at most this.
ZONES_DIFFER = timedelta(days=2)
READS_AT_ONCE = 4

# The content of manifests, by the stamps of their runs.
Manifests = dict[str, bytes]


def advance(files: "AbstractFileSystem", root: str, published: bytes, log: logging.Logger) -> None:
    """Make latest.json name the newest published run; after a roll-back, only one that started later than all then.

    `published` is the manifest of the run that has just been published.
    """
    found = _read_candidates(files, root, published)
    for stamp, content in found.items():
        record = manifest.parse_leniently(content, stamp)
        if manifest.starts_in_future(record):
            log.warning(manifest.FUTURE, stamp, record["started"])
    target = None
    while (newest := _newest(found)) != target:
        target = newest
        before = objects.read(files, f"{root}/{NAME}")
        rolled_back = _rolled_back_from(before)
        if rolled_back is None or _start(newest, found) > rolled_back:
            _write(files, root, describe(found[newest]), before)
        # A different run may have been published between reading and writing.
        found = _read_candidates(files, root, published)


def roll_back(url: str, stamp: str) -> None:
    """Make latest.json name an older run, until a run is published that started later than all those published now."""
    with translate_errors(url):
        files, root = open_storage(url)
        found = read_manifests(files, root)
        if stamp not in found:
            raise UsageError(f"{url}: there is no published run {stamp}; correct the stamp")
        manifest.parse(found[stamp], f"{stamp}/{manifest.NAME}")
        mark = {ROLLED_BACK_FROM: _start(_newest(found), found).isoformat()}
        _write(files, root, describe(found[stamp]) | mark, None)


def describe(content: bytes) -> dict[str, Any]:
    """Return what latest.json says about the run of a manifest."""
    record = manifest.parse(content, NAME)
    return {
        "run": record["run"],
        "started": record["started"],
        "manifest": f"runs/{record['run']}/{manifest.NAME}",
        "manifest_sha256": hashlib.sha256(content).hexdigest(),
        "metrics": manifest.metrics(record) or None,
    }


def parse(content: bytes, url: str) -> dict[str, Any]:
    """Return what latest.json says. Raises DataError if it names no run."""
    try:
        latest = json.loads(content)
        manifest.STAMP.fullmatch(latest["run"])[0]  # type: ignore[index]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{url}: expected the name of a run, found something else; publish a run again") from error
    return cast("dict[str, Any]", latest)


def read_manifests(files: "AbstractFileSystem", root: str, since: str = "") -> Manifests:
    """Return the manifests of the published runs, from the stamp `since` on."""
    try:
        names = [path.rstrip("/").rpartition("/")[2] for path in files.ls(f"{root}/runs", detail=False)]
    except FileNotFoundError:
        return {}
    stamps = sorted(name for name in names if manifest.STAMP.fullmatch(name) and name >= since)
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        contents = pool.map(lambda stamp: objects.read(files, f"{root}/runs/{stamp}/{manifest.NAME}"), stamps)
    return {stamp: content for stamp, content in zip(stamps, contents, strict=True) if content is not None}


def _read_candidates(files: "AbstractFileSystem", root: str, published: bytes) -> Manifests:
    """Return the manifests of a run and of all that may have started later."""
    record = manifest.parse(published, NAME)
    start = manifest.start(record)
    since = "" if start == manifest.EARLIEST else (start - ZONES_DIFFER).strftime(manifest.STAMP_FORMAT)
    return {record["run"]: published, **read_manifests(files, root, since)}


def _newest(found: Manifests) -> str:
    """Return the stamp of the run that started last; a manifest counts only under its own run's name."""
    return max(found, key=lambda stamp: _start(stamp, found))


def _start(stamp: str, found: Manifests) -> datetime:
    return manifest.start(manifest.parse_leniently(found[stamp], stamp))


def _rolled_back_from(latest: bytes | None) -> datetime | None:
    try:
        return datetime.fromisoformat(json.loads(latest or b"")[ROLLED_BACK_FROM]).astimezone(UTC)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def _write(files: "AbstractFileSystem", root: str, latest: dict[str, Any], before: bytes | None) -> None:
    """Replace latest.json, unless it says this already."""
    content = json.dumps(latest, indent=2).encode() + b"\n"
    if content != before:
        objects.send_bytes(files, content, f"{root}/{NAME}", create=False)
