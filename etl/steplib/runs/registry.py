"""All runs together: starting and finding one, and what `results/` points at."""

import errno
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from steplib.errors import SettingError, UsageError
from steplib.runs import manifest
from steplib.runs.disk import lock
from steplib.runs.run import RUNS, Run, logs, results, runs, stamp_of_log

LATEST = "latest"
SECONDS_FOR_LOCK = 30
REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT),
    *(errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG),
}


def start_run(run_id: str | None) -> Run:
    """Claim the current second as a new run's stamp: only one process can create the log and the folder.

    If the second is taken, wait for the next one, so that the stamp stays the true time of the start. The stamp of a
    log whose run is gone is not used again.
    """
    with _explaining_refusals():
        for folder in (logs(), runs()):
            folder.mkdir(parents=True, exist_ok=True)
        while not (run := _claim_second()):
            _wait_for_next_second()
        run.write_manifest(manifest.new(run.stamp, run_id))
    return run


def _wait_for_next_second() -> None:
    time.sleep(1 - time.time() % 1)


def _claim_second() -> Run | None:
    """Return a run with the current second as its stamp, or None if that is taken."""
    # Local time, because people read the log's name and lines.
    run = Run(datetime.now().strftime(manifest.STAMP_FORMAT))  # noqa: DTZ005 - see above
    try:
        run.log.touch(exist_ok=False)
        try:
            run.folder.mkdir()
        except OSError:
            run.log.unlink()
            raise
    except FileExistsError:
        return None
    return run


@contextmanager
def _explaining_refusals() -> Iterator[None]:
    """Raise SettingError if the folders cannot be written for a reason other than a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        found = f"found {error.filename}: {error.strerror}"
        msg = f"STATE_DIR: expected a folder in which logs/ and results/ can be written, {found}"
        raise SettingError(f"{msg}; correct its permissions, or name a different folder") from error


def withdraw(run: Run, *, keep_log: bool) -> bool:
    """Remove a run in which no step has made anything, and wait for the next second; return whether it was one."""
    if manifest.read(run.folder)["artifacts"]:
        return False
    shutil.rmtree(run.folder)
    run.release()
    if not keep_log:
        run.log.unlink()
    _wait_for_next_second()
    return True


def find_run(run_id: str) -> Run | None:
    """Return the run that was started under an orchestrator's name for it."""
    return next((run for run, record in all_runs().items() if record.get("run_id") == run_id), None)


def all_runs() -> dict[Run, manifest.Record]:
    """Return the runs on this disk and their manifests, the newest first; other files among them are ignored.

    They are ordered by their start in UTC, which stays in order when the clock goes back an hour in autumn.
    """
    stamps = [path.name for path in runs().glob("*") if manifest.STAMP.fullmatch(path.name) and path.is_dir()]
    found = {Run(stamp): manifest.read_leniently(Run(stamp).folder) for stamp in stamps}
    return dict(sorted(found.items(), key=lambda item: (manifest.start(item[1]), item[0].stamp), reverse=True))


def warn_of_clocks(log: logging.Logger) -> None:
    """Warn of each run whose start lies in the future."""
    for run, record in all_runs().items():
        if manifest.starts_in_future(record):
            log.warning(manifest.FUTURE, run.stamp, record["started"])


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
    """Point `results/<name>` at this run's artifacts, and `results/latest` at this run if it is finished.

    Names that show a later run's artifacts stay. Other runs are never put there, so that nothing is undone by repeating
    a step, and a start that was in the future never counts later.
    """
    with results_locked(SECONDS_FOR_LOCK):
        records = all_runs()
        newest_first = list(records)
        later = newest_first[: newest_first.index(run)]
        for name in [*names, *([LATEST] if manifest.is_finished(records[run]) else [])]:
            if run_shown_by(results() / name) not in later or not (results() / name).exists():
                _point(results() / name, Path(RUNS) / run.stamp / ("" if name == LATEST else name))


def latest_stamp() -> str | None:
    """Return the stamp of the run that `results/latest` points at."""
    shown = run_shown_by(results() / LATEST)
    return shown.stamp if shown and shown.folder.exists() else None


@contextmanager
def results_locked(patience: float) -> Iterator[None]:
    """Keep other processes from changing what `results/` shows. Raises UnreachableError after `patience` seconds."""
    path = results() / ".lock"
    busy = f"{path}: another process has held this lock for {patience:g} s; wait, or end it, then run this again"
    with lock(path, patience, busy):
        yield


def _point(link: Path, target: Path) -> None:
    fresh = link.with_name(f".{link.name}.part")
    fresh.unlink(missing_ok=True)
    # Relative, so that the project can be moved; replaced atomically, so that a reader always finds a complete file.
    fresh.symlink_to(target)
    fresh.replace(link)


def run_shown_by(link: Path) -> Run | None:
    """Return the run whose file or folder a link in `results/` shows."""
    target = Path(os.path.realpath(link))
    if not link.is_symlink() or runs() not in target.parents:
        return None
    return Run(target.relative_to(runs()).parts[0])
