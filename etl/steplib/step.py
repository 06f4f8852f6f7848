"""How a script becomes a step: its argument, its log, errors to exit codes, the last line on stdout."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from steplib import imports, streams
from steplib.errors import (
    NameTakenError,
    PipelineError,
    SettingError,
    UnreachableError,
    UsageError,
    explain,
)
from steplib.log import add_log_file, log_to_stderr
from steplib.process import on_signals, raise_stopped, report
from steplib.runs import manifest, opening, registry
from steplib.runs.pruning import prune
from steplib.runs.run import Run
from steplib.settings import Settings, pipeline_run_id, read_settings

# A step's work returns the facts for the manifest; `artifacts` and `rows_read` map names to counts of rows.
Work = Callable[[Run, Settings, logging.Logger], Mapping[str, Any]]
# What follows when the work is done and recorded.
Publish = Callable[[Run, Settings, logging.Logger], None]
FIRST_STEP = manifest.STEPS[0]


def main(script: str, doc: str | None, work: Work, publish: Publish | None = None) -> NoReturn:
    """Run a script as a step and end the process with its exit code.

    stdout gets the log's path as the step's very last act, and only if the step has done its work.
    """
    streams.open_stderr()
    step = Path(script).stem
    log = log_to_stderr(step)
    arguments = sys.argv[1:]
    if arguments in (["-h"], ["--help"]):
        optional = f"LOG: the path of the run's log, logs/log_….log; without it {FIRST_STEP}.py starts a new run"
        os.write(1, f"usage: {step}.py [LOG]\n\n{doc}\n{optional}\n".encode())
        raise SystemExit(os.EX_OK)
    imports.keep_out()
    run: Run | None = None
    execute = partial(_execute, step, work, publish, log)
    try:
        stdout = streams.keep_stdout_clean()
        on_signals(raise_stopped)
        argument = _argument(step, arguments)
        while True:
            run = opening.open_run(argument)
            if _run_once(run, execute, log, is_new=argument is None):
                break
        run.save_log()
        streams.hand_on(run.log, stdout)
        exit_code = os.EX_OK
    except BaseException as error:  # noqa: BLE001 - whatever ends a step becomes its exit code here
        exit_code = report(error, log)
        on_signals(signal.SIG_IGN)
        if run:
            run.save_log()
    # Exit at once: no library can then write after the path, and unloading scikit-learn would take half a second.
    os._exit(exit_code)


def _run_once(run: Run, execute: Callable[[Run], None], log: logging.Logger, *, is_new: bool) -> bool:
    """Run the step; return False if the name of a new run is taken, so that a further run can be opened."""
    with run.locked():
        first_try = not manifest.read_leniently(run.folder)["steps"]
        file = None
        try:
            file = _restore(run, log)
            execute(run)
        except NameTakenError:
            if not is_new or not opening.withdraw(run, keep_log=not first_try):
                raise
            log.warning("run %s: this name is taken; starting again under a new one", run.stamp)
            if file:
                log.removeHandler(file)
            return False
    return True


def _restore(run: Run, log: logging.Logger) -> logging.Handler:
    """Bring the run to this disk and log to its log; if RUNS_URL fails, an existing log gets the error too."""
    try:
        run.restore()
    except (UnreachableError, SettingError):
        if run.log.is_file():
            add_log_file(log, run.log)
        raise
    return add_log_file(log, run.log)


def _execute(step: str, work: Work, publish: Publish | None, log: logging.Logger, run: Run) -> None:
    start = time.perf_counter()
    run.begin(step)
    try:
        log.info("started")
        settings = read_settings()
        if step == FIRST_STEP:
            registry.warn_of_clocks(log)
        # Before the work, to make room for it; after it, because this run counts then.
        prune(run, settings.keep_runs, log)
        facts = work(run, settings, log)
        # Log before recording: if the log cannot be written, the run must not count as complete.
        log.info("done in %.2f s", time.perf_counter() - start)
        run.finish(step, os.EX_OK, time.perf_counter() - start, facts)
        registry.point_results_at(run, facts["artifacts"])
        if publish:
            publish(run, settings, log)
            run.note_published()
        if not pipeline_run_id():
            run.release()  # otherwise the orchestrator does
    except BaseException as error:
        # The disk may refuse the manifest too; the first error is the one to report.
        code = explain(error)[1]
        with suppress(OSError, PipelineError):
            run.finish(step, code, time.perf_counter() - start, {})
            if isinstance(error, Exception) and code != os.EX_TEMPFAIL:
                # From now on it counts among the runs that failed.
                _prune_everywhere(run, read_settings().keep_runs, log)
        raise
    # The work is done and shown: nothing from here on may make it look as if it had failed.
    on_signals(signal.SIG_IGN)
    with suppress(OSError, PipelineError):
        if publish:
            _prune_everywhere(run, settings.keep_runs, log)
        else:
            prune(run, settings.keep_runs, log, patience=1)


def _prune_everywhere(run: Run, keep: int, log: logging.Logger) -> None:
    prune(run, keep, log, patience=1)
    if run.remote:
        from steplib.runs import remote_pruning

        remote_pruning.prune(run.remote, keep, log)


def _argument(step: str, arguments: list[str]) -> str | None:
    """Return the log's path, which only the first step can do without."""
    if len(arguments) > 1:
        raise UsageError(f"expected one argument, the log's path, found {len(arguments)}; see --help")
    if not arguments and step != FIRST_STEP:
        raise UsageError(f"LOG: expected the path of a run's log, found no argument; get it from etl/{FIRST_STEP}.py")
    return arguments[0] if arguments else None
