"""Files in any place that fsspec knows: object stores, disks. What is there is whole, and is what was sent."""

import errno
import hashlib
import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steplib import backends
from steplib import manifest as manifests
from steplib.errors import DataError, StorageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from fsspec.callbacks import Callback

# Large files go in parts; what is in memory at once is parts times files times two.
PART_BYTES = 8 * 1024 * 1024
PARTS_AT_ONCE = 4
# What a disk without hard links answers.
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def put_artifact(
    files: "AbstractFileSystem", local: Path, path: str, record: dict[str, Any], callback: "Callback"
) -> None:
    """Send a file if it is not there yet, and see that the storage holds what the manifest says."""
    sha256, etag = digests(local)
    if sha256 != record["sha256"]:
        raise DataError(f"{local}: expected what {manifests.NAME} records, found other content; run its step again")
    before = holds(files, path, record, etag)
    if before is None:
        try:
            send_file(files, local, path, callback)
        except OSError:
            # Another process was faster, or the answer to what was done got lost.
            if holds(files, path, record, etag) is None:
                raise
    else:
        callback.relative_update(record["bytes"])
    if not holds(files, path, record, etag):
        raise StorageError(
            f"{path}: expected the content of {local}, found other content; remove it or start a new run"
        )


def send_file(files: "AbstractFileSystem", local: Path, path: str, callback: "Callback") -> None:
    """Send a file under a name that is not taken."""
    if backends.is_object_store(files):
        parts = {"chunksize": PART_BYTES, "max_concurrency": PARTS_AT_ONCE} if "s3" in backends.protocols(files) else {}
        files.put_file(str(local), path, callback=callback, **backends.create_only(files), **parts)
        return
    with _named_afterwards(files, path, create=True) as part:
        files.put_file(str(local), part, callback=callback)


def send_bytes(files: "AbstractFileSystem", content: bytes, path: str, *, create: bool) -> None:
    """Send a small object, in place of one that may be there, or if there is none."""
    if backends.is_object_store(files):
        files.pipe_file(path, content, **(backends.create_only(files) if create else {}))
        return
    with _named_afterwards(files, path, create=create) as part:
        files.pipe_file(part, content)


@contextmanager
def _named_afterwards(files: "AbstractFileSystem", path: str, *, create: bool) -> Iterator[str]:
    """Give a name to write to; a later try writes over what an earlier one has left there."""
    parent, _, name = path.rpartition("/")
    files.makedirs(parent, exist_ok=True)
    part = f"{parent}/.{name}.part" if create else f"{parent}/.{name}.{uuid.uuid4().hex}.part"
    yield part
    if create and "file" in backends.protocols(files):
        try:
            # Unlike a move, this does not replace what has come there meanwhile.
            os.link(part, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        else:
            files.rm_file(part)
            return
    files.mv(part, path)


def read(files: "AbstractFileSystem", path: str) -> bytes | None:
    """Return a small object's content, None if there is no such object."""
    try:
        return bytes(files.cat_file(path))
    except FileNotFoundError:
        return None


def holds(files: "AbstractFileSystem", path: str, record: dict[str, Any], etag: str) -> bool | None:
    """Tell whether an object has the recorded content: by the store's own checksum, else by reading it back.

    Returns None if there is no such object.
    """
    try:
        info = files.info(path)
    except FileNotFoundError:
        return None
    if info["size"] != record["bytes"]:
        return False
    if str(info.get("ETag", "")).strip('"') == etag:
        return True
    with files.open(path, "rb", block_size=PART_BYTES, cache_type="readahead") as there:
        return hashlib.file_digest(there, "sha256").hexdigest() == str(record["sha256"])


def digests(local: Path) -> tuple[str, str]:
    """Return a file's sha256, and the ETag that S3 gives it: its MD5, or that of its parts' MD5s and their number."""
    if not local.is_file():
        raise DataError(f"{local}: expected what {manifests.NAME} records, found no file; run its step again")
    sha256, md5, count = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    in_parts = local.stat().st_size >= 2 * PART_BYTES
    with local.open("rb") as file:
        for chunk in iter(lambda: file.read(PART_BYTES), b""):
            sha256.update(chunk)
            md5.update(hashlib.md5(chunk, usedforsecurity=False).digest() if in_parts else chunk)
            count += 1
    return sha256.hexdigest(), f"{md5.hexdigest()}-{count}" if in_parts else md5.hexdigest()


@contextmanager
def progress(total: int) -> "Iterator[Callback]":
    """Give a callback of fsspec that moves a bar, on a terminal; elsewhere one that does nothing."""
    from fsspec.callbacks import Callback

    if not sys.stderr.isatty():
        yield Callback()
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="B", unit_scale=True, leave=False) as bar:
        # All files move the one bar, each from its own thread.
        yield Callback(hooks={"bar": lambda _size, value, **_kwargs: bar.update(value - bar.n)})
