"""How a script becomes a step: argument, log, errors to exit codes, the last line on stdout."""

import logging
import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from steplib import results
from steplib.errors import PipelineError, Stopped, StorageError, UsageError, explain
from steplib.run import LOGS, Run
from steplib.runs import find_run, run_of_log, start_run
from steplib.settings import Settings, pipeline_run_id, read_settings

# A step's work returns the facts for the manifest; `artifacts` and `rows_read` map names to counts of rows.
Work = Callable[[Run, Settings, logging.Logger], Mapping[str, Any]]
# What follows when the work is done and recorded.
Afterwards = Callable[[Run, Settings, logging.Logger], None]
FIRST_STEP = "data_loader"


def main(script: str, doc: str | None, work: Work, afterwards: Afterwards | None = None) -> NoReturn:
    """Run a script as a step and end the process with its exit code.

    stdout gets the log's path as the step's very last act, and only if the step has done its work.
    """
    _open_stderr()
    step = Path(script).stem
    log = _start_talk(step)
    arguments = sys.argv[1:]
    if arguments in (["-h"], ["--help"]):
        optional = f"LOG, the run's log: {LOGS}/log_….log (none starts a run: {FIRST_STEP}.py only)"
        text = f"usage: {step}.py [LOG]\n\n{doc}\n{optional}\n"
        os.write(1, text.encode())
        raise SystemExit(os.EX_OK)
    try:
        stdout = _keep_stdout_clean()
        _on_signals(_raise_stopped)
        run = _open_run(step, arguments)
        with run.locked():
            _add_handler(log, _LogFile(run.log))
            _execute(step, run, work, afterwards, log)
        _hand_on(run.log, stdout)
        exit_code = os.EX_OK
    except BaseException as error:  # noqa: BLE001 - whatever ends a step becomes its exit code here
        exit_code = _report(error, log)
    # At once: no late word of a library after the path, no half second to take scikit-learn down.
    os._exit(exit_code)


def _execute(step: str, run: Run, work: Work, afterwards: Afterwards | None, log: logging.Logger) -> None:
    start = time.perf_counter()
    run.begin(step)
    try:
        log.info("started")
        settings = read_settings()
        results.prune(run, settings.keep_runs, log)
        facts = work(run, settings, log)
        # Said before it is recorded: a log that takes no more must not leave a run that counts as whole.
        log.info("done in %.2f s", time.perf_counter() - start)
        run.finish(step, os.EX_OK, time.perf_counter() - start, facts)
        results.show(run, facts["artifacts"])
        if afterwards:
            afterwards(run, settings, log)
    except BaseException as error:
        # The manifest may be what the disk does not take; the first error is the one to tell.
        with suppress(OSError, PipelineError):
            run.finish(step, explain(error)[1], time.perf_counter() - start, {})
        raise
    # The work is done and shown: nothing from here on may make it look as if it had failed.
    _on_signals(signal.SIG_IGN)
    with suppress(OSError):
        results.prune(run, settings.keep_runs, log)


def _open_run(step: str, arguments: list[str]) -> Run:
    if len(arguments) > 1:
        raise UsageError(f"expected one argument, the log's path, found {len(arguments)}; see --help")
    if arguments:
        return run_of_log(arguments[0])
    if step != FIRST_STEP:
        raise UsageError(f"LOG: expected the path of a run's log, found no argument; get it from etl/{FIRST_STEP}.py")
    run_id = pipeline_run_id()
    return (find_run(run_id) if run_id else None) or start_run(run_id)


def _open_stderr() -> None:
    """Have a stderr, also if the caller closed it: else the next file that is opened would be taken for it."""
    if sys.stderr is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stderr = os.fdopen(2, "w")


def _keep_stdout_clean() -> int:
    """Send all that anything writes to stdout to stderr, and return the true stdout's descriptor."""
    if sys.stdout is None:
        raise StorageError("stdout: expected an open stream for the log's path, found it closed; open it")
    stdout = os.dup(1)
    os.dup2(2, 1)
    return stdout


def _hand_on(log_file: Path, stdout: int) -> None:
    """Write the log's path to stdout, last of all: an orchestrator may merge stderr into it and take the last line."""
    try:
        os.write(stdout, os.fsencode(log_file) + b"\n")
    except OSError as error:
        raise StorageError(f"stdout: expected a stream that takes the log's path, found: {error.strerror}") from error


def _on_signals(handler: Callable[[int, FrameType | None], NoReturn] | signal.Handlers) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, handler)


def _raise_stopped(signum: int, _frame: FrameType | None) -> NoReturn:
    # Once is enough: a second signal would strike the farewell.
    _on_signals(signal.SIG_IGN)
    raise Stopped(signum)


class _OneLine(logging.Formatter):
    """One record is one line: no text from outside can pass for a line of the log, or steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Format, with control characters written out."""
        return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: ascii(found[0])[1:-1], super().format(record))


class _LogFile(logging.StreamHandler[TextIO]):
    """The run's log; unlike other handlers it lets the step know when the disk does not take a line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("a", encoding="utf-8", errors="backslashreplace"))  # open as long as the process

    def emit(self, record: logging.LogRecord) -> None:
        """Append the record's line."""
        self.stream.write(self.format(record) + "\n")
        self.flush()


def _start_talk(step: str) -> logging.Logger:
    """Return the step's logger, at first with stderr alone; other libraries' loggers stay out (they quote URLs)."""
    logging.raiseExceptions = False
    log = logging.getLogger(step)
    log.setLevel(logging.INFO)
    log.propagate = False
    _add_handler(log, logging.StreamHandler())
    warnings.showwarning = lambda text, kind, *_args, **_kwargs: log.warning("%s: %s", kind.__name__, text)
    return log


def _add_handler(log: logging.Logger, handler: logging.Handler) -> None:
    handler.setFormatter(_OneLine(f"[%(asctime)s][%(levelname)s][%(name)s]: [{log.name.upper()}]: %(message)s"))
    log.addHandler(handler)


def _report(error: BaseException, log: logging.Logger) -> int:
    """Log why a step ends; a defect with its traceback, but for its message, which may quote data."""
    text, code = explain(error)
    # A log that takes nothing is the error itself then, and stderr has had the line already.
    with suppress(OSError):
        if code == os.EX_SOFTWARE:
            files = [handler.stream for handler in log.handlers if isinstance(handler, _LogFile)]
            # Before there is a log, stderr has to do.
            (files or [sys.stderr])[0].writelines(traceback.format_tb(error.__traceback__))
        log.error(text)
    return code
