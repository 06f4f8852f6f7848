"""Removing old published runs from a storage (KEEP_PUBLISHED).

<STORAGE_URL>/runs/<stamp>/.removing    this run is being removed; if that is interrupted, the next pruning completes it
"""

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from steplib.errors import PipelineError
from steplib.publish import publishing
from steplib.publish.publishing import REMOVING
from steplib.runs import manifest, records
from steplib.runs.run import Run
from steplib.runs.stores import Storage
from steplib.storage import objects
from steplib.storage.places import is_object_store, open_storage, translate_errors

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# A reader may still be using a run that started later than this.
LEAST_AGE = timedelta(days=1)


def prune(run: Run, url: str, keep: int, log: logging.Logger) -> None:
    """Remove all but the newest `keep` published runs (0: keep all), and what an interrupted pruning has left.

    `run`, the run in use, the one before it, runs that started less than a day ago, in the future or at an unknown
    time, and uploads that are under way stay. The publication is done by then, so an error is only a warning.
    """
    if not keep:
        return
    try:
        with translate_errors(url):
            files, root = open_storage(url)
            for stamp in _find_old(files, root, keep):
                if stamp != run.stamp and _remove(files, root, stamp):
                    log.info("removed from the storage: run %s", stamp)
    except PipelineError as error:
        log.warning("KEEP_PUBLISHED: the run is published, but older ones could not all be removed: %s", error)


def _find_old(files: "AbstractFileSystem", root: str, keep: int) -> list[str]:
    """Return the runs that are not among those to keep, the oldest first."""
    contents = publishing.read_manifests(files, root)
    starts = {
        stamp: manifest.start(manifest.parse_leniently(content, stamp))
        for stamp, content in contents.items()
        if content is not None
    }
    newest_first = sorted(starts, key=lambda stamp: (starts[stamp], stamp), reverse=True)
    latest_start = datetime.now(UTC) - LEAST_AGE
    old = [stamp for stamp in newest_first[keep:] if manifest.EARLIEST < starts[stamp] < latest_start]
    # Any other folder without a manifest is that of a run whose upload may be continued.
    left = [stamp for stamp in contents if stamp not in starts and files.exists(f"{root}/runs/{stamp}/{REMOVING}")]
    return [*left, *reversed(old)]


def _remove(files: "AbstractFileSystem", root: str, stamp: str) -> bool:
    """Remove a run, the manifest first, unless it is in use; return whether it was removed."""
    if _is_in_use(files, root, stamp):
        return False
    folder = f"{root}/runs/{stamp}"
    path, mark = f"{folder}/{manifest.NAME}", f"{folder}/{REMOVING}"
    content = objects.read(files, path)
    objects.create(files, b"This run is being removed.\n", mark)
    objects.remove(files, [path])
    if content is not None and _is_in_use(files, root, stamp):
        # A roll-back has come between.
        objects.create(files, content, path)
        objects.remove(files, [mark])
        return False
    # The mark goes last.
    objects.remove(files, [found for found in files.find(folder) if not found.endswith(f"/{REMOVING}")])
    objects.remove(files, [mark])
    if not is_object_store(files):
        with suppress(FileNotFoundError):
            files.rmdir(folder)
    return True


def _is_in_use(files: "AbstractFileSystem", root: str, stamp: str) -> bool:
    return stamp in records.in_use_and_before(Storage(files, root, files.unstrip_protocol(root)))
