"""The runs among each other: starting one, and finding one by its log or by an orchestrator's name for it."""

import time
from datetime import datetime
from pathlib import Path

from steplib import manifest as manifests
from steplib.errors import UsageError
from steplib.run import LOGS, RUNS, STAMP, Run

STAMP_FORMAT = "%Y_%m_%d_%H_%M_%S"


def start_run(run_id: str | None) -> Run:
    """Claim the present second as a new run's stamp: making the folder is what only one process can do.

    A second that is taken already is waited out, so that the stamp stays the true time of the start.
    """
    LOGS.mkdir(exist_ok=True)
    RUNS.mkdir(parents=True, exist_ok=True)
    while True:
        # Local time: the log's name and its lines are read by people.
        run = Run(datetime.now().strftime(STAMP_FORMAT))  # noqa: DTZ005 - see above
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
        run.write_manifest(manifests.new_manifest(run.stamp, run_id))
        return run


def find_run(run_id: str) -> Run | None:
    """Return the run that was started under an orchestrator's name for it."""
    return next((run for run in all_runs() if manifests.read_quietly(run.folder).get("run_id") == run_id), None)


def all_runs() -> list[Run]:
    """Return the runs that are kept, the newest first; what else lies among them is left alone.

    By the start in UTC, which stands in order also when the clock goes back an hour in autumn.
    """
    folders = [path for path in RUNS.glob("*") if STAMP.fullmatch(path.name) and path.is_dir()]
    newest_first = sorted(folders, key=lambda path: str(manifests.read_quietly(path)["started"]), reverse=True)
    return [Run(folder.name) for folder in newest_first]


def run_of_log(text: str) -> Run:
    """Return the run whose log a path names. Raises UsageError for anything but an existing log of this project."""
    path = Path(text)
    run = Run(path.name.removeprefix("log_").removesuffix(".log"))
    if (
        not STAMP.fullmatch(run.stamp)
        or path.absolute().parent.resolve() / path.name != run.log
        or not run.log.is_file()
    ):
        msg = f"LOG: expected the path of a run's log, {LOGS}/log_YYYY_mm_dd_HH_MM_SS.log, found {text[:200]!r}"
        raise UsageError(f"{msg}; take the path from the step before")
    if not run.folder.is_dir():
        raise UsageError(f"LOG: expected the log of a run that is kept, found no {run.folder}; start a new run")
    return run
