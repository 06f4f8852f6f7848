"""Publishing a finished run to any place that fsspec supports, whole or not at all.

<STORAGE_URL>/runs/<stamp>/<artifact>     create-only, each compared before the manifest follows
<STORAGE_URL>/runs/<stamp>/manifest.json  last: with it the run is published
<STORAGE_URL>/latest.json                 names a whole run; the only object that ever changes
"""

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from steplib.errors import DataError, StorageError, UsageError
from steplib.runs import manifest
from steplib.runs.run import Run
from steplib.storage import objects
from steplib.storage.places import check_bucket, open_storage, translate_errors
from steplib.table.pool import open_pool

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LATEST = "latest.json"
FILES_AT_ONCE = 4


def publish(run: Run, url: str, log: logging.Logger) -> None:
    """Publish a run whose local work is done; objects that are there already, with the same content, stay.

    Raises UnreachableError if the storage does not answer, SettingError if it refuses, StorageError if an object of
    this run has different content.
    """
    record = run.keep_log()
    log.info("publishing to %s", url)
    with translate_errors(url):
        files, root = open_storage(url)
        check_bucket(files, root, url)
        folder = f"{root}/runs/{run.stamp}"
        _put_artifacts(files, run.folder, folder, record["artifacts"])
        published = _put_manifest(files, f"{folder}/{manifest.NAME}", record)
        newest = _newest(files, root, published)
        _put_latest(files, root, newest)
        # Another run may have been published between reading and writing.
        if (newest_now := _newest(files, root, newest)) != newest:
            _put_latest(files, root, newest_now)
    log.info("published: %s/runs/%s", url.rstrip("/"), run.stamp)


def _put_artifacts(files: "AbstractFileSystem", local: Path, folder: str, artifacts: dict[str, Any]) -> None:
    """Send the artifacts, a few at once."""

    def put(name: str) -> None:
        objects.put_artifact(files, local / name, f"{folder}/{name}", artifacts[name], callback)

    total = sum(made["bytes"] for made in artifacts.values())
    with objects.progress(total) as callback, open_pool(FILES_AT_ONCE) as pool:
        for _ in pool.map(put, artifacts):
            pass


def _put_manifest(files: "AbstractFileSystem", path: str, record: manifest.Record) -> bytes:
    """Write the manifest unless one with the same artifacts is there; return the stored one."""
    found = objects.read(files, path)
    if found is None:
        try:
            objects.send_bytes(files, manifest.to_bytes(record), path, create=True)
        except OSError:
            # Another process may have been faster, or the answer to a completed upload was lost.
            if objects.read(files, path) is None:
                raise
        found = objects.read(files, path) or b""
    if manifest.parse(found, path)["artifacts"] != record["artifacts"]:
        raise StorageError(f"{path}: expected this run's manifest, found a different one; start a new run")
    return found


def _put_latest(files: "AbstractFileSystem", root: str, published: bytes) -> None:
    """Point latest.json at the run of a manifest."""
    latest = describe(manifest.parse(published, root), hashlib.sha256(published).hexdigest())
    objects.send_bytes(files, json.dumps(latest, indent=2).encode() + b"\n", f"{root}/{LATEST}", create=False)


def describe(record: manifest.Record, sha256: str) -> dict[str, Any]:
    """Return what latest.json says about a run; `sha256` is that of its manifest."""
    return {
        "run": record["run"],
        "started": record["started"],
        "manifest": f"runs/{record['run']}/{manifest.NAME}",
        "manifest_sha256": sha256,
        "metrics": manifest.metrics(record) or None,
    }


def roll_back(url: str, stamp: str) -> None:
    """Point latest.json at an older run, until the next one is published."""
    with translate_errors(url):
        files, root = open_storage(url)
        found = objects.read(files, f"{root}/runs/{stamp}/{manifest.NAME}")
        if found is None:
            raise UsageError(f"{url}: there is no published run {stamp}; correct the stamp")
        _put_latest(files, root, found)


def read_runs(url: str) -> tuple[list[manifest.Record], str | None]:
    """Return the manifests of all published runs, and the stamp that latest.json names."""
    with translate_errors(url):
        files, root = open_storage(url)
        check_bucket(files, root, url)
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            stamps = _stamps(files, root)
            contents = pool.map(lambda stamp: objects.read(files, f"{root}/runs/{stamp}/{manifest.NAME}"), stamps)
        # A run that is being published has no manifest yet.
        found = {stamp: content for stamp, content in zip(stamps, contents, strict=True) if content is not None}
        latest = objects.read(files, f"{root}/{LATEST}")
    named = None if latest is None else _parse_latest(latest, f"{url}/{LATEST}")["run"]
    return [manifest.parse_leniently(content, stamp) for stamp, content in found.items()], named


def _stamps(files: "AbstractFileSystem", root: str) -> list[str]:
    try:
        names = [path.rstrip("/").rpartition("/")[2] for path in files.ls(f"{root}/runs", detail=False)]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if manifest.STAMP.fullmatch(name))


def _newest(files: "AbstractFileSystem", root: str, published: bytes) -> bytes:
    """Return the manifest of the newest published run: this one, or one that was started later."""
    stamp = json.loads(published)["run"]
    newer = (name for name in reversed(_stamps(files, root)) if name > stamp)
    found = (objects.read(files, f"{root}/runs/{name}/{manifest.NAME}") for name in newer)
    return next(
        (content for content in found if content and manifest.parse_leniently(content, stamp)["started"]), published
    )


def fetch(url: str, folder: Path) -> dict[str, Any] | None:
    """Copy a published run's manifest and artifacts to a folder; artifacts that are missing are left out.

    `url` ends with runs/<stamp>, or with latest.json, whose content is then returned.
    """
    with translate_errors(url):
        files, path = open_storage(url)
        latest = None
        if path.endswith(f"/{LATEST}"):
            latest = _parse_latest(objects.read(files, path) or b"", url)
            path = f"{path.removesuffix(LATEST)}runs/{latest['run']}"
        content = objects.read(files, f"{path}/{manifest.NAME}")
        if content is None:
            raise DataError(f"{url}: expected a published run, found no {manifest.NAME}; correct the URL")
        (folder / manifest.NAME).write_bytes(content)
        for name in manifest.parse(content, url)["artifacts"]:
            if files.exists(f"{path}/{name}"):
                files.get_file(f"{path}/{name}", str(folder / name))
    return latest


def _parse_latest(content: bytes, url: str) -> dict[str, Any]:
    """Return what latest.json says. Raises DataError if it names no run."""
    try:
        latest = json.loads(content)
        manifest.STAMP.fullmatch(latest["run"])[0]  # type: ignore[index]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{url}: expected the name of a run, found something else; publish a run again") from error
    return cast("dict[str, Any]", latest)
