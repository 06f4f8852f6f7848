"""How each of fsspec's backends is opened, what its errors mean, how files are sent to it."""

import errno
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

from steplib import envfile
from steplib.address import CLOUDS, check_storage_url, cloud_of
from steplib.errors import PipelineError, SettingError, StorageError, UnreachableError
from steplib.storage.refusal import is_refusal, status_of

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Large files are uploaded in parts; memory holds about 2 * PART_BYTES * PARTS_AT_ONCE for each file under way.
PART_BYTES = 8 * 1024 * 1024
PARTS_AT_ONCE = 4
# Seconds, for each attempt.
CONNECT_TIMEOUT, READ_TIMEOUT = 5, 30


class Cloud(NamedTuple):
    """What differs between the clouds: options for opening and for sending a file, the checksum's name in `info`."""

    options: Mapping[str, Any] = {}
    parts: Mapping[str, Any] = {}
    checksum: str = ""


# By the names in their locks. With mode="create", none of the three replaces an object.
ROWS = {
    "s3": Cloud(
        options={
            "config_kwargs": {
                "connect_timeout": CONNECT_TIMEOUT,
                "read_timeout": READ_TIMEOUT,
                "retries": {"mode": "standard", "total_max_attempts": 5},
            },
        },
        parts={"chunksize": PART_BYTES, "max_concurrency": PARTS_AT_ONCE},
        checksum="ETag",
    ),
    "gs": Cloud(parts={"chunksize": PART_BYTES}, checksum="md5Hash"),
    # Its parts have 4 MiB. The MD5 that it stores is only what the client sends, and proves nothing.
    "azure": Cloud(options={"max_concurrency": PARTS_AT_ONCE}),
}
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
# In these an object becomes visible only when complete; elsewhere a file is renamed when it is.
OBJECT_STORES = {"oss", "oci", *(scheme for schemes in CLOUDS.values() for scheme in schemes)}


def open_storage(url: str) -> tuple["AbstractFileSystem", str]:
    """Return the file system of a URL, and the path in it. Raises SettingError for a URL that cannot be used."""
    from fsspec import get_filesystem_class
    from fsspec.core import url_to_fs

    url = check_storage_url(url, "the storage")
    envfile.export()
    # Without it, clients' warnings and tracebacks, which quote addresses, would go to stderr.
    logging.getLogger().addHandler(logging.NullHandler())
    # Otherwise gcsfs first asks Google by gRPC for the kind of the bucket, which a firewall may block for a minute.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    scheme, cloud = url.partition("://")[0], cloud_of(url)
    try:
        # ValueError if only the package registers the scheme.
        get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        way_out = f"install requirements-{cloud}.txt" if cloud else "install fsspec's package for it"
        raise SettingError(f"{url}: the package for {scheme}:// is not installed; {way_out}") from error
    try:
        files, root = url_to_fs(url, **_options(url))
    except ValueError as error:
        msg = f"{url}: expected an address and credentials that {scheme}:// accepts, found a different form"
        raise SettingError(f"{msg}; correct them") from error
    if cloud == "s3":
        # No retries by s3fs on top: each would repeat all of botocore's.
        files.retries = 1
    if cloud == "azure" and "@" in url:
        _check_account(files, url)
    return files, root.rstrip("/")


def _options(url: str) -> dict[str, Any]:
    """Return the options with which a storage is opened. Listings are not cached, because others write there too."""
    cloud = cloud_of(url)
    options = {"use_listings_cache": False, **ROWS[cloud].options} if cloud else {}
    if cloud == "gs":
        from aiohttp import ClientTimeout

        # gcsfs itself has no timeout.
        timeout = ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)
        options["requests_timeout"] = timeout
    if cloud == "azure" and "@" in url:
        account, host = _account(url)
        # By itself, adlfs knows only the host of Azure's public cloud.
        options |= {"account_name": account, "account_host": host}
    return options


def _account(url: str) -> tuple[str, str]:
    """Return the account that a URL of Azure names after @, and the host of its blobs."""
    host = url.partition("@")[2].partition("/")[0]
    match = re.fullmatch(r"(\w+)\.(?:dfs|blob)\.(core\.[\w.-]+)", host)
    if not match:
        expected = "a host like myaccount.dfs.core.windows.net after @"
        way_out = "correct it, or name a different host in AZURE_STORAGE_CONNECTION_STRING and leave it out here"
        raise SettingError(f"{url}: expected {expected}, found {host}; {way_out}")
    return match[1], f"{match[1]}.blob.{match[2]}"


def _check_account(files: "AbstractFileSystem", url: str) -> None:
    """Raise SettingError if the client uses a different account from the URL's, as a connection string makes it."""
    account, used = _account(url)[0], files.service_client.account_name
    if used not in {None, account}:
        msg = f"{url}: expected the account {account} in AZURE_STORAGE_CONNECTION_STRING, found {used}"
        raise SettingError(f"{msg}; correct one of the two")


def check_bucket(files: "AbstractFileSystem", root: str, url: str) -> None:
    """Raise SettingError if the bucket does not exist; some stores would create it with the first object."""
    bucket = root.lstrip("/").split("/")[0]
    if not is_object_store(files):
        return
    try:
        files.info(bucket)
    except Exception as error:
        # gcsfs reports an empty bucket as missing if it may not look it up.
        if isinstance(error, PermissionError) or HTTPStatus.FORBIDDEN in {
            status_of(error),
            status_of(error.__context__),
        }:
            # Looking up the bucket needs a separate permission; the first upload will show whether it exists.
            return
        if not isinstance(error, FileNotFoundError) and getattr(error, "errno", None) != errno.EINVAL:
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
        if cloud_of(url) and isinstance(error, FileNotFoundError):
            # Callers that read an object which may be missing catch this error themselves, so the bucket is missing.
            raise SettingError(f"{url}: the bucket does not exist; create it") from None
        if is_refusal(error):
            reason = f"{kind.__name__}, HTTP {status}" if (status := status_of(error)) else kind.__name__
            msg = f"{url}: access denied ({reason}); check credentials, permissions, region and endpoint"
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


def is_local(files: "AbstractFileSystem") -> bool:
    """Return whether this is a disk of this machine."""
    return "file" in _protocols(files)


def row_of(files: "AbstractFileSystem") -> Cloud | None:
    """Return the row of the cloud that this is, None if it is not a cloud."""
    return next((ROWS[name] for name, schemes in CLOUDS.items() if schemes & _protocols(files)), None)
