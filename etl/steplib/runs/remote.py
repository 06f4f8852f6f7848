"""A run in RUNS_URL, where any worker can continue it; this disk is a cache. Its objects: remote_objects.py."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steplib.errors import (
    DataError,
    NameTakenError,
    PipelineError,
    SettingError,
    StorageError,
    UnreachableError,
    UsageError,
)
from steplib.runs import manifest, remote_objects
from steplib.runs.disk import replace
from steplib.storage import objects
from steplib.storage.places import DISK_ERRORS, check_bucket, open_storage, translate_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsspec import AbstractFileSystem

    from steplib.runs.run import Run

REQUESTS_AT_ONCE = 4


@dataclass
class RemoteRun:
    """What one attempt at a step knows of its run: numbers of manifests, -1 for none."""

    url: str
    stamp: str
    # The highest manifest that was read or written.
    revision: int = -1
    # The manifest by which this attempt has the run; -1 if the run is finished.
    own: int = -1
    content: bytes = b""
    # What earlier attempts have logged, and how much of the log has been saved.
    log: bytes = b""
    saved: int = 0
    # A different attempt has the run, or the storage has failed: nothing more is written.
    is_lost: bool = False
    # Why the run could not be looked for; raised once there is a log to write it to.
    error: PipelineError | None = None

    def restore(self, run: "Run") -> None:
        """Bring the manifest and the log to this disk; the caller must hold the run's lock.

        Raises NameTakenError if a different run has the name of a new one, UsageError if there is no such run.
        """
        if self.error:
            raise self.error
        self._read()
        path = run.folder / manifest.NAME
        here = manifest.read_leniently(run.folder)
        record = manifest.parse(self.content, f"{self.url}/{self.stamp}") if self.content else None
        if record and path.is_file() and manifest.identity(here) != manifest.identity(record):
            self.revision, self.content = -1, b""
            taken = UsageError if here["steps"] else NameTakenError
            raise taken(f"run {self.stamp}: a run on a different disk has this name; start a new run")
        if record is None and path.is_file() and not here["steps"]:
            return  # it is new
        if record is None or remote_objects.REMOVED in record:
            if not path.is_file():
                shutil.rmtree(run.folder)
            raise UsageError(f"LOG: {self.url} has no run {self.stamp}, or it has been removed; start a new run")
        if manifest.is_finished(here) and path.read_bytes() != self.content:
            raise UsageError(f"run {self.stamp}: it was finished on this disk without RUNS_URL; start a new run")
        self._write_log(run.log)
        if not path.is_file() or path.read_bytes() != self.content:
            run.replace_manifest(self.content)

    def _read(self) -> None:
        """Read the highest manifest and the log; nothing if there is no such run."""
        with self._open() as (files, folder):
            found = remote_objects.find_objects(files, folder)
            self.revision = remote_objects.highest_revision(found)
            if self.revision < 0:
                check_bucket(files, folder, self.url)
                return
            paths = [remote_objects.revision_path(folder, self.revision), *remote_objects.pieces_of_log(found)]
            with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
                self.content, *pieces = pool.map(lambda path: objects.read(files, path) or b"", paths)
            self.log = b"".join(pieces)
            record = manifest.parse(self.content, paths[0])
            if record["run"] != self.stamp:
                msg = f"{paths[0]}: expected the manifest of run {self.stamp}, found that of run {record['run']}"
                raise DataError(f"{msg}; start a new run")

    def _write_log(self, path: Path) -> None:
        """Make the log on this disk begin with what earlier attempts have logged, wherever they ran."""
        here = path.read_bytes() if path.is_file() else b""
        # What an attempt on this disk has logged before it was killed stays.
        if here.startswith(self.log):
            path.touch()
            return
        if here and not here.startswith(self.log[: self.log.find(b"\n") + 1]):
            # The log of a different run of this name, which has been removed from this disk.
            path.replace(path.with_name(f"{path.name}.before"))
        part = path.with_name(f".{path.name}.part")
        try:
            part.write_bytes(self.log)
            replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def begin(self, record: manifest.Record) -> None:
        """Create the run if it is new. Raises NameTakenError if a run on a different worker has its stamp or name."""
        with self._open() as (files, folder):
            if self.revision < 0:
                content = manifest.to_bytes(record)
                if objects.create(files, content, remote_objects.revision_path(folder, 0)) != content:
                    msg = f"run {self.stamp}: a run on a different worker has this name"
                    raise NameTakenError(f"{msg}; start a new run")
                self.revision, self.content = 0, content
            if self.revision == 0 and record["run_id"]:
                path = remote_objects.name_path(folder, record["run_id"])
                holder = remote_objects.parse_stamp(objects.create(files, self.stamp.encode(), path), path)
                if holder != self.stamp:
                    msg = f"run {self.stamp}: a different worker has started run {holder} for this PIPELINE_RUN_ID"
                    raise NameTakenError(f"{msg}; continue that one")

    def advance(self, record: manifest.Record) -> None:
        """Write the next manifest. Raises UnreachableError if a different attempt has."""
        content = manifest.to_bytes(record)
        with self._open() as (files, folder):
            if objects.create(files, content, remote_objects.revision_path(folder, self.revision + 1)) != content:
                raise self._taken_over()
        self.revision, self.content = self.revision + 1, content

    def send(self, run_folder: Path, made: dict[str, manifest.Record], log: Path) -> None:
        """Send artifacts and this attempt's part of the log, unless a different attempt has the run."""
        with self._open() as (files, folder):

            def put(name: str) -> None:
                self._check_own(files, folder)
                path = f"{folder}/files/{made[name]['sha256']}"
                # Whoever fetches it compares its hash.
                objects.put_artifact(files, run_folder / name, path, made[name], read_back=False)

            # The log's copy last: unlike the others, it differs between attempts.
            with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
                list(pool.map(put, [name for name in made if name != log.name]))
            if log.name in made:
                put(log.name)
        self.save_log(log)

    def save_log(self, log: Path) -> None:
        """Send this attempt's part of the log, if it has grown and the attempt still has the run."""
        if self.own < 0 or len(content := log.read_bytes()) == self.saved:
            return
        with self._open() as (files, folder):
            self._check_own(files, folder)
            objects.send_bytes(files, content[len(self.log) :], f"{folder}/log/{self.own}.log", create=False)
        self.saved = len(content)

    def _check_own(self, files: "AbstractFileSystem", folder: str) -> None:
        """Raise UnreachableError if a different attempt has the run, or the run has been removed meanwhile."""
        own, following = (remote_objects.revision_path(folder, number) for number in (self.own, self.revision + 1))
        if objects.size(files, following) is not None or objects.size(files, own) is None:
            raise self._taken_over()

    def fetch(self, sha256: str, path: Path) -> bool:
        """Copy an artifact to this disk; return whether there is one."""
        with self._open() as (files, folder):
            try:
                files.get_file(f"{folder}/files/{sha256}", str(path))
            except FileNotFoundError:
                return False
            except OSError as error:
                if error.errno in DISK_ERRORS:
                    raise StorageError(f"{path}: {error.strerror}; free some space, then repeat the step") from None
                raise
        return True

    def note_published(self) -> None:
        """Note that nothing more is to be done for the run."""
        with self._open() as (files, folder):
            objects.create(files, b"yes\n", f"{folder}/{remote_objects.PUBLISHED}")

    @contextmanager
    def _open(self) -> "Iterator[tuple[AbstractFileSystem, str]]":
        """Yield the storage and the run's folder in it; if it does not answer or refuses, nothing more is written."""
        if self.is_lost:
            raise self._taken_over()
        try:
            with translate_errors(self.url):
                files, root = open_storage(self.url)
                yield files, f"{root}/{self.stamp}"
        except (UnreachableError, SettingError):
            self.is_lost = True
            raise

    def _taken_over(self) -> UnreachableError:
        msg = f"run {self.stamp}: a different attempt has taken over this run in {self.url}, or it has been removed"
        return UnreachableError(f"{msg}; leave it to that attempt, or start a new run")
