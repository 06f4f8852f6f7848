"""What `results/` shows of all runs: the newest output of each step, the newest whole run; old runs go."""

import fcntl
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from steplib.errors import UnreachableError
from steplib.manifest import is_whole, read_quietly
from steplib.run import RESULTS, RUNS, SCRATCH, Run
from steplib.runs import all_runs

# A run that may still go on (between two steps, before a retry) is left alone for a day.
IN_PROGRESS_SECONDS = 86_400


def show(run: Run, names: Iterable[str]) -> None:
    """Let `results/<name>` show this run's artifacts, unless a later run's are there; `latest`, the last whole run."""
    with _locked():
        runs = all_runs()
        for name in names:
            shown = _run_shown_by(RESULTS / name)
            if shown not in runs[: runs.index(run)] or not (RESULTS / name).exists():
                _point(RESULTS / name, Path("runs") / run.stamp / name)
        latest = next((other for other in runs if is_whole(read_quietly(other.folder))), None)
        if latest:
            _point(RESULTS / "latest", Path("runs") / latest.stamp)


def prune(run: Run, keep: int, log: logging.Logger) -> None:
    """Remove all but the newest `keep` runs, except `run`, those that `results/` shows and those in progress."""
    with _locked():
        for rest in RUNS.glob(".pruned_*"):
            shutil.rmtree(rest, ignore_errors=True)
        for other in all_runs():
            if other != run:
                _clear_scratch(other)
        spared = {run, *map(_run_shown_by, RESULTS.iterdir())}
        for old in all_runs()[keep:]:
            if old not in spared and not _is_in_progress(old):
                _remove(old, log)


@contextmanager
def _locked() -> Iterator[None]:
    with (RESULTS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _point(link: Path, target: Path) -> None:
    fresh = link.with_name(f".{link.name}.part")
    fresh.unlink(missing_ok=True)
    # Relative, so that the project can be moved; replaced in one act, so that a reader always finds a whole file.
    fresh.symlink_to(target)
    fresh.replace(link)


def _run_shown_by(link: Path) -> Run | None:
    target = Path(os.path.realpath(link))
    if not link.is_symlink() or RUNS not in target.parents:
        return None
    return Run(target.relative_to(RUNS).parts[0])


def _is_in_progress(run: Run) -> bool:
    manifest = read_quietly(run.folder)
    may_go_on = {None, os.EX_OK, os.EX_TEMPFAIL}
    failed_for_good = any(step.get("exit_code") not in may_go_on for step in manifest["steps"].values())
    fresh = time.time() - run.folder.stat().st_mtime < IN_PROGRESS_SECONDS
    # A whole run may still have to be published.
    done = is_whole(manifest) and all(step.get("outcome") == "done" for step in manifest["steps"].values())
    return fresh and not failed_for_good and not done


def _clear_scratch(run: Run) -> None:
    """Remove what a killed step of a run has left behind, unless a step is at work on it."""
    if any(run.folder.glob(f"{SCRATCH}*")):
        with suppress(OSError, UnreachableError), run.locked():
            run.clear_scratch()


def _remove(run: Run, log: logging.Logger) -> None:
    """Remove a run, unless a step is at work on it; renamed first, so that no half of it is ever met."""
    try:
        with run.locked():
            gone = run.folder.rename(RUNS / f".pruned_{run.stamp}")
            shutil.rmtree(gone)
    except (OSError, UnreachableError) as error:
        log.warning("run %s stays, it could not be removed: %s", run.stamp, error)
