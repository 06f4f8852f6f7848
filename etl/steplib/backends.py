"""What fsspec's backends have of their own: how they are opened, how they fail, how they take a new file."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from steplib.errors import PipelineError, SettingError, StorageError, UnreachableError
from steplib.settings import check_storage_url, export_env_file

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# botocore's own tries, each with these limits in seconds. No listing is remembered: others write there too.
S3_OPTIONS = {
    "use_listings_cache": False,
    "config_kwargs": {
        "connect_timeout": 5,
        "read_timeout": 30,
        "retries": {"mode": "standard", "total_max_attempts": 5},
    },
}
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
    if not is_object_store(files) or "memory" in protocols(files):
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


def protocols(files: "AbstractFileSystem") -> set[str]:
    """Return the schemes that a file system goes by."""
    return {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)


def is_object_store(files: "AbstractFileSystem") -> bool:
    """Tell whether an object appears there when all of it is there."""
    return bool(protocols(files) & OBJECT_STORES)


def create_only(files: "AbstractFileSystem") -> dict[str, str]:
    """Return what makes a backend refuse a name that is taken, where it can; that it is free is seen before, too."""
    return {"mode": "create"} if protocols(files) & {"s3", "gs", "memory"} else {}
