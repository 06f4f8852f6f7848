"""What `results/` shows of all runs: the newest output of each step, the newest whole run; old runs go."""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from steplib.errors import UnreachableError
from steplib.manifest import is_whole, read_quietly
from steplib.run import RESULTS, RUNS, Run

# A run that may still go on (between two steps, before a retry) is left alone for a day.
IN_PROGRESS_SECONDS = 86_400
FINAL_EXIT_CODES = {os.EX_USAGE, os.EX_DATAERR, os.EX_SOFTWARE, os.EX_CONFIG}


def show(run: Run, names: Iterable[str]) -> None:
    """Let `results/<name>` show this run's artifacts, and `results/latest` the run if all its steps are done.

    Nothing moves back: what a run that was started later has made stays.
    """
    with _locked():
        for name in names:
            _point(RESULTS / name, run, Path("runs") / run.stamp / name)
        if is_whole(read_quietly(run.folder)):
            _point(RESULTS / "latest", run, Path("runs") / run.stamp)


def prune(run: Run, keep: int, log: logging.Logger) -> None:
    """Remove all but the newest `keep` runs, except `run`, those that `results/` shows and those in progress."""
    with _locked():
        for rest in RUNS.glob(".pruned_*"):
            shutil.rmtree(rest, ignore_errors=True)
        newest_first = sorted(RUNS.glob("[!.]*"), key=_started, reverse=True)
        spared = {run.folder, *map(_run_shown_by, RESULTS.iterdir())}
        for folder in newest_first[keep:]:
            if folder not in spared and not _is_in_progress(folder):
                _remove(folder, log)


@contextmanager
def _locked() -> Iterator[None]:
    with (RESULTS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _point(link: Path, run: Run, target: Path) -> None:
    shown = _run_shown_by(link)
    if shown and link.exists() and _started(shown) > _started(run.folder):
        return
    fresh = link.with_name(f".{link.name}.part")
    fresh.unlink(missing_ok=True)
    # Relative, so that the project can be moved; replaced in one act, so that a reader always finds a whole file.
    fresh.symlink_to(target)
    fresh.replace(link)


def _is_in_progress(folder: Path) -> bool:
    manifest = read_quietly(folder)
    failed_for_good = any(record.get("exit_code") in FINAL_EXIT_CODES for record in manifest["steps"].values())
    fresh = time.time() - folder.stat().st_mtime < IN_PROGRESS_SECONDS
    return fresh and not failed_for_good and not is_whole(manifest)


def _remove(folder: Path, log: logging.Logger) -> None:
    """Remove a run, unless a step is at work on it; renamed first, so that no half of it is ever met."""
    try:
        with Run(folder.name).locked():
            gone = folder.rename(RUNS / f".pruned_{folder.name}")
            shutil.rmtree(gone)
    except (OSError, UnreachableError) as error:
        log.warning("run %s stays, it could not be removed: %s", folder.name, error)


def _run_shown_by(link: Path) -> Path | None:
    target = link.resolve()
    if not link.is_symlink() or RUNS not in target.parents:
        return None
    return RUNS / target.relative_to(RUNS).parts[0]


def _started(folder: Path) -> str:
    """Return the start in UTC, which stands in order also when the clock goes back an hour in autumn."""
    return str(read_quietly(folder)["started"])
