"""The address of a storage: which schemes there are, and what is refused."""

import re

from steplib.errors import SettingError

# The schemes of each cloud, by the name in its lock, requirements-<name>.txt.
CLOUDS = {"s3": {"s3", "s3a"}, "gs": {"gs", "gcs"}, "azure": {"abfs", "abfss", "az"}}
# fsspec has more, but runs cannot be written there, or others cannot read them.
STORAGE_SCHEMES = {
    *("file", "oss", "oci", "hdfs", "webhdfs", "webdav", "sftp", "ssh", "smb", "ftp"),
    *(scheme for schemes in CLOUDS.values() for scheme in schemes),
}


def cloud_of(url: str) -> str | None:
    """Return the cloud of a URL, by the name in its lock; None for any other place."""
    scheme, separator, _ = url.partition("://")
    return next((cloud for cloud, schemes in CLOUDS.items() if separator and scheme.lower() in schemes), None)


def check_storage_url(text: str, name: str) -> str:
    """Return the address of a storage, with the scheme in lower case.

    Raises SettingError for one with credentials, without showing it, or one where others would not find a run.
    """
    scheme, separator, rest = text.partition("://")
    scheme = scheme.lower()
    if separator and scheme.isalnum() and scheme not in STORAGE_SCHEMES:
        expected = "a storage that runs can write to and others can read, like s3://bucket/prefix or file:///srv/models"
        raise SettingError(f"{name}: expected {expected}, found {scheme}://; use a scheme that docs/storage.md lists")
    user, at, _ = rest.partition("@")
    # Azure writes container@account.
    account = not at or (cloud_of(text) == "azure" and not re.search("[:/]", user))
    # fsspec takes "::" for a chain of places.
    plain = re.fullmatch(r"[^?#@]*@?[^?#@]+", rest) and "::" not in rest
    if not separator or not plain or not account or not scheme.isalnum():
        expected = "a URL like s3://bucket/prefix, without credentials, ?, # or ::"
        way_out = "correct it, and keep credentials in the environment or .env"
        raise SettingError(f"{name}: expected {expected}, found something else; {way_out}")
    if scheme == "file":
        rest = rest.removeprefix("localhost")
        if not rest.startswith("/"):
            found = "a relative path or a different machine"
            raise SettingError(f"{name}: expected a full path, like file:///srv/models, found {found}; correct it")
    return f"{scheme}://{rest}"
