"""A run in RUNS_URL, from where any worker can continue it; this disk is a cache of it.

<RUNS_URL>/<stamp>/manifest/<n>.json   create-only, n from 0: the manifest; who writes the next number has the run
<RUNS_URL>/<stamp>/files/<sha256>      create-only: an artifact
<RUNS_URL>/<stamp>/log/<n>.log         what the attempt that wrote manifest n has logged; joined, the run's log
<RUNS_URL>/<stamp>/published           the run is finished, and nothing more is to be done
<RUNS_URL>/names/<sha256>              create-only: the stamp of the run for which an orchestrator has this name
"""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steplib.errors import DataError, NameTakenError, PipelineError, UnreachableError
from steplib.runs import manifest
from steplib.runs.disk import replace
from steplib.storage import objects
from steplib.storage.places import check_bucket, open_storage, translate_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fsspec import AbstractFileSystem

    from steplib.runs.run import Run

REQUESTS_AT_ONCE = 4
PUBLISHED = "published"
# In the last manifest of a run that is being removed (remote_pruning.py).
REMOVED = "removed"


@dataclass
class RemoteRun:
    """What one attempt at a step knows of its run: numbers of manifests, -1 for none."""

    url: str
    stamp: str
    # The highest manifest that was read or written.
    revision: int = -1
    # The one by which this attempt has the run; none if the run is finished.
    own: int = -1
    content: bytes = b""
    # What earlier attempts have logged, and how much of the log has been saved.
    log: bytes = b""
    saved: int = 0
    is_removed: bool = False
    # A different attempt has the run, or the storage has failed: nothing more is written.
    is_lost: bool = False

    def read(self) -> None:
        """Read the highest manifest and the log; nothing if there is no such run."""
        with self._open() as (files, folder):
            found = find_objects(files, folder)
            self.revision = highest_revision(found)
            if self.revision < 0:
                check_bucket(files, folder, self.url)
                return
            paths = [revision_path(folder, self.revision), *_pieces_of_log(found)]
            with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
                self.content, *pieces = pool.map(lambda path: objects.read(files, path) or b"", paths)
            self.log = b"".join(pieces)
            record = manifest.parse(self.content, paths[0])
            if record["run"] != self.stamp:
                msg = f"{paths[0]}: expected the manifest of run {self.stamp}, found that of run {record['run']}"
                raise DataError(f"{msg}; start a new run")
            self.is_removed = REMOVED in record

    def restore(self, run: "Run") -> None:
        """Bring the manifest and the log to this disk; the caller must hold the run's lock.

        Raises NameTakenError if this disk has a different run of this name.
        """
        if self.revision < 0:
            return
        record, here = manifest.parse(self.content, run.stamp), manifest.read_leniently(run.folder)
        log = run.log.read_bytes() if run.log.is_file() else b""
        starts_alike = not log or log.startswith(self.log[: self.log.find(b"\n") + 1])
        # Without the run's folder, the first line of the log, with its time, shows whose it is.
        if here.get("id", record["id"] if starts_alike else None) != record["id"]:
            self.revision = -1
            raise NameTakenError(f"run {run.stamp}: a run on a different disk has this name; start a new run")
        if manifest.to_bytes(here) != self.content:
            run.replace_manifest(self.content)
        # What an attempt on this disk has logged before it was killed stays.
        if not log.startswith(self.log):
            part = run.log.with_name(f".{run.log.name}.part")
            part.write_bytes(self.log)
            replace(part, run.log)

    def begin(self, record: manifest.Record) -> None:
        """Create the run if it is new. Raises NameTakenError if a run on a different worker has its stamp or name."""
        with self._open() as (files, folder):
            if self.revision < 0:
                if objects.create(files, content := manifest.to_bytes(record), revision_path(folder, 0)) != content:
                    raise NameTakenError(
                        f"run {self.stamp}: a run of a different worker has this name; start a new run"
                    )
                self.revision = 0
            if self.revision == 0 and record["run_id"]:
                path = name_path(folder, record["run_id"])
                holder = objects.create(files, self.stamp.encode(), path).decode(errors="replace")
                if holder != self.stamp:
                    msg = f"run {self.stamp}: a different worker has started run {holder} for this PIPELINE_RUN_ID"
                    raise NameTakenError(f"{msg}; continue that one")

    def advance(self, record: manifest.Record) -> None:
        """Write the next manifest. Raises UnreachableError if a different attempt has."""
        content = manifest.to_bytes(record)
        with self._open() as (files, folder):
            if objects.create(files, content, revision_path(folder, self.revision + 1)) != content:
                raise self._taken_over()
        self.revision += 1

    def send(self, run_folder: Path, made: dict[str, manifest.Record], log: Path) -> None:
        """Send artifacts and this attempt's part of the log, unless a different attempt has the run."""
        with self._open() as (files, folder):
            if objects.size(files, revision_path(folder, self.revision + 1)) is not None:
                raise self._taken_over()

            def put(name: str) -> None:
                path = f"{folder}/files/{made[name]['sha256']}"
                # Whoever fetches it compares its hash.
                objects.put_artifact(files, run_folder / name, path, made[name], read_back=False)

            with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
                list(pool.map(put, made))
        self._send_log(log.read_bytes())

    def save_log(self, log: Path) -> None:
        """Send this attempt's part of the log once more, if it has grown and the attempt still has the run."""
        if self.own < 0 or self.is_lost or len(content := log.read_bytes()) == self.saved:
            return
        with self._open() as (files, folder):
            if objects.size(files, revision_path(folder, self.revision + 1)) is not None:
                return
        self._send_log(content)

    def _send_log(self, content: bytes) -> None:
        with self._open() as (files, folder):
            objects.send_bytes(files, content[len(self.log) :], f"{folder}/log/{self.own}.log", create=False)
        self.saved = len(content)

    def fetch(self, sha256: str, path: Path) -> bool:
        """Copy an artifact to this disk; return whether there is one."""
        with self._open() as (files, folder):
            try:
                files.get_file(f"{folder}/files/{sha256}", str(path))
            except FileNotFoundError:
                return False
        return True

    def note_published(self) -> None:
        """Note that nothing more is to be done for the run."""
        with self._open() as (files, folder):
            objects.create(files, b"yes\n", f"{folder}/{PUBLISHED}")

    @contextmanager
    def _open(self) -> "Iterator[tuple[AbstractFileSystem, str]]":
        """Yield the storage and the run's folder in it; after an error, the attempt has lost the run."""
        if self.is_lost:
            raise self._taken_over()
        try:
            with translate_errors(self.url):
                files, root = open_storage(self.url)
                yield files, f"{root}/{self.stamp}"
        except PipelineError:
            self.is_lost = True
            raise

    def _taken_over(self) -> UnreachableError:
        return UnreachableError(
            f"run {self.stamp}: another attempt at a step has taken over this run in {self.url}; leave it to that one"
        )


def find_objects(files: "AbstractFileSystem", folder: str) -> list[str]:
    """Return the paths of all objects of a run, without a cached listing."""
    try:
        return list(files.find(folder))
    except FileNotFoundError:
        return []


def highest_revision(paths: list[str]) -> int:
    """Return the highest number of a manifest, -1 if there is none."""
    return max((int(found[1]) for path in paths if (found := re.search(r"/manifest/(\d+)\.json$", path))), default=-1)


def revision_path(folder: str, number: int) -> str:
    """Return where the manifest with this number is."""
    return f"{folder}/manifest/{number}.json"


def name_path(folder: str, run_id: str) -> str:
    """Return where the stamp of the run with an orchestrator's name is; it may hold any character, and be long."""
    return f"{folder.rpartition('/')[0]}/names/{hashlib.sha256(run_id.encode(errors='surrogateescape')).hexdigest()}"


def find_stamp(url: str, run_id: str) -> str | None:
    """Return the stamp of the run that was started under an orchestrator's name for it."""
    with translate_errors(url):
        files, root = open_storage(url)
        stamp = objects.read(files, name_path(f"{root}/", run_id))
    return stamp.decode(errors="replace") if stamp else None


def _pieces_of_log(paths: list[str]) -> list[str]:
    numbers = {int(found[1]): path for path in paths if (found := re.search(r"/log/(\d+)\.log$", path))}
    return [numbers[n] for n in sorted(numbers)]
