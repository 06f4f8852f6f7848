"""All runs together: starting and finding one, what `results/` points at, removing old ones."""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from steplib.errors import UnreachableError, UsageError
from steplib.runs import manifest
from steplib.runs.run import LOGS, RESULTS, RUNS, SCRATCH, Run, stamp_of_log

LATEST = "latest"
PRUNED = ".pruned_"
# A run that may still continue (between two steps, before a retry) is kept for a day.
IN_PROGRESS_SECONDS = 86_400


def start_run(run_id: str | None) -> Run:
    """Claim the current second as a new run's stamp: only one process can create the folder.

    If the second is taken, wait for the next one, so that the stamp stays the true time of the start.
    """
    LOGS.mkdir(exist_ok=True)
    RUNS.mkdir(parents=True, exist_ok=True)
    while True:
        # Local time, because people read the log's name and lines.
        run = Run(datetime.now().strftime(manifest.STAMP_FORMAT))  # noqa: DTZ005 - see above
        try:
            run.folder.mkdir()
        except FileExistsError:
            time.sleep(1 - time.time() % 1)
            continue
        try:
            run.log.touch()
        except OSError:
            run.folder.rmdir()
            raise
        run.write_manifest(manifest.new(run.stamp, run_id))
        return run


def find_run(run_id: str) -> Run | None:
    """Return the run that was started under an orchestrator's name for it."""
    return next((run for run in all_runs() if manifest.read_leniently(run.folder).get("run_id") == run_id), None)


def all_runs() -> list[Run]:
    """Return the runs on this disk, the newest first; other files among them are ignored.

    They are ordered by their start in UTC, which stays in order when the clock goes back an hour in autumn.
    """
    folders = [path for path in RUNS.glob("*") if manifest.STAMP.fullmatch(path.name) and path.is_dir()]
    newest_first = sorted(folders, key=lambda path: str(manifest.read_leniently(path)["started"]), reverse=True)
    return [Run(folder.name) for folder in newest_first]


def run_of_log(text: str) -> Run:
    """Return the run whose log a path names. Raises UsageError for anything but an existing log of this project."""
    path = Path(text)
    run = Run(stamp_of_log(path) or "")
    if not run.stamp or path.absolute().parent.resolve() / path.name != run.log or not run.log.is_file():
        expected = Run("YYYY_mm_dd_HH_MM_SS").log
        msg = f"LOG: expected the path of a run's log, {expected}, found {text[:200]!r}"
        raise UsageError(f"{msg}; use the path that the previous step printed")
    if not run.folder.is_dir():
        raise UsageError(f"LOG: the run of this log has been removed: {run.folder} does not exist; start a new run")
    return run


def point_results_at(run: Run, names: Iterable[str]) -> None:
    """Point `results/<name>` at this run's artifacts, and `results/latest` at the newest complete run.

    Names that show a later run's artifacts stay.
    """
    with _results_locked():
        runs = all_runs()
        for name in names:
            shown = _run_shown_by(RESULTS / name)
            if shown not in runs[: runs.index(run)] or not (RESULTS / name).exists():
                _point(RESULTS / name, Path(RUNS.name) / run.stamp / name)
        latest = next((other for other in runs if manifest.is_finished(manifest.read_leniently(other.folder))), None)
        if latest:
            _point(RESULTS / LATEST, Path(RUNS.name) / latest.stamp)


def latest_stamp() -> str | None:
    """Return the stamp of the run that `results/latest` points at."""
    shown = _run_shown_by(RESULTS / LATEST)
    return shown.stamp if shown and shown.folder.exists() else None


def prune(run: Run, keep: int, log: logging.Logger) -> None:
    """Remove all but the newest `keep` runs, except `run`, those that `results/` shows and those in progress."""
    with _results_locked():
        for left in RUNS.glob(f"{PRUNED}*"):
            shutil.rmtree(left, ignore_errors=True)
        for other in all_runs():
            if other != run:
                _clear_scratch(other)
        spared = {run, *map(_run_shown_by, RESULTS.iterdir())}
        for old in all_runs()[keep:]:
            if old not in spared and not _is_in_progress(old):
                _remove(old, log)


@contextmanager
def _results_locked() -> Iterator[None]:
    with (RESULTS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _point(link: Path, target: Path) -> None:
    fresh = link.with_name(f".{link.name}.part")
    fresh.unlink(missing_ok=True)
    # Relative, so that the project can be moved; replaced atomically, so that a reader always finds a complete file.
    fresh.symlink_to(target)
    fresh.replace(link)


def _run_shown_by(link: Path) -> Run | None:
    target = Path(os.path.realpath(link))
    if not link.is_symlink() or RUNS not in target.parents:
        return None
    return Run(target.relative_to(RUNS).parts[0])


def _is_in_progress(run: Run) -> bool:
    record = manifest.read_leniently(run.folder)
    may_continue = {None, os.EX_OK, os.EX_TEMPFAIL}
    failed_for_good = any(step.get("exit_code") not in may_continue for step in record["steps"].values())
    fresh = time.time() - run.folder.stat().st_mtime < IN_PROGRESS_SECONDS
    # A whole run may still have to be published.
    done = manifest.is_finished(record) and all(step.get("outcome") == "done" for step in record["steps"].values())
    return fresh and not failed_for_good and not done


def _clear_scratch(run: Run) -> None:
    """Remove what a killed step of a run has left behind, unless a step is working on it."""
    if any(run.folder.glob(f"{SCRATCH}*")):
        with suppress(OSError, UnreachableError), run.locked():
            run.clear_scratch()


def _remove(run: Run, log: logging.Logger) -> None:
    """Remove a run, unless a step is working on it; it is renamed first, so that no reader finds half of it."""
    try:
        with run.locked():
            gone = run.folder.rename(RUNS / f"{PRUNED}{run.stamp}")
            shutil.rmtree(gone)
    except (OSError, UnreachableError) as error:
        log.warning("run %s could not be removed: %s", run.stamp, error)
