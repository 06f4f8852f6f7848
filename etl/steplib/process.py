"""Running a script: its signals, and each way in which it ends as one line and an exit code."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from steplib import imports, streams
from steplib.errors import Stopped, explain, printable
from steplib.log import log_to_stderr

if TYPE_CHECKING:
    from argparse import ArgumentParser


def main_of_tool(work: Callable[[list[str]], None]) -> NoReturn:
    """Run a script that prints for people, and end the process with its exit code."""
    code = os.EX_OK
    streams.open_stderr()
    try:
        # Written at once, because an error may follow; escaped, if the terminal has no such character.
        streams.open_stdout().reconfigure(errors="backslashreplace", line_buffering=True)
        # --help has been printed; a reader such as `head` has seen enough.
        with suppress(SystemExit, BrokenPipeError):
            work(sys.argv[1:])
    except BaseException as error:  # noqa: BLE001 - whatever ends a tool becomes its exit code here
        text, code = explain(error)
        if code == os.EX_SOFTWARE:
            traceback.print_tb(error.__traceback__)
        sys.stderr.write(f"{Path(sys.argv[0]).name}: {printable(text)}\n")
    # Not SystemExit: a reader that has closed the pipe (`| head`) would fail the interpreter's last flush.
    os._exit(code)


def main_of_writer(script: str, parser: "ArgumentParser", work: Callable[..., Path]) -> NoReturn:
    """Run a script whose only line on stdout is the path of what it wrote, and end the process with its exit code.

    `work` gets the parsed arguments and a logger that writes to stderr.
    """
    streams.open_stderr()
    log = log_to_stderr(Path(script).stem)
    code = os.EX_OK
    try:
        streams.open_stdout().reconfigure(errors="backslashreplace", line_buffering=True)
        try:
            arguments = parser.parse_args()
        except SystemExit:
            os._exit(code)  # --help has been printed
        stdout = streams.keep_stdout_clean()
        imports.keep_out()
        on_signals(raise_stopped)
        path = work(arguments, log)
        on_signals(signal.SIG_IGN)
        streams.hand_on(path, stdout)
    except BaseException as error:  # noqa: BLE001 - whatever ends a script becomes its exit code here
        code = report(error, log)
    # As in step.main.
    os._exit(code)


def on_signals(handler: Callable[[int, FrameType | None], NoReturn] | signal.Handlers) -> None:
    """Set what Ctrl-C and SIGTERM do."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, handler)


def raise_stopped(signum: int, _frame: FrameType | None) -> NoReturn:
    """Raise Stopped, as a handler of signals."""
    # Ignore further signals: a second one would interrupt the clean-up.
    on_signals(signal.SIG_IGN)
    raise Stopped(signum)


def report(error: BaseException, log: logging.Logger) -> int:
    """Log why a script ends; a defect with its traceback but without its message, which may quote data."""
    text, code = explain(error)
    # If the log itself is what failed, stderr has received the line already.
    with suppress(OSError):
        if code == os.EX_SOFTWARE:
            # The log, or stderr if there is no log yet.
            getattr(log.handlers[-1], "stream", sys.stderr).writelines(traceback.format_tb(error.__traceback__))
        log.error(text)
    return code
