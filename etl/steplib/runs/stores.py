"""The place that records which run is in use: a storage or, without one, results/ on this disk, laid out alike."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from steplib.runs.disk import replace
from steplib.runs.folders import RUNS, results
from steplib.runs.registry import SECONDS_FOR_LOCK, results_locked
from steplib.storage import objects
from steplib.storage.places import open_storage, translate_errors

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


class Store(Protocol):
    """Small files by their path below the store's root, and the folders of runs."""

    @property
    def name(self) -> str:
        """What to call the store in a message."""

    def read(self, path: str) -> bytes | None:
        """Return a file's content, None if there is none."""

    def create(self, path: str, content: bytes) -> bytes:
        """Write a file if its name is free, and return what it holds."""

    def replace(self, path: str, content: bytes) -> None:
        """Write a file as a whole."""

    def size(self, path: str) -> int | None:
        """Return a file's size, None if there is none."""

    def bring(self, stamp: str, names: Iterable[str], scratch: Path) -> Path:
        """Return a folder on this disk with those of a run's files that exist; a storage's are copied to `scratch`."""


@dataclass(frozen=True)
class Storage:
    """A storage that fsspec opens; `name`: its URL. Its errors become those of the pipeline."""

    files: "AbstractFileSystem"
    root: str
    name: str

    def read(self, path: str) -> bytes | None:
        """Return an object's content."""
        with translate_errors(self.name):
            return objects.read(self.files, f"{self.root}/{path}")

    def create(self, path: str, content: bytes) -> bytes:
        """Write an object if its name is free."""
        with translate_errors(self.name):
            return objects.create(self.files, content, f"{self.root}/{path}")

    def replace(self, path: str, content: bytes) -> None:
        """Write an object, whether or not it exists."""
        with translate_errors(self.name):
            objects.send_bytes(self.files, content, f"{self.root}/{path}", create=False)

    def size(self, path: str) -> int | None:
        """Return an object's size."""
        with translate_errors(self.name):
            return objects.size(self.files, f"{self.root}/{path}")

    def bring(self, stamp: str, names: Iterable[str], scratch: Path) -> Path:
        """Copy a run's files to the scratch folder."""
        for name in names:
            with translate_errors(self.name), suppress(FileNotFoundError):
                self.files.get_file(f"{self.root}/{RUNS}/{stamp}/{name}", str(scratch / name))
        return scratch


@dataclass(frozen=True)
class Disk:
    """The folder results/; its lock makes a file create-only."""

    root: Path

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self.root)

    def _at(self, path: str) -> Path:
        # Not in results/ itself, where people look for a run's files.
        return self.root / ("promotions/latest.json" if path == "latest.json" else path)

    def read(self, path: str) -> bytes | None:
        """Return a file's content."""
        try:
            return self._at(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def create(self, path: str, content: bytes) -> bytes:
        """Write a file if its name is free."""
        with results_locked(SECONDS_FOR_LOCK):
            if (found := self.read(path)) is None:
                self.replace(path, content)
        return content if found is None else found

    def replace(self, path: str, content: bytes) -> None:
        """Write a file as a whole, whether or not it exists."""
        target = self._at(path)
        target.parent.mkdir(exist_ok=True)
        part = target.with_name(f".{target.name}.{uuid4().hex}.part")
        try:
            part.write_bytes(content)
            replace(part, target)
        except OSError as error:
            error.filename = str(target)
            part.unlink(missing_ok=True)
            raise

    def size(self, path: str) -> int | None:
        """Return a file's size."""
        target = self._at(path)
        return target.stat().st_size if target.is_file() else None

    def bring(self, stamp: str, names: Iterable[str], scratch: Path) -> Path:  # noqa: ARG002 - they are here already
        """Return the run's folder."""
        return self.root / RUNS / stamp


@contextmanager
def open_store(url: str) -> Iterator[Store]:
    """Open the storage of a URL or, without one, results/ on this disk."""
    if not url:
        yield Disk(results())
        return
    with translate_errors(url):
        store = Storage(*open_storage(url), url.rstrip("/"))
    yield store
