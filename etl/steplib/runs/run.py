"""One run: its stamp, its log, its folder, its artifacts."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steplib.errors import DataError, PipelineError, UsageError
from steplib.runs import manifest
from steplib.runs.disk import lock, replace
from steplib.runs.folders import LOG_PREFIX, LOG_SUFFIX, PENDING, SCRATCH, logs, runs

if TYPE_CHECKING:
    from steplib.runs.remote import RemoteRun

# How a file that a step has made again differs from the recorded one, if it does; called with recorded and new file.
Difference = Callable[[Path, Path], str | None]


@dataclass(frozen=True)
class Run:
    """A run is named by its log's stamp; everything that it makes is in its folder."""

    stamp: str
    # With RUNS_URL, where the run is; its folder and log on this disk are then a cache.
    remote: "RemoteRun | None" = field(default=None, compare=False, repr=False)

    @property
    def log(self) -> Path:
        """The log that all steps append to."""
        return logs() / f"{LOG_PREFIX}{self.stamp}{LOG_SUFFIX}"

    @property
    def folder(self) -> Path:
        """The folder of the artifacts and the manifest."""
        return runs() / self.stamp

    @property
    def pending(self) -> Path:
        """Marks a run that is still to be published, or whose result is still to be read."""
        return runs() / f"{PENDING}{self.stamp}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of this run."""
        with lock(self.folder / ".lock", 0, f"run {self.stamp}: another process is working on it; try again later"):
            yield

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a folder for temporary files; it is removed when the step ends or, after a kill, by the next step.

        It is beside the run's folder, so that a step that is killed leaves a finished run as it was.
        """
        with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}{self.stamp}_", dir=runs()) as folder:
            try:
                yield Path(folder)
            except OSError as error:
                error.filename = error.filename or folder
                raise

    def clear_scratch(self) -> None:
        """Remove what a killed step has left behind; the caller must hold the run's lock."""
        for left in runs().glob(f"{SCRATCH}{self.stamp}_*"):
            shutil.rmtree(left)

    @contextmanager
    def writing(
        self,
        name: str,
        difference: Difference = lambda *_: "different content",
        way_out: str = "start a new run for it",
    ) -> Iterator[Path]:
        """Yield a temporary path for an artifact; the file gets its name once it is complete and on disk, or never.

        A finished run keeps its file if the new one does not differ from it. Raises UsageError if it does.
        """
        path = self.folder / name
        with self.scratch() as scratch:
            part = scratch / name
            try:
                yield part
                if self._keeps(name, part, difference, way_out):
                    return
                replace(part, path)
            except OSError as error:
                error.filename = error.filename or str(path)
                raise

    def _keeps(self, name: str, part: Path, difference: Difference, way_out: str) -> bool:
        """Return whether to keep the file of a finished run; a damaged one is replaced by identical content.

        Raises UsageError if a repeated step would turn a finished run into a mixture of old and new.
        """
        record, path = manifest.read(self.folder), self.folder / name
        if not manifest.is_finished(record):
            return False
        made = record["artifacts"].get(name)
        if made is None:
            found: str | None = "a file that it does not have"
        elif manifest.sha256(part) == made["sha256"]:
            return path.is_file() and manifest.sha256(path) == made["sha256"]
        else:
            is_intact = self._bring(name, made) == made["sha256"]
            found = difference(path, part) if is_intact else "different content"
        if found:
            msg = f"{name}: run {self.stamp} is finished, and this step would now write {found}"
            raise UsageError(f"{msg}; {way_out}")
        return True

    def input(self, name: str) -> Path:
        """Return the path of an earlier step's artifact after comparing its hash with the recorded one.

        Raises UsageError if that step has not made it or has failed since; DataError if it is missing or changed.
        """
        made = self._made(name)
        self._check_input(name, made, self._bring(name, made))
        return self.folder / name

    def open_input(self, name: str) -> BytesIO:
        """Return an artifact in memory, the very bytes whose hash was compared; raises the same errors as `input`."""
        made, path = self._made(name), self.folder / name
        if self.remote:
            self._bring(name, made)
        content = path.read_bytes() if path.is_file() else None
        self._check_input(name, made, None if content is None else hashlib.sha256(content).hexdigest())
        return BytesIO(content or b"")

    def is_due(self, name: str) -> bool:
        """Return whether to make an artifact that is never made again once the run is finished, unless it was lost."""
        record = manifest.read(self.folder)
        made = record["artifacts"].get(name)
        is_lost = made is not None and self._bring(name, made) != made["sha256"]
        return is_lost or not manifest.is_finished(record)

    def has(self, name: str) -> bool:
        """Return whether an earlier step has recorded an artifact that not every run has."""
        return name in manifest.read(self.folder)["artifacts"]

    def bring_artifacts(self) -> None:
        """With RUNS_URL, bring all artifacts to this disk."""
        if self.remote:
            for name, made in manifest.read(self.folder)["artifacts"].items():
                self._bring(name, made)

    def _made(self, name: str) -> manifest.Record:
        record = manifest.read(self.folder)
        made = record["artifacts"].get(name)
        if made is None or record["steps"].get(made["step"], {}).get("outcome") != "done":
            msg = f"{name}: not there yet: the step that makes it has not finished in this run"
            raise UsageError(f"{msg}; run {', '.join(manifest.STEPS)} in this order")
        return dict(made)

    def _bring(self, name: str, made: manifest.Record) -> str | None:
        """Return an artifact's sha256, after fetching it from RUNS_URL if this disk does not have it."""
        path = self.folder / name
        sha256 = manifest.sha256(path) if path.is_file() else None
        if sha256 == made["sha256"] or not self.remote:
            return sha256
        with self.scratch() as scratch:
            part = scratch / name
            if self.remote.fetch(made["sha256"], part) and (sha256 := manifest.sha256(part)) == made["sha256"]:
                replace(part, path)
        return sha256

    def _check_input(self, name: str, made: manifest.Record, sha256: str | None) -> None:
        if sha256 != made["sha256"]:
            found = "different content (sha256)" if sha256 else "no file"
            msg = f"{self.folder / name}: expected what {made['step']} recorded in {manifest.NAME}, found {found}"
            raise DataError(f"{msg}; run etl/{made['step']}.py for this run again")

    def restore(self) -> None:
        """With RUNS_URL, bring the manifest and the log to this disk; see RemoteRun.restore."""
        if self.remote:
            self.remote.restore(self)

    def save_log(self) -> None:
        """With RUNS_URL, save the last lines of the log, after which nothing can be logged any more."""
        if self.remote:
            with suppress(OSError, PipelineError):
                self.remote.save_log(self.log)

    def note_published(self) -> None:
        """With RUNS_URL, note there that nothing more is to be done for the run."""
        if self.remote:
            self.remote.note_published()

    def begin(self, step: str) -> None:
        """Record that a step has started; the manifest of a finished run never changes."""
        self.clear_scratch()
        self.pending.touch()
        record = manifest.read(self.folder)
        if manifest.is_finished(record):
            return
        if self.remote:
            self.remote.begin(record)
        manifest.note_start(record, step)
        if self.remote:
            # Distinguishes this manifest from that of an attempt that starts at the same moment.
            record["steps"][step]["attempt"] = f"{os.uname().nodename}/{os.urandom(8).hex()}"
            self.remote.advance(record)
            self.remote.own = self.remote.revision
        self.write_manifest(record)

    def finish(self, step: str, exit_code: int, seconds: float, facts: Mapping[str, Any]) -> None:
        """Record how a step ended; `artifacts` and `rows_read` in the facts map names to counts of rows, or None.

        With the last step the run is finished. It then has a copy of the log, because a published file must not grow.
        """
        # The last manifest may be in RUNS_URL, but not on this disk yet.
        record = manifest.parse(self.remote.content, self.stamp) if self.remote else manifest.read(self.folder)
        if manifest.is_finished(record):
            return
        rest = dict(facts)
        artifacts = rest.pop("artifacts", {})
        if artifacts and step == manifest.STEPS[-1]:
            with self.writing(self.log.name) as part:
                shutil.copyfile(self.log, part)
            artifacts = {**artifacts, self.log.name: None}
        for name, rows in artifacts.items():
            manifest.note_artifact(record, step, self.folder / name, rows)
        others = manifest.forget_others(record, step, artifacts) if exit_code == os.EX_OK else set()
        for name, rows in rest.pop("rows_read", {}).items():
            record["artifacts"][name]["rows"] = rows
        # What is about the run as a whole.
        record |= {name: rest.pop(name) for name in manifest.JUDGED if name in rest}
        manifest.note_end(record, step, exit_code, seconds, rest)
        if self.remote:
            self.remote.send(self.folder, {name: record["artifacts"][name] for name in artifacts}, self.log)
            self.remote.advance(record)
        self.write_manifest(record)
        for name in others:
            (self.folder / name).unlink(missing_ok=True)

    def write_manifest(self, record: manifest.Record) -> None:
        """Replace the manifest as a whole; unlike for artifacts, the run need not be locked, and is never finished."""
        self.replace_manifest(manifest.to_bytes(record))

    def replace_manifest(self, content: bytes) -> None:
        """Replace the manifest with this content; see write_manifest."""
        part = self.folder / f".{manifest.NAME}.part"
        try:
            part.write_bytes(content)
            replace(part, self.folder / manifest.NAME)
        except OSError as error:
            error.filename = str(self.folder / manifest.NAME)
            part.unlink(missing_ok=True)
            raise

    def release(self) -> None:
        """Note that the caller has read the result: from now on the run may be pruned."""
        self.pending.unlink(missing_ok=True)
