"""How each of fsspec's backends is opened, how it fails, how it creates a new file."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from steplib.errors import PipelineError, SettingError, StorageError, UnreachableError
from steplib.settings import check_storage_url, export_env_file

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Timeouts in seconds, for each attempt of botocore. Listings are not cached, because others write there too.
S3_OPTIONS = {
    "use_listings_cache": False,
    "config_kwargs": {
        "connect_timeout": 5,
        "read_timeout": 30,
        "retries": {"mode": "standard", "total_max_attempts": 5},
    },
}
S3_SCHEMES = {"s3", "s3a"}
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# How backends report a refusal or a wrong configuration, apart from PermissionError.
REFUSALS = "credential|forbidden|unauthori[sz]ed|authenticat|token|profile|endpoint:|specified endpoint|validation"
# In these an object becomes visible only when complete; elsewhere a file is renamed when it is.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "oci"}


def open_storage(url: str) -> tuple["AbstractFileSystem", str]:
    """Return the file system of a URL, and the path in it. Raises SettingError for a URL that cannot be used."""
    from fsspec import get_filesystem_class
    from fsspec.core import url_to_fs

    url = check_storage_url(url, "the storage")
    export_env_file()
    scheme = url.partition("://")[0]
    try:
        # ValueError if only the package registers the scheme.
        get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        way_out = "install requirements-s3.txt" if scheme in S3_SCHEMES else "install fsspec's package for it"
        raise SettingError(f"{url}: the package for {scheme}:// is not installed; {way_out}") from error
    try:
        files, root = url_to_fs(url, **S3_OPTIONS if scheme in S3_SCHEMES else {})
    except ValueError as error:
        raise SettingError(
            f"{url}: expected an address that {scheme}:// accepts, found a different form; correct it"
        ) from error
    if scheme in S3_SCHEMES:
        # No retries by s3fs on top: each would repeat all of botocore's.
        files.retries = 1
    return files, root.rstrip("/")


def check_bucket(files: "AbstractFileSystem", root: str, url: str) -> None:
    """Raise SettingError if the bucket does not exist; some stores would create it with the first object."""
    bucket = root.lstrip("/").split("/")[0]
    if not is_object_store(files):
        return
    try:
        files.info(bucket)
    except PermissionError:
        # Looking up the bucket needs a separate permission; the first upload will show whether it exists.
        return
    except OSError as error:
        if not isinstance(error, FileNotFoundError) and error.errno != errno.EINVAL:
            raise
        raise SettingError(f"{url}: the bucket {bucket} does not exist; create it") from error


@contextmanager
def translate_errors(url: str) -> Iterator[None]:
    """Turn a backend's error into one line without its text, which may quote a key."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        kind, code = type(error), getattr(error, "errno", None)
        if code in DISK_ERRORS:
            msg = f"{url}: the disk cannot take the run ({kind.__name__}); free space or remount it writable"
            raise StorageError(msg) from None
        # Read the text of these two types only: their type says nothing, and the text of other errors quotes addresses.
        text = f"{kind.__name__} {error}" if kind in {OSError, ValueError} else kind.__name__
        if isinstance(error, PermissionError) or re.search(REFUSALS, text, re.IGNORECASE):
            msg = f"{url}: access denied ({kind.__name__}); check credentials, permissions, region and endpoint"
            raise SettingError(msg) from None
        if kind.__module__ == "builtins" and not isinstance(error, OSError):
            raise
        if url.lower().startswith("file:"):
            msg = f"{url}: the folder cannot be read or written ({kind.__name__}); correct it"
            raise StorageError(msg) from None
        msg = f"{url}: the storage did not answer ({kind.__name__}); check it and the network, then run this again"
        raise UnreachableError(msg) from None


def _protocols(files: "AbstractFileSystem") -> set[str]:
    return {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)


def is_object_store(files: "AbstractFileSystem") -> bool:
    """Return whether uploads are atomic: an object becomes visible only when complete."""
    return bool(_protocols(files) & OBJECT_STORES)


def is_s3(files: "AbstractFileSystem") -> bool:
    """Return whether this is Amazon S3 or a store with its interface."""
    return bool(_protocols(files) & S3_SCHEMES)


def is_local(files: "AbstractFileSystem") -> bool:
    """Return whether this is a disk of this machine."""
    return "file" in _protocols(files)


def create_only(files: "AbstractFileSystem") -> dict[str, str]:
    """Return the options for a create-only write, where the backend supports one."""
    return {"mode": "create"} if _protocols(files) & {"s3", "gs"} else {}
