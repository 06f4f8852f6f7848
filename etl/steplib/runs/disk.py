"""Locks and safe writes on this disk."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from steplib.errors import SettingError, UnreachableError


@contextmanager
def lock(path: Path, patience: float, busy: str) -> Iterator[None]:
    """Hold a lock until the block or the process ends.

    Raises UnreachableError with the message `busy` if another process holds it for longer than `patience` seconds.
    """
    # For the owner alone: anyone who can open the file could lock it forever.
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError as error:
        raise SettingError(f"{path}: the lock belongs to a different user; run all steps as one user") from error
    try:
        with suppress(PermissionError):  # not the owner
            os.fchmod(handle, 0o600)
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise UnreachableError(busy) from error
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def replace(part: Path, path: Path) -> None:
    """Give a complete file its name, and make sure that both are on the disk."""
    sync(part)
    part.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make sure that a file's bytes, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
