"""The ways in which a step ends early; each carries the exit code that every orchestrator sees."""

import os


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
