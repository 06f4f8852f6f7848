"""Removing old runs."""

import logging
import shutil
import time
from contextlib import suppress

from steplib.errors import PipelineError
from steplib.runs import manifest
from steplib.runs.folders import SCRATCH, results, runs
from steplib.runs.records import in_use_and_before
from steplib.runs.registry import SECONDS_FOR_LOCK, all_runs, results_locked, run_shown_by
from steplib.runs.run import Run
from steplib.runs.stores import Disk

PRUNED = ".pruned_"
# A run that may still continue (between two steps, before a retry) is kept for a day.
IN_PROGRESS_SECONDS = 86_400


def prune(run: Run, keep: int, log: logging.Logger, patience: float = SECONDS_FOR_LOCK) -> None:
    """Remove all but the newest `keep` finished runs, and all but the newest `keep` that failed.

    `run`, the runs that `results/` shows, the run in use, the one before it, and those that may still continue or are
    still to be read stay in any case.
    Raises UnreachableError if the lock of `results/` is held for more than `patience` seconds.
    """
    with results_locked(patience):
        finished, failed = [], []
        for other, record in all_runs().items():
            if other != run:
                _clear_scratch(other)
            if manifest.is_finished(record) and (other == run or not _is_in_use(other, record)):
                finished.append(other)
            elif not _is_in_use(other, record):
                failed.append(other)
        in_use = map(Run, in_use_and_before(Disk(results())))
        spared = {run, *in_use, *map(run_shown_by, results().iterdir())}
        for old in {*finished[keep:], *failed[keep:]} - spared:
            _retire(old, log)
    # Outside the lock, because removing is slow.
    for left in runs().glob(f"{PRUNED}*"):
        shutil.rmtree(left, ignore_errors=True)


def _is_in_use(run: Run, record: manifest.Record) -> bool:
    """Return whether a run may still continue or, if it is finished, be published or read."""
    mark = run.pending if manifest.is_finished(record) else run.folder
    try:
        fresh = time.time() - mark.stat().st_mtime < IN_PROGRESS_SECONDS
    except FileNotFoundError:
        return False
    return fresh and not manifest.failed_for_good(record)


def _clear_scratch(run: Run) -> None:
    """Remove what a killed step of a run has left behind, unless a step is working on it."""
    if any(runs().glob(f"{SCRATCH}{run.stamp}_*")):
        with suppress(OSError, PipelineError), run.locked():
            run.clear_scratch()


def _retire(run: Run, log: logging.Logger) -> None:
    """Rename a run for its removal, so that no reader finds half of it, unless a step is working on it."""
    try:
        with run.locked():
            run.folder.rename(runs() / f"{PRUNED}{run.stamp}")
            run.release()
    except (OSError, PipelineError) as error:
        log.warning("run %s could not be removed: %s", run.stamp, error)
