"""Publishing a finished run: to an object store or any other place that fsspec knows, whole or not at all.

<STORAGE_URL>/runs/<stamp>/<artifact>     create-only, each read back before the manifest follows
<STORAGE_URL>/runs/<stamp>/manifest.json  last: with it the run is there
<STORAGE_URL>/latest.json                 names a whole run; the only object that ever changes
"""

import hashlib
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from steplib import backends, objects
from steplib import manifest as manifests
from steplib.errors import DataError, StorageError, UsageError
from steplib.run import STAMP, Run

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LATEST = "latest.json"
FILES_AT_ONCE = 4


def publish(run: Run, url: str, log: logging.Logger) -> None:
    """Publish a run whose local work is done; what is there already, of the same content, stays.

    Raises UnreachableError if the storage does not answer, SettingError if it refuses, StorageError if an object of
    this run holds other content.
    """
    run.keep_log()
    manifest = manifests.read_manifest(run.folder)
    log.info("publishing to %s", url)
    with backends.errors_of(url):
        files, root = backends.open_storage(url)
        backends.check_bucket(files, root, url)
        folder = f"{root}/runs/{run.stamp}"
        put_artifacts(files, run.folder, folder, manifest["artifacts"])
        published = put_manifest(files, f"{folder}/{manifests.NAME}", manifest)
        newest = _newest(files, root, published)
        put_latest(files, root, newest)
        # Another run may have been published between the look and the write.
        if (newest_now := _newest(files, root, newest)) != newest:
            put_latest(files, root, newest_now)
    log.info("published: %s/runs/%s", url.rstrip("/"), run.stamp)


def put_artifacts(files: "AbstractFileSystem", local: Path, folder: str, artifacts: dict[str, Any]) -> None:
    """Send the artifacts, a few at once."""
    with objects.progress(sum(made["bytes"] for made in artifacts.values())) as callback:
        pool = ThreadPoolExecutor(FILES_AT_ONCE)
        sent = [
            pool.submit(objects.put_artifact, files, local / name, f"{folder}/{name}", made, callback)
            for name, made in artifacts.items()
        ]
        try:
            for one in sent:
                one.result()
        finally:
            # After an error or a signal nothing is waited for; the step ends, and with it what is under way.
            pool.shutdown(wait=False, cancel_futures=True)


def put_manifest(files: "AbstractFileSystem", path: str, manifest: manifests.Manifest) -> bytes:
    """Write the manifest, if there is none of the same artifacts; return the one that is there."""
    there = objects.read(files, path)
    if there is None:
        try:
            objects.send_bytes(files, manifests.to_bytes(manifest), path, create=True)
        except OSError:
            # Another process was faster, or the answer to what was done got lost.
            if objects.read(files, path) is None:
                raise
        there = objects.read(files, path) or b""
    if manifests.parse(there, path)["artifacts"] != manifest["artifacts"]:
        raise StorageError(f"{path}: expected this run's manifest, found that of another; start a new run")
    return there


def put_latest(files: "AbstractFileSystem", root: str, published: bytes) -> None:
    """Let latest.json name the run of a manifest."""
    latest = describe(manifests.parse(published, root), hashlib.sha256(published).hexdigest())
    objects.send_bytes(files, json.dumps(latest, indent=2).encode() + b"\n", f"{root}/{LATEST}", create=False)


def describe(manifest: manifests.Manifest, sha256: str) -> dict[str, Any]:
    """Return what latest.json says of a run, of whose manifest the hash is given."""
    return {
        "run": manifest["run"],
        "started": manifest["started"],
        "manifest": f"runs/{manifest['run']}/{manifests.NAME}",
        "manifest_sha256": sha256,
        "metrics": manifest["steps"].get("evaluate", {}).get("metrics"),
    }


def roll_back(url: str, stamp: str) -> None:
    """Let latest.json name an older run again, until the next one is published."""
    with backends.errors_of(url):
        files, root = backends.open_storage(url)
        there = objects.read(files, f"{root}/runs/{stamp}/{manifests.NAME}")
        if there is None:
            raise UsageError(f"{url}: expected a published run {stamp}, found none; correct the stamp")
        put_latest(files, root, there)


def read_runs(url: str) -> tuple[list[manifests.Manifest], str | None]:
    """Return the manifests of all published runs, and the stamp that latest.json names."""
    with backends.errors_of(url):
        files, root = backends.open_storage(url)
        backends.check_bucket(files, root, url)
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            stamps = _stamps(files, root)
            contents = pool.map(lambda stamp: objects.read(files, f"{root}/runs/{stamp}/{manifests.NAME}"), stamps)
        # A run that is being published has no manifest yet.
        there = {stamp: content for stamp, content in zip(stamps, contents, strict=True) if content is not None}
        latest = objects.read(files, f"{root}/{LATEST}")
    named = None if latest is None else parse_latest(latest, f"{url}/{LATEST}")["run"]
    return [manifests.parse_quietly(content, stamp) for stamp, content in there.items()], named


def _stamps(files: "AbstractFileSystem", root: str) -> list[str]:
    try:
        names = [path.rstrip("/").rpartition("/")[2] for path in files.ls(f"{root}/runs", detail=False)]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if STAMP.fullmatch(name))


def _newest(files: "AbstractFileSystem", root: str, published: bytes) -> bytes:
    """Return the manifest of the newest published run, which is this one or was started later."""
    stamp = json.loads(published)["run"]
    newer = (name for name in reversed(_stamps(files, root)) if name > stamp)
    there = (objects.read(files, f"{root}/runs/{name}/{manifests.NAME}") for name in newer)
    return next(
        (content for content in there if content and manifests.parse_quietly(content, stamp)["started"]), published
    )


def fetch(url: str, folder: Path) -> dict[str, Any] | None:
    """Copy a published run to a folder: its manifest, and what that names, if it is there.

    `url` ends with runs/<stamp> or with latest.json, of which the content is returned then.
    """
    with backends.errors_of(url):
        files, path = backends.open_storage(url)
        latest = None
        if path.endswith(f"/{LATEST}"):
            latest = parse_latest(objects.read(files, path) or b"", url)
            path = f"{path.removesuffix(LATEST)}runs/{latest['run']}"
        content = objects.read(files, f"{path}/{manifests.NAME}")
        if content is None:
            raise DataError(f"{url}: expected a published run, found no {manifests.NAME}; correct the URL")
        (folder / manifests.NAME).write_bytes(content)
        for name in manifests.parse(content, url)["artifacts"]:
            if files.exists(f"{path}/{name}"):
                files.get_file(f"{path}/{name}", str(folder / name))
    return latest


def parse_latest(content: bytes, url: str) -> dict[str, Any]:
    """Return what latest.json says. Raises DataError if it names no run."""
    try:
        latest = json.loads(content)
        STAMP.fullmatch(latest["run"])[0]  # type: ignore[index]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{url}: expected the name of a run, found something else; publish a run again") from error
    return cast("dict[str, Any]", latest)
