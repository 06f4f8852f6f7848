"""The arguments of the scripts that are not steps."""

import re
from argparse import ArgumentParser
from typing import NoReturn

from steplib.errors import UsageError


class Parser(ArgumentParser):
    """A parser whose errors end like those of the steps."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError, without the arguments, which may hold a password."""
        message = re.sub("(unrecognized arguments|invalid choice): .*", r"\1", message)
        raise UsageError(f"{message}; see --help")
