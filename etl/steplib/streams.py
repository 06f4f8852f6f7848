"""stderr, and stdout, whose only line is the log's path."""

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import cast

from steplib.errors import StorageError


def open_stderr() -> None:
    """Make sure file descriptor 2 is open; otherwise the next file opened would receive everything written to it."""
    if sys.stderr is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stderr = os.fdopen(2, "w")


def open_stdout() -> TextIOWrapper:
    """Return stdout. Raises StorageError if the caller has closed it."""
    if sys.stdout is None:
        raise StorageError("stdout: expected an open stream, found it closed; open it")
    return cast("TextIOWrapper", sys.stdout)


def keep_stdout_clean() -> int:
    """Redirect everything written to stdout to stderr, and return a descriptor of the real stdout."""
    open_stdout()
    stdout = os.dup(1)
    os.dup2(2, 1)
    return stdout


def hand_on(path: Path, stdout: int) -> None:
    """Write a path last of all: an orchestrator may merge stderr into stdout and take the last line."""
    try:
        os.write(stdout, os.fsencode(path) + b"\n")
    except OSError as error:
        msg = f"stdout: the path could not be written ({error.strerror})"
        raise StorageError(f"{msg}; run this again with stdout open") from error
