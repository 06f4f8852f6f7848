"""A web address as the source."""

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import requests
from urllib3.exceptions import HTTPError

from steplib.errors import SettingError, UnreachableError
from steplib.source.address import redact
from steplib.source.opening import CHUNK_BYTES, Source

STATUS_TO_RETRY = {408, 429, *range(500, 600)}


@contextmanager
def open_http(url: str, timeout: float) -> Iterator[Source]:
    """Open a web address. Raises UnreachableError for a temporary failure, SettingError for a permanent one."""
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


def download(name: str, response: requests.Response, *, packed: bool) -> Iterator[bytes]:
    """Yield the body of a response. Raises UnreachableError when it is cut off or damaged."""
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
