"""The part of an address that may be shown: nothing that could be a secret."""

import re
from itertools import takewhile
from urllib.parse import unquote

from steplib.address import STORAGE_SCHEMES

HIDDEN = "***"
# The scheme, and with it Azure's container@, which is not a user.
START = re.compile(r"(abfss?)://[a-z0-9-]+@(?=[^@]*$)|([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
SHOWN_SCHEMES = {"http", "https", *STORAGE_SCHEMES}


def redact(address: str) -> str:
    """Return an address without user, password, query, fragment and parameters, even if it is malformed.

    Only what is plainly the address of a web server or a storage, or a path, is shown: others may be secrets.
    """
    found = START.match(address)
    if not found:
        return HIDDEN if re.match("[^/]*:", address) or _has_parameters(address) else address
    if (found[1] or found[2]).lower() not in SHOWN_SCHEMES:
        return found[0] + HIDDEN
    *hidden, rest = re.split("@|%40", address[found.end() :])
    shown = re.split("[?#]|%3F|%23", rest, flags=re.IGNORECASE)[0]
    host = re.match(r"([\w.-]*|\[[0-9A-Fa-f:.]*\])(:[0-9]*)?(/|$)", shown)
    if re.search("[/?#]", "".join(hidden)) or not host:
        # Where a password ends, or whether there is one, cannot be known.
        return found[0] + HIDDEN
    start = found[0] + (f"{HIDDEN}@" if hidden else "")
    # All that follows is hidden too, because a parameter may contain a slash.
    kept = "/".join(takewhile(lambda part: not _has_parameters(part), shown.split("/")))
    return start + (shown if kept == shown else f"{kept}/{HIDDEN}")


def _has_parameters(text: str) -> bool:
    """Return whether there is a character of parameters, a user or a query, escaped any number of times."""
    while (decoded := unquote(text)) != text:
        text = decoded
    return re.search("[;&=?#@{}]", text) is not None
