"""Publishing a finished run to a storage, complete or not at all.

<STORAGE_URL>/claims/<stamp>              create-only: which of the runs on all disks may publish under this name
<STORAGE_URL>/runs/<stamp>/<artifact>     create-only, each compared before the manifest follows
<STORAGE_URL>/runs/<stamp>/manifest.json  last: with it the run is published (removed first: pruning.py)
<STORAGE_URL>/promotions/<n>.json         create-only: each act by which a run came into use (promotions.py)
<STORAGE_URL>/latest.json                 a copy of the highest of them; the only object that ever changes
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steplib.errors import DataError, NameTakenError, StorageError
from steplib.gate import verdicts
from steplib.runs import manifest, records
from steplib.runs.run import Run
from steplib.runs.stores import Storage
from steplib.storage import objects
from steplib.storage.places import check_bucket, open_storage, translate_errors
from steplib.table.pool import open_pool

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

FILES_AT_ONCE = 4
# In the folder of a run that is being removed (pruning.py).
REMOVING = ".removing"


def claim(run: Run, url: str) -> None:
    """Claim the run's name in the storage, which also proves the right to write there.

    Raises NameTakenError if a run on a different disk has it, otherwise the same errors as `publish`.
    """
    with translate_errors(url):
        files, root = open_storage(url)
        check_bucket(files, root, url)
        _claim(files, root, manifest.read(run.folder), url)


def publish(run: Run, url: str, log: logging.Logger) -> None:
    """Publish a finished run as it was recorded; objects that are there already, with the same content, stay.

    Raises UnreachableError if the storage does not answer, SettingError if it refuses, StorageError if an object of
    this run has different content, NameTakenError if the name belongs to a run on a different disk.
    """
    record = manifest.read(run.folder)
    log.info("publishing to %s", url)
    run.bring_artifacts()
    with translate_errors(url):
        files, root = open_storage(url)
        check_bucket(files, root, url)
        _claim(files, root, record, url)
        folder = f"{root}/runs/{run.stamp}"
        if objects.read(files, f"{folder}/{REMOVING}") is not None:
            # Its removal was interrupted, and must not be continued while the run is published again.
            files.rm_file(f"{folder}/{REMOVING}")
        _put_artifacts(files, run.folder, folder, record["artifacts"])
        _put_manifest(files, f"{folder}/{manifest.NAME}", record)
    log.info("published: %s/runs/%s", url.rstrip("/"), run.stamp)


def _claim(files: "AbstractFileSystem", root: str, record: manifest.Record, url: str) -> None:
    """Claim the run's name."""
    holder = objects.create(files, manifest.identity(record).encode(), f"{root}/claims/{record['run']}")
    # An older version may have published under the name without a claim.
    path = f"{root}/runs/{record['run']}/{manifest.NAME}"
    published = objects.read(files, path)
    ids = {
        holder.decode(errors="replace"),
        *([manifest.identity(manifest.parse(published, path))] if published else []),
    }
    if ids != {manifest.identity(record)}:
        msg = f"run {record['run']}: a run on a different disk has this name in {url}"
        raise NameTakenError(f"{msg}; start a new run")


def _put_artifacts(files: "AbstractFileSystem", local: Path, folder: str, artifacts: dict[str, Any]) -> None:
    """Send the artifacts, a few at once."""

    def put(name: str) -> None:
        objects.put_artifact(files, local / name, f"{folder}/{name}", artifacts[name], callback)

    total = sum(made["bytes"] for made in artifacts.values())
    with objects.progress(total) as callback, open_pool(FILES_AT_ONCE) as pool:
        for _ in pool.map(put, artifacts):
            pass


def _put_manifest(files: "AbstractFileSystem", path: str, record: manifest.Record) -> None:
    """Write the manifest unless one with the same artifacts is there."""
    found = objects.create(files, manifest.to_bytes(record), path)
    if manifest.parse(found, path)["artifacts"] != record["artifacts"]:
        raise StorageError(f"{path}: expected this run's manifest, found a different one; start a new run")


def read_runs(url: str) -> tuple[list[manifest.Record], list[tuple[int, records.Promotion | None]]]:
    """Return the manifests of all published runs, and which run came into use when (`records.read_all`)."""
    with translate_errors(url):
        files, root = open_storage(url)
        check_bucket(files, root, url)
        contents = read_manifests(files, root)
        acts = records.read_all(Storage(files, root, url.rstrip("/")))
    found = {stamp: content for stamp, content in contents.items() if content is not None}
    return [manifest.parse_leniently(content, stamp) for stamp, content in found.items()], acts


def read_manifests(files: "AbstractFileSystem", root: str) -> dict[str, bytes | None]:
    """Return the content of each run's manifest; None for a run that is being published or removed."""
    try:
        names = [path.rstrip("/").rpartition("/")[2] for path in files.ls(f"{root}/runs", detail=False)]
    except FileNotFoundError:
        names = []
    stamps = sorted(name for name in names if manifest.STAMP.fullmatch(name))
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        contents = pool.map(lambda stamp: objects.read(files, f"{root}/runs/{stamp}/{manifest.NAME}"), stamps)
        return dict(zip(stamps, contents, strict=True))


def fetch(url: str, folder: Path) -> dict[str, Any] | None:
    """Copy a published run's manifest and artifacts to a folder; artifacts that are missing are left out.

    `url` ends with runs/<stamp>, or with latest.json, whose content is then returned.
    """
    with translate_errors(url):
        files, path = open_storage(url)
        named = None
        if path.endswith(f"/{records.LATEST}"):
            latest = objects.read(files, path)
            if latest is None:
                raise DataError(
                    f"{url}: there is no {records.LATEST}, because no run has been published; correct the URL"
                )
            named = records.parse(latest, url)
            path = f"{path.removesuffix(records.LATEST)}runs/{named['run']}"
        content = objects.read(files, f"{path}/{manifest.NAME}")
        if content is None:
            msg = f"{url}: there is no published run with {manifest.NAME} at {path}"
            raise DataError(f"{msg}; correct the URL, unless the run has been removed")
        (folder / manifest.NAME).write_bytes(content)
        for name in [*manifest.parse(content, url)["artifacts"], verdicts.NAME]:
            if files.exists(f"{path}/{name}"):
                files.get_file(f"{path}/{name}", str(folder / name))
    return named
