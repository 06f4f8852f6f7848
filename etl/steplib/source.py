"""The source of the data: a local file or a web address, opened as a stream of bytes."""

import errno
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from steplib.errors import SettingError, UnreachableError
from steplib.settings import ROOT

if TYPE_CHECKING:
    import requests

# The first chunk shows whether this is a CSV: it holds as much as csvfile.HEAD_BYTES.
CHUNK_BYTES = 1 << 20
STATUS_TO_RETRY = {408, 429, *range(500, 600)}


class Source(NamedTuple):
    """Where the data comes from: a name without secrets, the size in bytes if known, the content."""

    name: str
    size: int | None
    chunks: Iterator[bytes]


def open_source(url: str, base: Path, timeout: float) -> AbstractContextManager[Source]:
    """Open a URL or a path; the scheme decides how. A relative path starts from `base`; `timeout` is in seconds."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return open_file(base, url)
    match scheme.lower():
        case "http" | "https":
            return open_http(url, timeout)
        case "file":
            host, slash, path = rest.partition("/")
            if host in {"", "localhost"}:
                return open_file(base, slash + unquote(path))
    msg = f"DATA_URL: expected http://, https://, file:/// or a path, found {redact(url)}; correct it"
    raise SettingError(msg)


@contextmanager
def open_file(base: Path, text: str) -> Iterator[Source]:
    """Open a local file. Raises SettingError if it cannot be read."""
    path = base / (Path.home() / text[2:] if text.startswith("~/") else text)
    try:
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "a folder or device" if path.exists() else "nothing")
        file = path.open("rb")
    except OSError as error:
        # What looks like a path may be a malformed URL with a password in it.
        msg = f"DATA_URL: expected a file at {redact(text)}, found {error.strerror}"
        raise SettingError(f"{msg}; correct the path or its permissions") from error
    with file:
        full = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would also follow links
        name = full.relative_to(ROOT) if full.is_relative_to(ROOT) else full
        yield Source(str(name), path.stat().st_size, iter(lambda: file.read(CHUNK_BYTES), b""))


@contextmanager
def open_http(url: str, timeout: float) -> Iterator[Source]:
    """Open a web address. Raises UnreachableError for a temporary failure, SettingError for a permanent one."""
    # Imported here so that a local file does not pay for it.
    import requests
    from urllib3.exceptions import HTTPError

    name = redact(url)
    try:
        # Uncompressed if the server can, so that Content-Length is the size.
        response = requests.get(url, stream=True, timeout=timeout, headers={"Accept-Encoding": "identity"})
    except (requests.ConnectionError, requests.Timeout) as error:
        msg = f"{name}: could not be reached within {timeout:g} s (DATA_TIMEOUT; {type(error).__name__})"
        raise UnreachableError(f"{msg}; check the server and the network") from None
    except (OSError, ValueError, HTTPError) as error:
        # requests' own errors are OSErrors, but it passes on some errors of urllib3. Their text quotes the whole URL.
        way_out = "correct DATA_URL, the address it redirects to, or the setting of the proxy or the certificates"
        raise SettingError(f"{name}: the address cannot be used ({type(error).__name__}); {way_out}") from None
    with response:
        if response.status_code != requests.codes.ok:
            kind = UnreachableError if response.status_code in STATUS_TO_RETRY else SettingError
            raise kind(f"{name}: expected HTTP status 200, found {response.status_code}; check DATA_URL and its server")
        length = response.headers.get("Content-Length", "")
        packed = response.headers.get("Content-Encoding", "").lower() in {"gzip", "x-gzip"}
        known = re.fullmatch("[0-9]{1,19}", length) and not packed
        yield Source(name, int(length) if known else None, download(name, response, packed=packed))


def download(name: str, response: "requests.Response", *, packed: bool) -> Iterator[bytes]:
    """Yield the body of a response. Raises UnreachableError when it is cut off or damaged."""
    from urllib3.exceptions import HTTPError

    # Decompressed here, because requests accepts a truncated gzip stream as complete.
    response.raw.decode_content = False
    body = gzip.GzipFile(fileobj=response.raw) if packed else response.raw
    # Without these headers, the head itself may have been cut off, and an empty body may not be the whole file.
    framed = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
    try:
        chunk = body.read(CHUNK_BYTES)
        while chunk:
            yield chunk
            framed, chunk = True, body.read(CHUNK_BYTES)
    except (HTTPError, OSError, ValueError, EOFError, zlib.error):
        framed = False
    if not framed:
        msg = f"{name}: the transfer was cut off, stalled or damaged"
        raise UnreachableError(f"{msg}; check the server and the network")


def redact(url: str) -> str:
    """Return a URL without user, password, query and fragment, even if it is malformed."""
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url)
    scheme = found[0] if found else ""
    *hidden, rest = re.split("@|%40", url[len(scheme) :])
    shown = re.split("[?#]|%3F|%23", rest, flags=re.IGNORECASE)[0]
    host = re.match(r"([\w.-]*|\[[0-9A-Fa-f:.]*\])(:[0-9]*)?(/|$)", shown)
    if re.search("[/?#]", "".join(hidden)) or (scheme and not host):
        # Where a password ends, or whether there is one, cannot be known.
        return f"{scheme}***"
    return f"{scheme}{'***@' if hidden else ''}{shown}"
