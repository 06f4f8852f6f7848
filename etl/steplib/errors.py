"""The ways in which a step ends early, each with the exit code that every orchestrator sees."""

import errno
import math
import os
import re
import resource
import signal
import sys
from collections.abc import Sequence

OS_REFUSALS = {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE}
# How libraries report that they are out of memory, apart from MemoryError and a shared library that cannot be loaded.
NO_MEMORY = "out of memory|can't start new thread"
# Address space for require_address_space. The first is enough to load scikit-learn and to fit a small table.
NUMPY_NEEDS = 1 << 30
PYARROW_NEEDS = 4 << 30


class PipelineError(Exception):
    """A step cannot continue; the message is one line: what was expected and found, or what happened; the way out."""

    exit_code = os.EX_SOFTWARE


class UsageError(PipelineError):
    """The command line is wrong, or a step was called before the one whose result it reads."""

    exit_code = os.EX_USAGE


class NameTakenError(UsageError):
    """A run on a different disk has published, or will publish, under this run's name."""


class DataError(PipelineError):
    """The data cannot be used; trying again does not help."""

    exit_code = os.EX_DATAERR


class StorageError(PipelineError):
    """A disk or a storage cannot be written or read."""

    exit_code = os.EX_IOERR


class UnreachableError(PipelineError):
    """The source or the storage cannot be reached or was cut off; trying again later may help."""

    exit_code = os.EX_TEMPFAIL


class MemoryShortError(PipelineError):
    """What has to be held in memory does not fit."""

    exit_code = os.EX_OSERR


class SettingError(PipelineError):
    """A setting is wrong."""

    exit_code = os.EX_CONFIG


class Stopped(BaseException):
    """A signal asked the step to end; its number is the argument."""


def explain(error: BaseException) -> tuple[str, int]:
    """Return one line for the user, and the exit code."""
    match error:
        case PipelineError():
            text, code = str(error), error.exit_code
        case Stopped():
            signum = signal.Signals(error.args[0])
            # The shell's convention.
            text, code = f"stopped by {signum.name}", 128 + signum
        case KeyboardInterrupt():
            text, code = "stopped by Ctrl-C", 128 + signal.SIGINT
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            text = f"{where}{error.strerror or type(error).__name__}; fix this and run again"
            code = os.EX_OSERR if error.errno in OS_REFUSALS else os.EX_IOERR
        case ModuleNotFoundError():
            way_out = "remove .venv so that run_pipeline.sh creates it again, or install requirements-etl.txt"
            text, code = f"{sys.executable}: the package {error.name} is not installed; {way_out}", os.EX_CONFIG
        case _ if isinstance(error, MemoryError | ImportError) or re.search(NO_MEMORY, str(error)):
            text, code = f"out of memory ({type(error).__name__}); give the step more memory", os.EX_OSERR
        case _:
            text = f"a bug in the pipeline ({type(error).__name__}); please report it with its traceback"
            code = os.EX_SOFTWARE
    return text, code


def shorten(names: Sequence[str], most: int = 5) -> str:
    """Return names for one line, only the first ones if there are many."""
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


def printable(text: str) -> str:
    """Escape, as repr does, what would break a line, steer a terminal or fail to be encoded."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def address_space() -> float:
    """Return the bytes of memory that `ulimit -v` allows this process to reserve."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if limit == resource.RLIM_INFINITY else limit


def require_address_space(least: int) -> None:
    """Raise MemoryShortError if `ulimit -v` is below `least` bytes.

    OpenBLAS would hang, and pyarrow would abort the process; neither can be caught.
    """
    if address_space() < least:
        expected = f"expected at least {least >> 20} MiB of address space (ulimit -v)"
        raise MemoryShortError(f"memory: {expected}, found {int(address_space()) >> 20} MiB; raise the limit")
