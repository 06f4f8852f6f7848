"""An output outside any run: a file and, beside it, <file>.json, which describes it."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from steplib.errors import SettingError, UsageError
from steplib.runs.disk import lock, sync
from steplib.runs.folders import logs, results

FOLDER, DEFAULT_NAME = "predictions", "cases.csv"
# Files that belong to the output have longer names; systems allow 255 bytes.
LONGEST_NAME = 200
# In characters, of which one takes up to four bytes.
LONGEST_DEFAULT = 48


class Output(NamedTuple):
    """Where a file and its description are to be, where they are written, and a folder for other temporary files."""

    path: Path
    part: Path
    description: Path
    scratch: Path


def find_output(text: str | None, name: str) -> Path:
    """Return the full path of an output: the one in a text or, without one, results/predictions/<name>.

    Raises UsageError for a path that cannot be an output, or that belongs to a run.
    """
    default = results() / FOLDER
    if text is None:
        name = re.sub(r"[^\w.-]", "_", name).lstrip(".")[:LONGEST_DEFAULT] or DEFAULT_NAME
        # Otherwise it could be the description of a different output.
        text = str(default / (f"{name}.csv" if name.endswith(".json") else name))
    path = Path(os.path.abspath(text))  # noqa: PTH100 - Path.resolve would also follow links
    if text in {"", "-"} or len(os.fsencode(path.name)) > LONGEST_NAME:
        raise UsageError(
            f"output: expected a file's name of up to {LONGEST_NAME} bytes, found {text[:40]!r}; choose one"
        )
    folder = Path(os.path.realpath(path.parent))
    if any(folder.is_relative_to(own) for own in (results(), logs())) and not folder.is_relative_to(default):
        msg = f"output: expected a file outside {results()} and {logs()}, or in {default}, found {text!r}"
        raise UsageError(f"{msg}; choose a different one")
    if folder == default:
        with suppress(OSError):
            default.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        msg = f"output: expected a folder in which files can be written, found {folder}"
        raise SettingError(f"{msg}; make it, or correct its permissions")
    for each in (path, sidecar_of(path)):
        if each.exists() and not each.is_file():
            raise UsageError(f"output: expected a file, found a folder or a device at {each}; choose a different one")
    return path


def sidecar_of(output: Path) -> Path:
    """Return the path of the file that describes an output."""
    return output.with_name(f"{output.name}.json")


@contextmanager
def writing(path: Path, source: Path | None) -> Iterator[Output]:
    """Yield temporary paths for an output, which `finish` moves to their places.

    Raises UnreachableError if another process is writing this output, UsageError if it would replace the source, whose
    path is given if it is on this disk. What was there before stays until `finish`.
    """
    for each in (path, sidecar_of(path)):
        if source and each.exists() and each.samefile(source):
            raise UsageError(f"output: expected a file that is not the source, found {each}; choose a different one")
    scratch, busy = path.with_name(f".{path.name}.scratch"), f"{path}: another process is writing it; try again later"
    with lock(path.with_name(f".{path.name}.lock"), 0, busy):
        # What a killed process has left.
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            # For the owner alone, because the source may be.
            for folder in (scratch, scratch / "output", scratch / "other"):
                folder.mkdir(0o700)
            part = scratch / "output" / path.name
            yield Output(path, part, sidecar_of(part), scratch / "other")
        except OSError as error:
            error.filename = error.filename or str(path)
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def finish(output: Output) -> None:
    """Move an output and its description to their places; a description that is there is always that of its output."""
    sync(output.part)
    sync(output.description)
    sidecar_of(output.path).unlink(missing_ok=True)
    output.part.replace(output.path)
    output.description.replace(sidecar_of(output.path))
    sync(output.path.parent)
