"""The ways in which a step ends early; each carries the exit code that every orchestrator sees."""

import errno
import os
import re
import signal
import sys

OS_REFUSALS = {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE}
# How libraries say that memory is out, beside MemoryError and a shared library that cannot be loaded.
NO_MEMORY = "out of memory|can't start new thread"


class PipelineError(Exception):
    """A step cannot go on; the text is one line: the thing, what was expected, what was found, the way out."""

    exit_code = os.EX_SOFTWARE


class UsageError(PipelineError):
    """The command line is wrong, or a step was called before the one whose result it reads."""

    exit_code = os.EX_USAGE


class DataError(PipelineError):
    """The data is not what the step can work with; trying again does not help."""

    exit_code = os.EX_DATAERR


class StorageError(PipelineError):
    """The disk does not take or give what it should."""

    exit_code = os.EX_IOERR


class UnreachableError(PipelineError):
    """The source cannot be reached or was cut off; trying again later may help."""

    exit_code = os.EX_TEMPFAIL


class MemoryShortError(PipelineError):
    """Something that has to be held in memory does not fit."""

    exit_code = os.EX_OSERR


class SettingError(PipelineError):
    """A setting is wrong."""

    exit_code = os.EX_CONFIG


class Stopped(BaseException):
    """A signal asked the step to end."""

    def __init__(self, signum: int) -> None:
        """Keep the number of the signal; the shell's convention makes the exit code of it."""
        super().__init__(signum)
        self.signum = signum
        self.exit_code = 128 + signum


def explain(error: BaseException) -> tuple[str, int]:
    """Return one line for the user, and the exit code."""
    match error:
        case PipelineError():
            text, code = str(error), error.exit_code
        case Stopped():
            text, code = f"stopped by {signal.Signals(error.signum).name}", error.exit_code
        case KeyboardInterrupt():
            text, code = "stopped by Ctrl-C", 128 + signal.SIGINT
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            text = f"{where}{error.strerror or type(error).__name__}; mend that, then run again"
            code = os.EX_OSERR if error.errno in OS_REFUSALS else os.EX_IOERR
        case ModuleNotFoundError():
            way_out = "remove .venv and let run_pipeline.sh make it anew, or install requirements-etl.txt there"
            text, code = f"{sys.executable}: expected the package {error.name}, found none; {way_out}", os.EX_CONFIG
        case _ if isinstance(error, MemoryError | ImportError) or re.search(NO_MEMORY, str(error)):
            text, code = f"expected enough memory, found too little ({type(error).__name__}); give more", os.EX_OSERR
        case _:
            text = f"a defect of the pipeline: {type(error).__name__}; the log says where, please report it"
            code = os.EX_SOFTWARE
    return text, code
