"""Removing old runs from RUNS_URL."""

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from steplib.errors import PipelineError
from steplib.runs import manifest, remote, remote_objects
from steplib.runs.pruning import IN_PROGRESS_SECONDS
from steplib.storage import objects
from steplib.storage.places import is_object_store, open_storage, translate_errors

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class Found(NamedTuple):
    """A run in RUNS_URL."""

    stamp: str
    paths: list[str]
    record: manifest.Record


def prune(run: remote.RemoteRun, keep: int, log: logging.Logger) -> None:
    """Remove all but the newest `keep` finished runs, and all but the newest `keep` that failed.

    `run`, runs of the last day that may still continue and finished ones that are still to be published stay. An error
    is only a warning.
    """
    if run.is_lost:
        return
    try:
        with translate_errors(run.url):
            files, root = open_storage(run.url)
            for old in _find_old(files, root, run.stamp, keep):
                remove(files, root, old)
    except PipelineError as error:
        log.warning("KEEP_RUNS: old runs could not all be removed: %s", error)


def withdraw(run: remote.RemoteRun) -> None:
    """Remove a run of this worker in which nothing has been made; the orchestrator's name for it becomes free."""
    if run.revision >= 0:
        with translate_errors(run.url):
            files, root = open_storage(run.url)
            remove(files, root, _read(files, root, run.stamp))


def remove(files: "AbstractFileSystem", root: str, run: Found) -> None:
    """Remove a run, unless a step continues it; an interrupted removal is completed by the next pruning.

    First, a last manifest records the removal: a step that would continue the run then finds this number taken.
    """
    folder, revision = f"{root}/{run.stamp}", remote_objects.highest_revision(run.paths)
    mark = remote_objects.revision_path(folder, revision)
    if revision >= 0 and remote_objects.REMOVED not in run.record:
        mark = remote_objects.revision_path(folder, revision + 1)
        content = manifest.to_bytes({**run.record, remote_objects.REMOVED: datetime.now(UTC).isoformat()})
        if objects.create(files, content, mark) != content:
            return
    name = run.record.get("run_id") and remote_objects.name_path(folder, run.record["run_id"])
    if name and objects.read(files, name) == run.stamp.encode():
        objects.remove(files, [name])
    objects.remove(files, [path for path in remote_objects.find_objects(files, folder) if not path.endswith(mark)])
    objects.remove(files, [mark])
    if not is_object_store(files):
        for empty in (*(f"{folder}/{part}" for part in ("manifest", "files", "log")), folder):
            with suppress(OSError):
                files.rmdir(empty)


def _find_old(files: "AbstractFileSystem", root: str, stamp: str, keep: int) -> list[Found]:
    names: list[str] = []
    with suppress(FileNotFoundError):
        names = [path.rstrip("/").rpartition("/")[2] for path in files.ls(root, detail=False)]
    with ThreadPoolExecutor(remote.REQUESTS_AT_ONCE) as pool:
        runs = list(pool.map(lambda name: _read(files, root, name), filter(manifest.STAMP.fullmatch, names)))
    # A folder with such a name may contain nothing but a published run.
    runs = [run for run in runs if run.paths]
    runs.sort(key=lambda run: (manifest.start(run.record), run.stamp), reverse=True)
    finished = [run for run in runs if manifest.is_finished(run.record) and (run.stamp == stamp or not _is_in_use(run))]
    failed = [run for run in runs if not manifest.is_finished(run.record) and not _is_in_use(run)]
    left = [run for run in runs if remote_objects.REMOVED in run.record]
    return [run for run in (*left, *finished[keep:], *failed[keep:]) if run.stamp != stamp]


def _read(files: "AbstractFileSystem", root: str, stamp: str) -> Found:
    folder = f"{root}/{stamp}"
    paths = remote_objects.find_objects(files, folder)
    path = remote_objects.revision_path(folder, remote_objects.highest_revision(paths))
    return Found(stamp, paths, manifest.parse_leniently(objects.read(files, path) or b"", stamp))


def _is_in_use(run: Found) -> bool:
    """Return whether a run may still continue or, if it is finished, be published."""
    if manifest.is_finished(run.record):
        may_continue = not any(path.endswith(f"/{remote_objects.PUBLISHED}") for path in run.paths)
    else:
        is_running = any(step.get("outcome") == "running" for step in run.record["steps"].values())
        may_continue = is_running or not manifest.failed_for_good(run.record)
    starts = [run.record["started"], *(step.get("started") for step in run.record["steps"].values())]
    age = datetime.now(UTC) - max(map(manifest.read_time, starts))
    return may_continue and abs(age) < timedelta(seconds=IN_PROGRESS_SECONDS)
