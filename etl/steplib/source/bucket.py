"""An object in a storage as the source: streamed, and checked to be whole and unchanged at its end."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from steplib.address import check_storage_url
from steplib.errors import SettingError, UnreachableError
from steplib.source.address import redact
from steplib.source.opening import CHUNK_BYTES, Source, check_before_last
from steplib.storage.places import open_storage, translate_errors

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Fetched by one request; memory holds a few times this much.
READAHEAD_BYTES = 8 * CHUNK_BYTES
# What fsspec's backends call an object's version, the most precise first, and the time at which it was written.
VERSIONS = ("VersionId", "version_id", "generation", "ETag", "etag")
TIMES = ("LastModified", "last_modified", "mtime", "modified", "modify", "modificationTime")


@contextmanager
def open_object(url: str) -> Iterator[Source]:
    """Open an object. Raises UnreachableError for a temporary failure, SettingError for a permanent one."""
    url = check_storage_url(url, "DATA_URL")
    name = redact(url)
    with translate_errors(name):
        try:
            files, path = open_storage(url)
        except SettingError as error:
            raise SettingError(str(error).replace(url, name)) from error
        found = look_up(files, path, name)
    yield Source(name, found.get("size"), read_object(files, path, name, found), version(found))


def look_up(files: "AbstractFileSystem", path: str, name: str) -> dict[str, Any]:
    """Return what the storage says about an object. Raises SettingError if there is none."""
    try:
        info: dict[str, Any] = files.info(path)
    except FileNotFoundError:
        info = {"type": "nothing"}
    if info["type"] != "file":
        found = "a folder" if info["type"] == "directory" else info["type"]
        raise SettingError(f"DATA_URL: expected an object at {name}, found {found}; correct the bucket or the path")
    return info


def read_object(files: "AbstractFileSystem", path: str, name: str, before: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the content. Raises UnreachableError if it is cut off, or no longer the object that was looked up."""

    def check_same() -> None:
        try:
            same = _identity(files.info(path)) == _identity(before)
        except FileNotFoundError:
            same = False
        if not same:
            raise UnreachableError(f"{name}: the object changed while it was read; repeat the step")

    def check_end(_: bytes) -> None:
        check_same()
        if before.get("size") not in {None, file.tell()}:
            msg = f"{name}: the transfer was cut off: expected {before['size']} bytes, found {file.tell()}"
            raise UnreachableError(f"{msg}; check the storage and the network")

    with translate_errors(name):
        try:
            with files.open(path, "rb", block_size=READAHEAD_BYTES, cache_type="readahead") as file:
                yield from check_before_last(iter(lambda: file.read(CHUNK_BYTES), b""), check_end)
        except Exception:
            # For an object that changes while it is read, each client raises a different error.
            check_same()
            raise


def version(info: Mapping[str, Any]) -> str | None:
    """Return an object's version, generation or ETag, whichever its storage has."""
    # S3 gives the version "null" to objects in a bucket without versions.
    found = (str(info.get(name) or "").strip('"') for name in VERSIONS)
    return next((text for text in found if text not in {"", "null"}), None)


def _identity(info: Mapping[str, Any]) -> list[Any]:
    return [info.get(name) for name in (*VERSIONS, *TIMES, "size")]
