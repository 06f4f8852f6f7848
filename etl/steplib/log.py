"""The lines that a script writes to its log and to stderr."""

import logging
import warnings
from pathlib import Path

from steplib.errors import printable


class _OneLine(logging.Formatter):
    """One record is one line: text from outside can neither look like a line of the log nor steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Format, with control characters escaped."""
        return printable(super().format(record))


class _LogFile(logging.FileHandler):
    """The run's log; unlike other handlers it raises when a line cannot be written."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802, ARG002 - logging's name
        """Raise the error that is being handled."""
        raise  # noqa: PLE0704 - logging calls this where it has caught one


def log_to_stderr(step: str) -> logging.Logger:
    """Return the step's logger, at first for stderr only; other libraries' loggers stay out because they quote URLs."""
    logging.raiseExceptions = False
    log = logging.getLogger(step)
    log.setLevel(logging.INFO)
    log.propagate = False
    _add(log, logging.StreamHandler())
    warnings.showwarning = lambda text, kind, *_args, **_kwargs: log.warning("%s: %s", kind.__name__, text)
    return log


def add_log_file(log: logging.Logger, path: Path) -> logging.Handler:
    """Make the logger write to a file too, and return the handler."""
    handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    _add(log, handler)
    return handler


def _add(log: logging.Logger, handler: logging.Handler) -> None:
    handler.setFormatter(_OneLine(f"[%(asctime)s][%(levelname)s][%(name)s]: [{log.name.upper()}]: %(message)s"))
    log.addHandler(handler)
