"""The file `.env` in the project's root."""

import io
import os
import re
from pathlib import Path

from steplib.errors import SettingError

ROOT = Path(__file__).resolve().parents[2]
ENV_FILE = ROOT / ".env"


def read() -> dict[str, str]:
    """Return the texts in `.env` by name. Raises SettingError for a line that python-dotenv alone would ignore."""
    if not ENV_FILE.exists():
        return {}
    # Imported here so that runs without a .env do not pay for it.
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        if not ENV_FILE.is_file():
            raise IsADirectoryError
        text = ENV_FILE.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{ENV_FILE}: expected a readable UTF-8 text file, found {type(error).__name__}; correct or remove it"
        raise SettingError(msg) from error
    for binding in parse_stream(io.StringIO(text)):
        # A name in double quotes, or in a file saved as UTF-16, would be ignored.
        odd = "\0" in binding.original.string or not re.fullmatch(r"[\w.-]*", binding.key or "")
        if binding.error or odd:
            msg = f"{ENV_FILE}, line {binding.original.line}: expected NAME=value; correct or remove the line"
            raise SettingError(msg)
    # A name without "=" has no value, which python-dotenv gives as None.
    return {name: value or "" for name, value in dotenv_values(stream=io.StringIO(text)).items()}


def export() -> None:
    """Copy `.env` into the environment, where the clouds' libraries look for their credentials."""
    for name, text in read().items():
        if text and not os.environ.get(name):
            os.environ[name] = text
