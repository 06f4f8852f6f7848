"""The source of the data, opened as a stream of bytes; local files are read here."""

import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import unquote

from steplib.address import STORAGE_SCHEMES
from steplib.envfile import ROOT
from steplib.errors import SettingError, UnreachableError
from steplib.source.address import redact

# The first chunk shows whether this is a CSV: it holds as much as csvfile.HEAD_BYTES.
CHUNK_BYTES = 1 << 20
# A file that may be incomplete counts as complete if it has not been written to for this long; longer, if a process has
# it open for writing.
SECONDS_UNTOUCHED, SECONDS_OF_WRITER = 2, 10


class Source(NamedTuple):
    """Where the data comes from: a name without secrets, the size in bytes and the version if known, the content."""

    name: str
    size: int | None
    chunks: Iterator[bytes]
    version: str | None = None


def open_source(url: str, base: Path, timeout: float) -> AbstractContextManager[Source]:
    """Open a URL or a path; the scheme decides how. A relative path starts from `base`; `timeout` is in seconds."""
    if path := path_of(url, base):
        return open_file(url, path)
    match url.partition("://")[0].lower():
        case "http" | "https":
            # Imported here so that a local file does not pay for requests.
            from steplib.source.web import open_http

            return open_http(url, timeout)
        case storage if storage in STORAGE_SCHEMES:
            from steplib.source.bucket import open_object

            return open_object(url)
    expected = "http(s)://, file:///, a storage like s3://, gs:// or abfs://, or a path"
    raise SettingError(f"DATA_URL: expected {expected}, found {redact(url)}; correct it")


def path_of(url: str, base: Path) -> Path | None:
    """Return the path of a source on this disk, None for a different one."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        # expanduser never raises; Path's method does.
        return base / (os.path.expanduser(url) if url.startswith("~/") else url)  # noqa: PTH111
    host, slash, path = rest.partition("/")
    return base / (slash + unquote(path)) if scheme.lower() == "file" and host in {"", "localhost"} else None


@contextmanager
def open_file(text: str, path: Path) -> Iterator[Source]:
    """Open a local file; `text` is how it was given. Raises SettingError if it cannot be read."""
    try:
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "a folder or device" if path.exists() else "nothing")
        before, file = path.stat(), path.open("rb")
    except OSError as error:
        # What looks like a path may be a malformed URL with a password in it.
        msg = f"DATA_URL: expected a file at {redact(text)}, found {error.strerror}"
        raise SettingError(f"{msg}; correct the path or its permissions") from error
    with file:
        full = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would also follow links
        name = str(full.relative_to(ROOT) if full.is_relative_to(ROOT) else full)
        yield Source(name, before.st_size, read_file(name, path, file, before))


def read_file(name: str, path: Path, file: BinaryIO, before: os.stat_result) -> Iterator[bytes]:
    """Yield the content. Raises UnreachableError for a file that is being written, or was changed after `before`."""

    def check_end(end: bytes) -> None:
        has_writer = _has_writer(file)
        if has_writer is not False or end != b"\n":
            quiet = SECONDS_OF_WRITER if has_writer else SECONDS_UNTOUCHED
            time.sleep(min(max(before.st_mtime + quiet - time.time(), 0), quiet))
        changed = not path.exists() or _version(path.stat()) != _version(before)
        if changed or (has_writer and end != b"\n"):
            msg = f"{name}: the file changed while it was read, or is not complete yet"
            raise UnreachableError(f"{msg}; repeat the step when it is, and end the file with a line end")

    return check_before_last(iter(lambda: file.read(CHUNK_BYTES), b""), check_end)


def _has_writer(file: BinaryIO) -> bool | None:
    """Return whether a process has the file open for writing; None if the system does not say.

    Linux grants a lease for reading only if there is none (fcntl(2), F_SETLEASE). It grants none at all for files of
    others, nor, as if there were a writer, on some network shares.
    """
    # Sent to the holder of a lease if a writer comes, and fatal by default.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    return False


def _version(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def check_before_last(chunks: Iterator[bytes], check_end: Callable[[bytes], None]) -> Iterator[bytes]:
    """Yield the chunks, but the last one only when `check_end` has accepted its last byte, or b"" if there is none.

    Otherwise a truncated file would be checked as if it were complete.
    """
    chunk = next(chunks, b"")
    for following in chunks:
        yield chunk
        chunk = following
    check_end(chunk[-1:])
    if chunk:
        yield chunk
