"""Publishing a finished run: to an object store or any other place that fsspec knows, whole or not at all.

<STORAGE_URL>/runs/<stamp>/<artifact>     create-only, each read back before the manifest follows
<STORAGE_URL>/runs/<stamp>/manifest.json  last: with it the run is there
<STORAGE_URL>/latest.json                 names a whole run; the only object that ever changes
"""

import hashlib
import json
import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from steplib import manifest as manifests
from steplib import objects
from steplib.errors import DataError, StorageError
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
    with objects.errors_of(url):
        files, root = objects.open_storage(url)
        objects.check_bucket(files, root, url)
        folder = f"{root}/runs/{run.stamp}"
        run.keep_log()
        manifest = manifests.read_manifest(run.folder)
        with objects.progress(sum(made["bytes"] for made in manifest["artifacts"].values())) as callback:

            def send(name: str) -> None:
                objects.put_artifact(
                    files, run.folder / name, f"{folder}/{name}", manifest["artifacts"][name], callback
                )

            with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
                list(pool.map(send, manifest["artifacts"]))
        published = put_manifest(files, f"{folder}/{manifests.NAME}", manifest)
        latest = _latest_there(files, root, url)
        # A run that was started later, and published sooner, stays the latest.
        if latest is None or latest["started"] <= manifest["started"]:
            put_latest(files, root, published)
    log.info("published: %s/runs/%s", url.rstrip("/"), run.stamp)


def put_manifest(files: "AbstractFileSystem", path: str, manifest: manifests.Manifest) -> bytes:
    """Write the manifest, if there is none of the same artifacts; return the one that is there."""
    try:
        there = bytes(files.cat_file(path))
    except FileNotFoundError:
        there = manifests.to_bytes(manifest)
        objects.send_bytes(files, there, path, create=True)
    if manifests.parse(there, path)["artifacts"] != manifest["artifacts"]:
        raise StorageError(f"{path}: expected this run's manifest, found that of another; start a new run")
    return there


def put_latest(files: "AbstractFileSystem", root: str, published: bytes) -> None:
    """Let latest.json name the run of a manifest."""
    manifest = manifests.parse(published, root)
    latest = {
        "run": manifest["run"],
        "started": manifest["started"],
        "manifest": f"runs/{manifest['run']}/{manifests.NAME}",
        "manifest_sha256": hashlib.sha256(published).hexdigest(),
        "metrics": manifest["steps"]["evaluate"]["metrics"],
    }
    objects.send_bytes(files, json.dumps(latest, indent=2).encode() + b"\n", f"{root}/{LATEST}", create=False)


def roll_back(url: str, stamp: str) -> None:
    """Let latest.json name an older run again, until the next one is published."""
    with objects.errors_of(url):
        files, root = objects.open_storage(url)
        put_latest(files, root, files.cat_file(f"{root}/runs/{stamp}/{manifests.NAME}"))


def read_runs(url: str) -> tuple[list[manifests.Manifest], str | None]:
    """Return the manifests of all published runs, and the stamp that latest.json names."""
    with objects.errors_of(url):
        files, root = objects.open_storage(url)
        objects.check_bucket(files, root, url)
        try:
            folders = files.ls(f"{root}/runs", detail=False)
        except FileNotFoundError:
            return [], None
        # A run that is being published has no manifest yet.
        there = files.cat([f"{folder.rstrip('/')}/{manifests.NAME}" for folder in folders], on_error="omit")
        latest = _latest_there(files, root, url)
    return [manifests.parse(content, path) for path, content in there.items()], latest["run"] if latest else None


def _latest_there(files: "AbstractFileSystem", root: str, url: str) -> dict[str, Any] | None:
    try:
        return parse_latest(files.cat_file(f"{root}/{LATEST}"), f"{url}/{LATEST}")
    except FileNotFoundError:
        return None


def fetch(url: str, folder: Path) -> dict[str, Any] | None:
    """Copy a published run to a folder: its manifest, and what that names, if it is there.

    `url` ends with runs/<stamp> or with latest.json, of which the content is returned then.
    """
    with objects.errors_of(url):
        files, path = objects.open_storage(url)
        latest = None
        if path.endswith(f"/{LATEST}"):
            latest = parse_latest(files.cat_file(path), url)
            path = f"{path.removesuffix(LATEST)}runs/{latest['run']}"
        (folder / manifests.NAME).write_bytes(files.cat_file(f"{path}/{manifests.NAME}"))
        for name in manifests.read_manifest(folder)["artifacts"]:
            # A name of somebody else's making must not lead out of the folder.
            if re.fullmatch(r"\w[\w.]*", name) and files.exists(f"{path}/{name}"):
                files.get_file(f"{path}/{name}", str(folder / name))
    return latest


def parse_latest(content: bytes, url: str) -> dict[str, Any]:
    """Return what latest.json says. Raises DataError if it names no run."""
    try:
        latest = json.loads(content)
        STAMP.fullmatch(latest["run"])[0] + latest["started"]  # type: ignore[index]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{url}: expected the name of a run, found something else; publish a run again") from error
    return cast("dict[str, Any]", latest)
