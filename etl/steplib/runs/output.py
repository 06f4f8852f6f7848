"""An output that is not a run's: a file and, beside it, <file>.json, which describes it; each is whole or absent."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steplib.errors import SettingError, UsageError
from steplib.runs.disk import lock, replace
from steplib.runs.folders import logs, results

FOLDER = "predictions"


def find_output(text: str | None, name: str) -> Path:
    """Return the full path of an output: the one in a text or, without one, results/predictions/<name>.

    Raises UsageError for a path that cannot be an output, or that belongs to a run.
    """
    default = results() / FOLDER
    if text is None:
        default.mkdir(parents=True, exist_ok=True)
        return default / (re.sub(r"[^\w.-]", "_", name).lstrip(".") or "cases.csv")
    path = Path(os.path.abspath(text))  # noqa: PTH100 - Path.resolve would also follow links
    folder = Path(os.path.realpath(path.parent))
    if not text or path.is_dir() or not folder.is_dir():
        raise UsageError(f"--output: expected a file in a folder that exists, found {text!r}; correct it")
    if any(folder.is_relative_to(own) for own in (results(), logs())) and not folder.is_relative_to(default):
        msg = f"--output: expected a file outside {results()} and {logs()}, or in {default}, found {text!r}"
        raise UsageError(f"{msg}; correct it")
    return path


def sidecar_of(output: Path) -> Path:
    """Return the path of the file that describes an output."""
    return output.with_name(f"{output.name}.json")


@contextmanager
def writing(output: Path, source: Path) -> Iterator[tuple[Path, Path]]:
    """Yield temporary paths for an output and its sidecar, in a folder for scratch files; both get their names at once.

    Raises UnreachableError if another process is writing this output, UsageError if one of the two is the source.
    Whatever ends the block leaves the files that were there before; after a kill, a sidecar is either that of its
    output or missing.
    """
    for path in (output, sidecar_of(output)):
        if path.exists() and source.exists() and path.samefile(source):
            raise UsageError(f"--output: expected a file that is not the source, found {path}; name a different one")
    if not os.access(output.parent, os.W_OK):
        msg = f"--output: expected a folder in which files can be written, found {output.parent}"
        raise SettingError(f"{msg}; correct its permissions, or name a different file")
    scratch, busy = output.with_name(f".{output.name}.scratch"), f"{output}: another process is writing it"
    with lock(output.with_name(f".{output.name}.lock"), 0, f"{busy}; try again later"):
        # What a killed process has left.
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            parts = scratch / output.name, scratch / sidecar_of(output).name
            yield parts
            sidecar_of(output).unlink(missing_ok=True)
            replace(parts[0], output)
            replace(parts[1], sidecar_of(output))
        finally:
            shutil.rmtree(scratch)
