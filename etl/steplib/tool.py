"""How a script that is no step runs: it prints to people, writes no log, and ends with the same exit codes."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from steplib.errors import explain


def main(script: str, doc: str | None, work: Callable[[list[str]], None]) -> NoReturn:
    """Run a tool with its arguments; an error is one line on stderr."""
    arguments = sys.argv[1:]
    code = os.EX_OK
    try:
        if arguments in (["-h"], ["--help"]):
            print(doc)
        else:
            work(arguments)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - whatever ends a tool becomes its exit code here
        text, code = explain(error)
        if code == os.EX_SOFTWARE:
            traceback.print_tb(error.__traceback__)
        print(f"{Path(script).name}: {text}", file=sys.stderr)
    os._exit(code)
