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

from steplib.errors import DataError, UnreachableError, UsageError
from steplib.runs import manifest
from steplib.settings import ROOT

# Either may be a link to a larger disk.
LOGS = (ROOT / "logs").resolve()
RESULTS = (ROOT / "results").resolve()
RUNS = RESULTS / "runs"
LOG_PREFIX, LOG_SUFFIX = "log_", ".log"
SCRATCH = ".scratch_"


@dataclass(frozen=True)
class Run:
    """A run is named by its log's stamp; everything that it makes is in its folder."""

    stamp: str

    @property
    def log(self) -> Path:
        """The log that all steps append to."""
        return LOGS / f"{LOG_PREFIX}{self.stamp}{LOG_SUFFIX}"

    @property
    def folder(self) -> Path:
        """The folder of the artifacts and the manifest."""
        return RUNS / self.stamp

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of this run; the lock ends with the process, however that ends."""
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                msg = f"run {self.stamp}: another process is working on it; try again later"
                raise UnreachableError(msg) from error
            yield

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a folder for temporary files; it is removed when the step ends or, after a kill, by the next step."""
        self.clear_scratch()
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=self.folder) as folder:
            try:
                yield Path(folder)
            except OSError as error:
                error.filename = error.filename or folder
                raise

    def clear_scratch(self) -> None:
        """Remove what a killed step has left behind; the caller must hold the run's lock."""
        for left in self.folder.glob(f"{SCRATCH}*"):
            shutil.rmtree(left)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a temporary path for an artifact; the file gets its name once it is complete and on disk, or never.

        Raises UsageError if a finished run would get different content.
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
        """Raise UsageError if a repeated step would turn a finished run into a mixture of old and new."""
        if name in {manifest.NAME, self.log.name}:
            return
        record = manifest.read(self.folder)
        if manifest.is_finished(record) and manifest.sha256(part) != record["artifacts"].get(name, {}).get("sha256"):
            msg = f"{name}: run {self.stamp} is finished, and this step would now write different content"
            raise UsageError(f"{msg}; start a new run for it")

    def input(self, name: str) -> Path:
        """Return the path of an earlier step's artifact after comparing its hash with the recorded one.

        Raises UsageError if that step has not made it or has failed since; DataError if it is missing or changed.
        """
        path = self.folder / name
        record = manifest.read(self.folder)
        made = record["artifacts"].get(name)
        if made is None or record["steps"].get(made["step"], {}).get("outcome") != "done":
            msg = f"{name}: not there yet: the step that makes it has not finished in this run"
            raise UsageError(f"{msg}; run {', '.join(manifest.STEPS)} in this order")
        if not path.is_file() or manifest.sha256(path) != made["sha256"]:
            found = "different content (sha256)" if path.is_file() else "no file"
            msg = f"{path}: expected what {made['step']} recorded in {manifest.NAME}, found {found}"
            raise DataError(f"{msg}; run etl/{made['step']}.py for this run again")
        return path

    def begin(self, step: str) -> None:
        """Record that a step has started."""
        record = manifest.read(self.folder)
        manifest.note_start(record, step)
        self.write_manifest(record)

    def finish(self, step: str, exit_code: int, seconds: float, facts: Mapping[str, Any]) -> None:
        """Record how a step ended; `artifacts` and `rows_read` in the facts map names to counts of rows, or None."""
        record = manifest.read(self.folder)
        rest = dict(facts)
        for name, rows in rest.pop("artifacts", {}).items():
            manifest.note_artifact(record, step, self.folder / name, rows)
        for name, rows in rest.pop("rows_read", {}).items():
            record["artifacts"][name]["rows"] = rows
        manifest.note_end(record, step, exit_code, seconds, rest)
        self.write_manifest(record)

    def write_manifest(self, record: manifest.Record) -> None:
        """Replace the manifest as a whole."""
        with self.writing(manifest.NAME) as part:
            part.write_bytes(manifest.to_bytes(record))

    def keep_log(self) -> manifest.Record:
        """Copy the log into the artifacts once, since a published file must not grow; return the manifest."""
        record = manifest.read(self.folder)
        if self.log.name not in record["artifacts"]:
            with self.writing(self.log.name) as part:
                shutil.copyfile(self.log, part)
            manifest.note_artifact(record, manifest.STEPS[-1], self.folder / self.log.name, None)
            self.write_manifest(record)
        return record


def stamp_of_log(path: Path) -> str | None:
    """Return the stamp in the name of a log, or None if it is not such a name."""
    stamp = path.name.removeprefix(LOG_PREFIX).removesuffix(LOG_SUFFIX)
    return stamp if manifest.STAMP.fullmatch(stamp) and Run(stamp).log.name == path.name else None


def _sync(path: Path) -> None:
    """Make sure that a file's bytes, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
