"""Files in any place that fsspec knows: object stores, disks. What is there is whole, and is what was sent."""

import errno
import hashlib
import os
import re
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steplib import manifest as manifests
from steplib.errors import DataError, PipelineError, SettingError, StorageError, UnreachableError
from steplib.settings import check_storage_url, export_env_file

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem
    from fsspec.callbacks import Callback

# Large files go in parts; what is in memory at once is parts times files times two.
PART_BYTES = 8 * 1024 * 1024
PARTS_AT_ONCE = 4
# botocore's own tries, each with these limits in seconds. No listing is remembered: others write there too.
S3_OPTIONS = {
    "use_listings_cache": False,
    "config_kwargs": {
        "connect_timeout": 5,
        "read_timeout": 30,
        "retries": {"mode": "standard", "total_max_attempts": 5},
    },
}
# What a disk without hard links answers.
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# How backends say that they do not let in, or were told something wrong, beside PermissionError.
REFUSALS = "credential|forbidden|unauthori[sz]ed|authenticat|token|profile|endpoint:|specified endpoint|validation"
# In these an object appears when all of it is there; elsewhere it gets its name afterwards.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci", "memory"}


def open_storage(url: str) -> tuple["AbstractFileSystem", str]:
    """Return the file system of a URL, and the path in it. Raises SettingError for one that cannot be used."""
    from fsspec import available_protocols
    from fsspec.core import url_to_fs

    check_storage_url(url, "the storage")
    export_env_file()
    scheme = url.partition("://")[0].lower()
    if scheme not in available_protocols():
        raise SettingError(f"{url}: expected a scheme that fsspec knows, found {scheme}://; correct it")
    try:
        files, root = url_to_fs(url, **S3_OPTIONS if scheme in {"s3", "s3a"} else {})
    except ImportError as error:
        way_out = "install requirements-s3.txt" if scheme in {"s3", "s3a"} else "install fsspec's package for it"
        raise SettingError(f"{url}: expected the package for {scheme}://, found none; {way_out}") from error
    if scheme in {"s3", "s3a"}:
        # Of s3fs' own, each of which would go through all of botocore's.
        files.retries = 1
    return files, root.rstrip("/")


def check_bucket(files: "AbstractFileSystem", root: str, url: str) -> None:
    """Raise SettingError if there is no such bucket; some stores would make one by the first object."""
    bucket = root.lstrip("/").split("/")[0]
    if not _is_object_store(files) or "memory" in _protocols(files):
        return
    try:
        files.info(bucket)
    except PermissionError:
        # To see the bucket is a right of its own; the first object tells.
        return
    except OSError as error:
        if not isinstance(error, FileNotFoundError) and error.errno != errno.EINVAL:
            raise
        raise SettingError(f"{url}: expected the bucket {bucket}, found none; create it") from error


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
    if _is_object_store(files):
        parts = {"chunksize": PART_BYTES, "max_concurrency": PARTS_AT_ONCE} if "s3" in _protocols(files) else {}
        files.put_file(str(local), path, callback=callback, **_create_only(files), **parts)
        return
    with _named_afterwards(files, path, create=True) as part:
        files.put_file(str(local), part, callback=callback)


def send_bytes(files: "AbstractFileSystem", content: bytes, path: str, *, create: bool) -> None:
    """Send a small object, in place of one that may be there, or if there is none."""
    if _is_object_store(files):
        files.pipe_file(path, content, **(_create_only(files) if create else {}))
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
    if create and "file" in _protocols(files):
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


@contextmanager
def errors_of(url: str) -> Iterator[None]:
    """Turn what a backend raises into one line without its text, which may quote a key."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        kind, code = type(error), getattr(error, "errno", None)
        found = f"found {kind.__name__}"
        if code in DISK_ERRORS:
            raise StorageError(f"{url}: expected a disk that takes the run, {found}; mend that") from None
        # The text only of what says no more by its kind: others quote addresses in it.
        told = f"{kind.__name__} {error}" if kind in {OSError, ValueError} else kind.__name__
        if isinstance(error, PermissionError) or re.search(REFUSALS, told, re.IGNORECASE):
            msg = f"{url}: expected to be let in, {found}; check credentials, rights, region and endpoint"
            raise SettingError(msg) from None
        if kind.__module__ == "builtins" and not isinstance(error, OSError):
            raise
        if url.startswith(("file:", "local:")):
            raise StorageError(f"{url}: expected a folder to read and write, {found}; correct it") from None
        msg = f"{url}: expected the storage to answer, {found}; check it and the network, then run this again"
        raise UnreachableError(msg) from None


def _protocols(files: "AbstractFileSystem") -> set[str]:
    return {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)


def _is_object_store(files: "AbstractFileSystem") -> bool:
    return bool(_protocols(files) & OBJECT_STORES)


def _create_only(files: "AbstractFileSystem") -> dict[str, str]:
    """Return what makes a backend refuse a name that is taken, where it can; that it is free is seen before, too."""
    return {"mode": "create"} if _protocols(files) & {"s3", "gs", "memory"} else {}
