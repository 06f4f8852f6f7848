"""Load the source of the data, as it is, into the run's raw_data.csv.

Reads     DATA_URL: http(s)://…, file://… or a path (default: the embedded data/wdbc.csv).
Writes    raw_data.csv, byte for byte what the source gave; starts the run's log, or goes on with LOG.
Refuses   with 75 (to be tried again): a source that cannot be reached or breaks off; HTTP 408, 429, 5xx;
          with 78: a missing file, an unknown scheme, any other HTTP status;
          with 74: a source larger than the free disk;
          with 65: what is not a CSV (HTML, JSON, an archive, a spreadsheet, binary data, an empty file).
"""

import errno
import gzip
import logging
import os
import re
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple
from urllib.parse import unquote

from steplib import step
from steplib.csvfile import HEAD_BYTES, check_head
from steplib.errors import SettingError, StorageError, UnreachableError
from steplib.run import Run
from steplib.settings import ROOT, Settings

if TYPE_CHECKING:
    import requests

CHUNK_BYTES = HEAD_BYTES
STATUS_TO_RETRY = {408, 429, *range(500, 600)}


class Source(NamedTuple):
    """Where the data comes from: a name without secrets, the size in bytes if known, the content."""

    name: str
    size: int | None
    chunks: Iterator[bytes]


def load(run: Run, settings: Settings, log: logging.Logger) -> dict[str, Any]:
    """Stream the source into raw_data.csv."""
    with open_source(settings) as source, run.writing("raw_data.csv") as part:
        log.info("source: %s, %s", source.name, "size unknown" if source.size is None else f"{source.size} bytes")
        check_space(source, run.folder, source.size or 0)
        store(source, part)
        log.info("raw_data.csv: %d bytes written", part.stat().st_size)
    return {"source": source.name, "artifacts": {"raw_data.csv": None}}


def open_source(settings: Settings) -> AbstractContextManager[Source]:
    """Open what DATA_URL names; the scheme decides how."""
    scheme, separator, rest = settings.data_url.partition("://")
    if not separator:
        return open_file(settings.data_base, settings.data_url)
    match scheme.lower():
        case "http" | "https":
            return open_http(settings.data_url, settings.data_timeout)
        case "file":
            host, slash, path = rest.partition("/")
            if host in {"", "localhost"}:
                return open_file(settings.data_base, slash + unquote(path))
    msg = f"DATA_URL: expected http://, https://, file:/// or a path, found {redact(settings.data_url)}; correct it"
    raise SettingError(msg)


@contextmanager
def open_file(base: Path, text: str) -> Iterator[Source]:
    """Open a local file; a relative path starts from `base`. Raises SettingError if there is none to be read."""
    path = base / (Path.home() / text[2:] if text.startswith("~/") else text)
    try:
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "a folder or device" if path.exists() else "nothing")
        file = path.open("rb")
    except OSError as error:
        # What looks like a path may be a URL gone wrong, with a password in it.
        msg = f"DATA_URL: expected a file at {redact(text)}, found {error.strerror}; correct the path or its rights"
        raise SettingError(msg) from error
    with file:
        whole = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links as well
        name = whole.relative_to(ROOT) if whole.is_relative_to(ROOT) else whole
        yield Source(str(name), path.stat().st_size, iter(lambda: file.read(CHUNK_BYTES), b""))


@contextmanager
def open_http(url: str, timeout: float) -> Iterator[Source]:
    """Open a web address. Raises UnreachableError for what may pass, SettingError for what will not."""
    # Here, so that a local file does not pay for the import.
    import requests
    from urllib3.exceptions import HTTPError

    name = redact(url)
    try:
        # Not packed if the server can help it, so that Content-Length tells the size.
        response = requests.get(url, stream=True, timeout=timeout, headers={"Accept-Encoding": "identity"})
    except (requests.ConnectionError, requests.Timeout) as error:
        msg = f"{name}: expected an answer within {timeout:g} s (DATA_TIMEOUT), found none ({type(error).__name__})"
        raise UnreachableError(f"{msg}; check the server and the network") from None
    except (OSError, ValueError, HTTPError) as error:
        # requests' own errors are OSErrors; it lets some of a malformed address through as they are. Their text
        # quotes the whole URL.
        msg = f"{name}: expected a web address that works, found {type(error).__name__}"
        raise SettingError(
            f"{msg}; correct DATA_URL, where it leads, or the proxy's or certificates' setting"
        ) from None
    with response:
        if response.status_code != requests.codes.ok:
            kind = UnreachableError if response.status_code in STATUS_TO_RETRY else SettingError
            raise kind(f"{name}: expected HTTP status 200, found {response.status_code}; check DATA_URL and its server")
        length = response.headers.get("Content-Length", "")
        packed = response.headers.get("Content-Encoding", "").lower() in {"gzip", "x-gzip"}
        known = re.fullmatch("[0-9]{1,19}", length) and not packed
        yield Source(name, int(length) if known else None, download(name, response, packed=packed))


def download(name: str, response: "requests.Response", *, packed: bool) -> Iterator[bytes]:
    """Yield the body of a response. Raises UnreachableError when it breaks off or is damaged."""
    from urllib3.exceptions import HTTPError

    # Unpacked here, since requests takes a gzip stream that stops short for a whole one.
    response.raw.decode_content = False
    body = gzip.GzipFile(fileobj=response.raw) if packed else response.raw
    # Without either, the headers themselves may have been cut off: what then follows is no empty file.
    framed = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
    try:
        chunk = body.read(CHUNK_BYTES)
        while chunk:
            yield chunk
            framed, chunk = True, body.read(CHUNK_BYTES)
    except (HTTPError, OSError, ValueError, EOFError, zlib.error):
        framed = False
    if not framed:
        msg = f"{name}: expected the whole file, found a transfer that broke off, stalled or was damaged"
        raise UnreachableError(f"{msg}; check the server and the network")


def redact(url: str) -> str:
    """Return a URL without user, password, query and fragment, also if it is malformed."""
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", url)
    scheme = found[0] if found else ""
    *hidden, rest = re.split("@|%40", url[len(scheme) :])
    shown = re.split("[?#]|%3F|%23", rest, flags=re.IGNORECASE)[0]
    host = re.match(r"([\w.-]*|\[[0-9A-Fa-f:.]*\])(:[0-9]*)?(/|$)", shown)
    if re.search("[/?#]", "".join(hidden)) or (scheme and not host):
        # Where a password ends, or whether it is one, cannot be told.
        return f"{scheme}***"
    return f"{scheme}{'***@' if hidden else ''}{shown}"


def store(source: Source, part: Path) -> None:
    """Write the content, once its beginning is that of a CSV. Memory holds a chunk, no more."""
    head = next(source.chunks, b"")
    check_head(head)
    with part.open("wb") as file, progress(file, source.size) as out:
        for chunk in chain([head], source.chunks):
            check_space(source, part.parent, len(chunk))
            out.write(chunk)


def check_space(source: Source, folder: Path, needed: int) -> None:
    """Raise StorageError rather than fill the disk."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        msg = f"{source.name}: expected {needed} bytes free in {folder}, found {free}; free some or move the results"
        raise StorageError(msg)


def progress(file: BinaryIO, size: int | None) -> AbstractContextManager[Any]:
    """Return the file with a bar that shows what is written, on a terminal; elsewhere the file as it is."""
    if not sys.stderr.isatty():
        return nullcontext(file)
    from tqdm import tqdm

    return tqdm.wrapattr(file, "write", total=size, unit="B", unit_scale=True, leave=False)


if __name__ == "__main__":
    step.main(__file__, __doc__, load)
