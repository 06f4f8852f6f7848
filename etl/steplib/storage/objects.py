"""Files in a storage: visible only when complete, and compared with what was sent."""

import base64
import errno
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steplib.errors import DataError, StorageError
from steplib.storage.places import PART_BYTES, ROWS, Cloud, is_local, is_object_store, row_of

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from fsspec.callbacks import Callback

# What makes an object store refuse a name that is taken, where it can.
CREATE_ONLY = {"mode": "create"}
REMOVALS_AT_ONCE = 4
# The errors of a disk without hard links.
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


def put_artifact(  # noqa: PLR0913 - what, where, and the two things in which its two callers differ
    files: "AbstractFileSystem",
    local: Path,
    path: str,
    artifact: dict[str, Any],
    callback: "Callback | None" = None,
    *,
    read_back: bool = True,
) -> None:
    """Send a file unless it is there already, and check that the storage holds the recorded sha256 and bytes.

    Where a storage gives no checksum, the object is read back; with `read_back=False`, only its size is compared.
    """
    sha256, checksum = _digests(local, row_of(files))
    if sha256 != artifact["sha256"]:
        msg = f"{local}: expected what the manifest records, found different content"
        raise DataError(f"{msg}; repeat the step that made it")

    def holds(*, read_back: bool = True) -> bool | None:
        return _holds(files, path, artifact, checksum, read_back=read_back)

    before = holds()
    if before is None:
        try:
            send_file(files, local, path, callback)
        except OSError:
            # Another process may have been faster, or the answer to a completed upload was lost.
            if holds() is None:
                raise
    elif callback:
        callback.relative_update(artifact["bytes"])
    if not (before or holds(read_back=read_back)):
        msg = f"{path}: expected the content of {local}, found different content"
        raise StorageError(f"{msg}; start a new run")


def send_file(files: "AbstractFileSystem", local: Path, path: str, callback: "Callback | None") -> None:
    """Send a file under a name that is not taken."""
    bar = {"callback": callback} if callback else {}
    if is_object_store(files):
        cloud = row_of(files)
        files.put_file(str(local), path, **bar, **({**CREATE_ONLY, **cloud.parts} if cloud else {}))
        return
    with _renamed_when_whole(files, path, create=True) as part:
        files.put_file(str(local), part, **bar)


def send_bytes(files: "AbstractFileSystem", content: bytes, path: str, *, create: bool) -> None:
    """Send a small object: only if the name is free, or replacing the object that has it."""
    if is_object_store(files):
        files.pipe_file(path, content, **(CREATE_ONLY if create and row_of(files) else {}))
        return
    with _renamed_when_whole(files, path, create=create) as part:
        files.pipe_file(part, content)


def create(files: "AbstractFileSystem", content: bytes, path: str) -> bytes:
    """Write a small object if its name is free, and return what is stored there."""
    in_cloud = bool(row_of(files))
    # Without a cloud's own condition, only a look before and after shows whose object is there.
    if not in_cloud and (found := read(files, path)) is not None:
        return found
    try:
        send_bytes(files, content, path, create=True)
    except OSError:
        # Another process may have been faster, or the answer to a completed upload was lost.
        if (found := read(files, path)) is None:
            raise
        return found
    return content if in_cloud else read(files, path) or b""


@contextmanager
def _renamed_when_whole(files: "AbstractFileSystem", path: str, *, create: bool) -> Iterator[str]:
    """Yield a temporary name to write to, and rename it at the end."""
    parent, _, name = path.rpartition("/")
    files.makedirs(parent, exist_ok=True)
    # Several processes may write the same object at once.
    part = f"{parent}/.{name}.{uuid.uuid4().hex}.part"
    try:
        yield part
    except BaseException:
        with suppress(OSError):
            files.rm_file(part)
        raise
    if create and is_local(files):
        try:
            # Unlike a move, a link does not replace a file that has appeared meanwhile.
            os.link(part, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                files.rm_file(part)
                raise
            # Only one process can create the name, which the file then takes.
            Path(path).touch(exist_ok=False)
        else:
            files.rm_file(part)
            return
    files.mv(part, path)


def read(files: "AbstractFileSystem", path: str) -> bytes | None:
    """Return a small object's content, None if it does not exist."""
    try:
        return bytes(files.cat_file(path))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def remove(files: "AbstractFileSystem", paths: Iterable[str]) -> None:
    """Remove objects, a few at once; those that a different process has removed are skipped."""

    def remove_one(path: str) -> None:
        with suppress(FileNotFoundError):
            files.rm_file(path)

    with ThreadPoolExecutor(REMOVALS_AT_ONCE) as pool:
        for _ in pool.map(remove_one, paths):
            pass


def size(files: "AbstractFileSystem", path: str) -> int | None:
    """Return an object's size, None if it does not exist."""
    try:
        return int(files.info(path)["size"] or 0)
    except FileNotFoundError:
        return None


def _holds(
    files: "AbstractFileSystem", path: str, artifact: dict[str, Any], checksum: str, *, read_back: bool
) -> bool | None:
    """Return whether an object has the recorded content, by its checksum or by reading it; None if it is missing."""
    try:
        info = files.info(path)
    except FileNotFoundError:
        return None
    if info["size"] != artifact["bytes"]:
        return False
    cloud = row_of(files)
    of_storage = cloud and info.get(cloud.checksum)
    if (of_storage and str(of_storage).strip('"') == checksum) or not (of_storage or read_back):
        return True
    with files.open(path, "rb", block_size=PART_BYTES, cache_type="readahead") as remote:
        return hashlib.file_digest(remote, "sha256").hexdigest() == str(artifact["sha256"])


def _digests(local: Path, cloud: Cloud | None) -> tuple[str, str]:
    """Return a file's sha256, and the checksum that a cloud gives for it.

    On S3, that is its MD5, or that of its parts' MD5s and their number; on Google, its MD5 in base64.
    """
    if not local.is_file():
        raise DataError(f"{local}: expected what the manifest records, found no file; repeat the step that made it")
    sha256, md5, count = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    in_parts = cloud is ROWS["s3"] and local.stat().st_size >= 2 * PART_BYTES
    with local.open("rb") as file:
        for chunk in iter(lambda: file.read(PART_BYTES), b""):
            sha256.update(chunk)
            if cloud and cloud.checksum:
                md5.update(hashlib.md5(chunk, usedforsecurity=False).digest() if in_parts else chunk)
            count += 1
    if cloud is ROWS["gs"]:
        return sha256.hexdigest(), base64.b64encode(md5.digest()).decode()
    return sha256.hexdigest(), f"{md5.hexdigest()}-{count}" if in_parts else md5.hexdigest()


@contextmanager
def progress(total: int) -> "Iterator[Callback]":
    """Yield an fsspec callback that moves a progress bar on a terminal and does nothing elsewhere."""
    from fsspec.callbacks import Callback
    from tqdm import tqdm

    # disable=None: no bar where stderr is not a terminal.
    with tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        # All files move the same bar, each from its own thread.
        yield Callback(hooks={"bar": lambda _size, value, **_kwargs: bar.update(value - bar.n)})
