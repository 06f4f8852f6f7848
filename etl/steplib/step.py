"""How a script becomes a step: argument, log, errors to exit codes, the last line on stdout."""

import argparse
import errno
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
from steplib.errors import PipelineError, Stopped, StorageError, UsageError
from steplib.run import LOGS, Run, find_run, run_of_log, start_run
from steplib.settings import Settings, pipeline_run_id, read_settings

# A step's work returns the facts for the manifest; `artifacts` and `rows_read` map names to counts of rows.
Work = Callable[[Run, Settings, logging.Logger], Mapping[str, Any]]
FIRST_STEP = "data_loader"
OS_REFUSALS = {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE}


def main(script: str, doc: str | None, work: Work) -> NoReturn:
    """Run a script as a step and end the process with its exit code.

    stdout gets the log's path as the step's very last act, and only if the step has done its work.
    """
    step = Path(script).stem
    log = _start_talk(step)
    argument = _read_arguments(step, doc, log)
    try:
        stdout = _keep_stdout_clean()
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, _raise_stopped)
        run = _open_run(step, argument)
        with run.locked():
            _add_handler(log, _LogFile(run.log))
            _execute(step, run, work, log)
        _hand_on(run.log, stdout)
    except BaseException as error:  # noqa: BLE001 - whatever ends a step becomes its exit code here
        _end(_report(error, log))
    _end(os.EX_OK)


def _execute(step: str, run: Run, work: Work, log: logging.Logger) -> None:
    start = time.perf_counter()
    run.begin(step)
    try:
        log.info("started")
        settings = read_settings()
        results.prune(run, settings.keep_runs, log)
        facts = work(run, settings, log)
        run.finish(step, os.EX_OK, time.perf_counter() - start, facts)
        log.info("done in %.2f s", time.perf_counter() - start)
        results.show(run, facts["artifacts"])
        results.prune(run, settings.keep_runs, log)
    except BaseException as error:
        _record_failure(step, run, error, time.perf_counter() - start, log)
        raise


def _record_failure(step: str, run: Run, error: BaseException, seconds: float, log: logging.Logger) -> None:
    try:
        run.finish(step, _explain(error)[1], seconds, {})
    except OSError as second:
        log.warning("manifest.json: the outcome could not be written: %s", second.strerror)


def _open_run(step: str, argument: str | None) -> Run:
    if argument is not None:
        return run_of_log(argument)
    if step != FIRST_STEP:
        raise UsageError(f"LOG: expected the path of a run's log, found no argument; get it from etl/{FIRST_STEP}.py")
    run_id = pipeline_run_id()
    return (find_run(run_id) if run_id else None) or start_run(run_id)


def _read_arguments(step: str, doc: str | None, log: logging.Logger) -> str | None:
    parser = argparse.ArgumentParser(
        prog=f"{step}.py", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, exit_on_error=False
    )
    optional = f" (optional for {FIRST_STEP}.py, which starts one)"
    parser.add_argument("log", metavar="LOG", nargs="?", help=f"path of the run's log, {LOGS}/log_….log{optional}")
    known, unknown = parser.parse_known_args()
    if unknown:
        usage = UsageError(f"expected one argument, the log's path, found {len(unknown)} more; see --help")
        _end(_report(usage, log))
    return None if known.log is None else str(known.log)


def _keep_stdout_clean() -> int:
    """Send all that anything writes to stdout to stderr, and return the true stdout's descriptor."""
    try:
        os.fstat(2)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        stdout = os.dup(1)
    except OSError as error:
        raise StorageError("stdout: expected an open stream for the log's path, found it closed") from error
    os.dup2(2, 1)
    return stdout


def _hand_on(log_file: Path, stdout: int) -> None:
    """Write the log's path to stdout, last of all: an orchestrator may merge stderr into it and take the last line."""
    try:
        os.write(stdout, os.fsencode(log_file) + b"\n")
    except OSError as error:
        raise StorageError(f"stdout: expected a stream that takes the log's path, found: {error.strerror}") from error


def _end(exit_code: int) -> NoReturn:
    """End the process at once: no late word of a library after the path, no half second to take scikit-learn down."""
    os._exit(exit_code)


def _raise_stopped(signum: int, _frame: FrameType | None) -> NoReturn:
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


def _explain(error: BaseException) -> tuple[str, int]:
    """Return one line for the user, and the exit code."""
    match error:
        case PipelineError():
            return str(error), error.exit_code
        case Stopped():
            return f"stopped by {signal.Signals(error.signum).name}", error.exit_code
        case MemoryError():
            return "expected memory for the data, found none left; give the step more", os.EX_OSERR
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            code = os.EX_OSERR if error.errno in OS_REFUSALS else os.EX_IOERR
            return f"{where}{error.strerror or type(error).__name__}; mend that, then run again", code
        case ModuleNotFoundError():
            way_out = "use the .venv that run_pipeline.sh makes, or install requirements-etl.txt"
            return f"{sys.executable}: expected the package {error.name}, found none; {way_out}", os.EX_CONFIG
        case _:
            text = f"a defect of the pipeline: {type(error).__name__}; the log says where, please report it"
            return text, os.EX_SOFTWARE


def _report(error: BaseException, log: logging.Logger) -> int:
    """Log why a step ends; a defect with its traceback, but for its message, which may quote data."""
    text, code = _explain(error)
    # A log that takes nothing is the error itself then, and stderr has had the line already.
    with suppress(OSError):
        log.error(text)
        if code == os.EX_SOFTWARE:
            for handler in log.handlers:
                if isinstance(handler, _LogFile):
                    handler.stream.writelines(traceback.format_tb(error.__traceback__))
                    handler.flush()
    return code
