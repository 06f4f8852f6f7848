"""The run that a step belongs to: a new one, or one that is continued."""

import errno
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from steplib.errors import PipelineError, SettingError, UsageError
from steplib.runs import manifest, registry
from steplib.runs.folders import logs, runs, stamp_of_log
from steplib.runs.run import Run
from steplib.settings import pipeline_run_id, runs_url

REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT),
    *(errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG),
}


def open_run(argument: str | None) -> Run:
    """Return the run that a log's path names; without a path, that with the orchestrator's name, or a new one.

    With RUNS_URL, only the stamp in the log's name counts, because each worker has its own folders.
    """
    url, run_id = runs_url(), pipeline_run_id()
    if not url and argument is not None:
        return run_of_log(argument)
    if not url:
        return (registry.find_run(run_id) if run_id else None) or start_run(run_id)
    # Imported here so that runs on this disk do not pay for it.
    from steplib.runs.remote import RemoteRun

    stamp, error = _stamp_of(argument) if argument is not None else None, None
    if not stamp and run_id:
        stamp, error = _find_anywhere(run_id, url)
    stamp = stamp or start_run(run_id).stamp
    run = Run(stamp, RemoteRun(url, stamp, error=error))
    with _explaining_refusals():
        for folder in (logs(), run.folder):
            folder.mkdir(parents=True, exist_ok=True)
    return run


def _find_anywhere(run_id: str, url: str) -> tuple[str | None, PipelineError | None]:
    """Return the stamp of the run that has an orchestrator's name, and the error if RUNS_URL could not be read.

    A run that could not be created in RUNS_URL is on this disk alone.
    """
    from steplib.runs.remote_objects import find_stamp

    stamp, error = None, None
    try:
        stamp = find_stamp(url, run_id)
    except PipelineError as found:
        error = found
    here = registry.find_run(run_id)
    if not stamp and here and (error or not manifest.read_leniently(here.folder)["steps"]):
        stamp = here.stamp
    return stamp, error


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
        raise UsageError(f"LOG: expected a log that exists, found no {run.log}; {elsewhere}")
    if not run.folder.is_dir():
        raise UsageError(f"LOG: the run of this log has been removed: {run.folder} does not exist; start a new run")
    return run


def withdraw(run: Run, *, keep_log: bool) -> bool:
    """Remove a run in which no step has made anything, and wait for the next second; return whether it was removed."""
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
