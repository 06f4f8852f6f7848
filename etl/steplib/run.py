"""One run: its stamp, its log, its folder, its artifacts."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steplib import manifest as manifests
from steplib.errors import DataError, UnreachableError, UsageError
from steplib.settings import ROOT

# Either may be a link to a larger disk.
LOGS = (ROOT / "logs").resolve()
RESULTS = (ROOT / "results").resolve()
RUNS = RESULTS / "runs"
STAMP = manifests.STAMP
SCRATCH = ".scratch_"


@dataclass(frozen=True)
class Run:
    """A run is named by its log's stamp; everything that it makes lies in its folder."""

    stamp: str

    @property
    def log(self) -> Path:
        """The log that all steps append to."""
        return LOGS / f"log_{self.stamp}.log"

    @property
    def folder(self) -> Path:
        """The folder of the artifacts and the manifest."""
        return RUNS / self.stamp

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of this run; the lock goes with the process, however it ends."""
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                msg = f"run {self.stamp}: expected to work on it alone, found another process; try again later"
                raise UnreachableError(msg) from error
            yield

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a folder in the run's for what a step needs while it works; it goes with the step, or with the next."""
        self.clear_scratch()
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=self.folder) as folder:
            yield Path(folder)

    def clear_scratch(self) -> None:
        """Remove what a step that was killed has left; only who has the run's lock may."""
        for rest in self.folder.glob(f"{SCRATCH}*"):
            shutil.rmtree(rest)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give the path to write an artifact to; it gets its name when it is whole and on the disk, or never.

        Raises UsageError for other content than before in a run that went through to the end.
        """
        part = self.folder / f".{name}.part"
        try:
            yield part
            _sync(part)
            self._check_unchanged(name, part)
            part.replace(self.folder / name)
            _sync(self.folder)
        except BaseException as error:
            part.unlink(missing_ok=True)
            if isinstance(error, OSError) and not error.filename:
                error.filename = str(self.folder / name)
            raise

    def _check_unchanged(self, name: str, part: Path) -> None:
        """Let a whole run be what it is: a repeated step may make the same again, but no mixture of old and new."""
        if name == manifests.NAME:
            return
        manifest = manifests.read_manifest(self.folder)
        if manifests.is_whole(manifest) and manifests.sha256(part) != manifest["artifacts"].get(name, {}).get("sha256"):
            msg = f"{name}: expected the same content again in run {self.stamp}, which is finished, found other content"
            raise UsageError(f"{msg}; start a new run for it")

    def input(self, name: str) -> Path:
        """Return the path of an earlier step's artifact, if its bytes are those that were recorded.

        Raises UsageError if that step has not made it, or failed since; DataError if it is gone or another.
        """
        path = self.folder / name
        manifest = manifests.read_manifest(self.folder)
        record = manifest["artifacts"].get(name)
        if record is None or manifest["steps"].get(record["step"], {}).get("outcome") != "done":
            msg = f"{name}: expected it from the step before, found that this has not done its work in this run"
            raise UsageError(f"{msg}; run {', '.join(manifests.STEPS)} in this order")
        if not path.is_file() or manifests.sha256(path) != record["sha256"]:
            found = "other content (sha256 differs)" if path.is_file() else "no file"
            msg = f"{path}: expected what {record['step']} recorded in {manifests.NAME}, found {found}"
            raise DataError(f"{msg}; run etl/{record['step']}.py for this run again")
        return path

    def begin(self, step: str) -> None:
        """Record that a step is at work."""
        manifest = manifests.read_manifest(self.folder)
        manifests.note_start(manifest, step)
        self.write_manifest(manifest)

    def finish(self, step: str, exit_code: int, seconds: float, facts: Mapping[str, Any]) -> None:
        """Record how a step ended, and what it made: `artifacts` in the facts maps names to rows, or None."""
        manifest = manifests.read_manifest(self.folder)
        told = dict(facts)
        for name, rows in told.pop("artifacts", {}).items():
            manifests.note_artifact(manifest, step, self.folder / name, rows)
        for name, rows in told.pop("rows_read", {}).items():
            manifest["artifacts"][name]["rows"] = rows
        manifests.note_end(manifest, step, exit_code, seconds, told)
        self.write_manifest(manifest)

    def write_manifest(self, manifest: manifests.Manifest) -> None:
        """Replace the manifest as a whole."""
        with self.writing(manifests.NAME) as part:
            part.write_bytes(manifests.to_bytes(manifest))

    def keep_log(self) -> None:
        """Put the log, as it is now, among the artifacts, once: what is published must not grow."""
        manifest = manifests.read_manifest(self.folder)
        copy = self.folder / self.log.name
        if copy.name not in manifest["artifacts"]:
            part = self.folder / f".{copy.name}.part"
            shutil.copyfile(self.log, part)
            _sync(part)
            part.replace(copy)
            manifests.note_artifact(manifest, manifests.STEPS[-1], copy, None)
            self.write_manifest(manifest)


def _sync(path: Path) -> None:
    """Have the disk take a file's bytes, or a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
