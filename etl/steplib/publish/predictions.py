"""Publishing predictions: <STORAGE_URL>/predictions/<UTC time>/<name>, create-only, the description last."""

import logging
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from steplib.runs import manifest
from steplib.storage import objects
from steplib.storage.places import check_bucket, open_storage, translate_errors

# To the microsecond, so that two never share a folder by chance.
TIME_FORMAT = "%Y_%m_%d_%H_%M_%S_%f"


def publish(files_here: Iterable[Path], at: datetime, url: str, log: logging.Logger) -> None:
    """Send files in this order. Raises the same errors as publishing a run."""
    folder = f"predictions/{at.strftime(TIME_FORMAT)}"
    with translate_errors(url):
        files, root = open_storage(url)
        check_bucket(files, root, url)
        for path in files_here:
            made = {"sha256": manifest.sha256(path), "bytes": path.stat().st_size}
            objects.put_artifact(files, path, f"{root}/{folder}/{path.name}", made)
    log.info("published: %s/%s", url.rstrip("/"), folder)
