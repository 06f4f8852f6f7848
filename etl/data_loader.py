"""Copy the data from its source into the run's raw_data.csv, byte for byte.

Reads     DATA_URL: http(s)://…, s3://…, gs://…, abfs://…, file://… or a path (default: the embedded data/wdbc.csv).
Writes    raw_data.csv; starts the run's log, or continues LOG; with STORAGE_URL set, claims the run's name there.
Refuses   with 75 (retried): a source that cannot be reached, is cut off or too slow, or changes while it is read;
          HTTP 408, 429, 5xx; a storage that does not answer;
          with 78: a missing file, object or bucket, a folder, an unknown scheme, any other HTTP status,
          a certificate that is not accepted, a proxy that refuses, a redirect from https to http,
          a storage that refuses;
          with 64: a LOG whose name a run on a different disk has in the storage;
          with 74: a source larger than the free disk space;
          with 65: anything but a CSV (HTML, JSON, an archive, a spreadsheet, binary data, an empty file).
"""

import logging
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from steplib import step
from steplib.errors import StorageError
from steplib.runs.run import Run
from steplib.settings import Settings
from steplib.source.opening import Source, open_source
from steplib.table.csvfile import check_head


def load(run: Run, settings: Settings, log: logging.Logger) -> dict[str, Any]:
    """Stream the source into raw_data.csv."""
    if settings.storage_url:
        from steplib.publish.publishing import claim

        claim(run, settings.storage_url)
    source = open_source(settings.data_url, settings.data_base, settings.data_timeout)
    with source as opened, run.writing("raw_data.csv") as part:
        log.info("source: %s, %s", opened.name, "size unknown" if opened.size is None else f"{opened.size} bytes")
        check_space(opened, run.folder, opened.size or 0)
        store(opened, part)
        log.info("raw_data.csv: %d bytes written", part.stat().st_size)
    return {"source": opened.name, "source_version": opened.version, "artifacts": {"raw_data.csv": None}}


def store(source: Source, part: Path) -> None:
    """Write the content, once its beginning looks like a CSV. Memory holds one chunk at a time."""
    head = next(source.chunks, b"")
    check_head(head)
    with part.open("wb") as file, progress(file, source.size) as out:
        for chunk in chain([head], source.chunks):
            check_space(source, part.parent, len(chunk))
            out.write(chunk)


def check_space(source: Source, folder: Path, needed: int) -> None:
    """Raise StorageError rather than fill the disk."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        msg = f"{source.name}: expected {needed} bytes free in {folder}, found {free}"
        raise StorageError(f"{msg}; free some space, or name a different folder in STATE_DIR")


def progress(file: BinaryIO, size: int | None) -> AbstractContextManager[Any]:
    """Return the file with a progress bar on a terminal, elsewhere the file itself."""
    if not sys.stderr.isatty():
        return nullcontext(file)
    from tqdm import tqdm

    return tqdm.wrapattr(file, "write", total=size, unit="B", unit_scale=True, leave=False)


if __name__ == "__main__":
    step.main(__file__, __doc__, load)
