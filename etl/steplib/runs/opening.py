"""The run that a step belongs to: a new one, or one that is continued."""

import errno
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from steplib.errors import SettingError, UsageError
from steplib.runs import manifest, registry
from steplib.runs.folders import logs, runs, stamp_of_log
from steplib.runs.run import Run
from steplib.settings import pipeline_run_id, runs_url

REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT),
    *(errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG),
}


def open_run(argument: str | None) -> Run:
    """Return the run of a log's path; without one, that of the orchestrator's name for it, or a new one.

    With RUNS_URL, only the stamp in the log's name counts, because each worker has its own folders.
    """
    url = runs_url()
    if argument is not None:
        return run_of_log(argument) if not url else _read_remote(_stamp_of(argument), url, may_be_new=False)
    run_id = pipeline_run_id()
    run = registry.find_run(run_id) if run_id else None
    if not url:
        return run or start_run(run_id)
    # Imported here so that runs on this disk do not pay for it.
    from steplib.runs.remote import find_stamp

    stamp = run.stamp if run else run_id and find_stamp(url, run_id)
    return _read_remote(stamp or start_run(run_id).stamp, url, may_be_new=run is not None or not stamp)


def _read_remote(stamp: str, url: str, *, may_be_new: bool) -> Run:
    """Return a run with what RUNS_URL has of it; a new one need not be there yet."""
    from steplib.runs.remote import RemoteRun

    run = Run(stamp, remote := RemoteRun(url, stamp))
    remote.read()
    is_there = remote.revision >= 0 and not remote.is_removed
    if not is_there and not (may_be_new and not manifest.read_leniently(run.folder)["steps"]):
        raise UsageError(f"LOG: {url} has no run {stamp}, or no longer; start a new run")
    with _explaining_refusals():
        for folder in (logs(), run.folder):
            folder.mkdir(parents=True, exist_ok=True)
    return run


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


def run_of_log(text: str) -> Run:
    """Return the run on this disk whose log a path names. Raises UsageError if it is not there."""
    run, path = Run(_stamp_of(text)), Path(text)
    elsewhere = "if it was made on a different machine, set RUNS_URL on both, and start a new run"
    if path.absolute().parent.resolve() / path.name != run.log:
        raise UsageError(f"LOG: expected the path of a log in {logs()}, found {text[:200]!r}; {elsewhere}")
    if not run.log.is_file():
        raise UsageError(f"LOG: the log does not exist: {run.log}; {elsewhere}")
    if not run.folder.is_dir():
        raise UsageError(f"LOG: the run of this log has been removed: {run.folder} does not exist; start a new run")
    return run


def withdraw(run: Run, *, keep_log: bool) -> bool:
    """Remove a run in which no step has made anything, and wait for the next second; return whether it was one."""
    if manifest.read(run.folder)["artifacts"]:
        return False
    if run.remote:
        from steplib.runs.remote_pruning import withdraw

        withdraw(run.remote)
    shutil.rmtree(run.folder)
    run.release()
    if not keep_log:
        run.log.unlink()
    _wait_for_next_second()
    return True


def _stamp_of(text: str) -> str:
    if not (stamp := stamp_of_log(Path(text))):
        msg = f"LOG: expected the path of a run's log, {Run('YYYY_mm_dd_HH_MM_SS').log}, found {text[:200]!r}"
        raise UsageError(f"{msg}; use the path that the previous step printed")
    return stamp
