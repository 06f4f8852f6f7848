"""Where runs and their logs are on this disk."""

import os
from functools import cache
from pathlib import Path

from steplib.runs import manifest
from steplib.settings import state_dir

LOG_PREFIX, LOG_SUFFIX = "log_", ".log"
SCRATCH, PENDING = ".scratch_", ".pending_"
RUNS = "runs"


@cache
def logs() -> Path:
    """Return the folder of the logs, which may be a link to a larger disk."""
    return Path(os.path.realpath(state_dir() / "logs"))


@cache
def results() -> Path:
    """Return the folder of the results, which may be a link to a larger disk."""
    return Path(os.path.realpath(state_dir() / "results"))


@cache
def runs() -> Path:
    """Return the folder of the runs' folders, which may be a link too."""
    return Path(os.path.realpath(results() / RUNS))


def stamp_of_log(path: Path) -> str | None:
    """Return the stamp in the name of a log, or None if it is not such a name."""
    stamp = path.name.removeprefix(LOG_PREFIX).removesuffix(LOG_SUFFIX)
    return stamp if manifest.STAMP.fullmatch(stamp) and f"{LOG_PREFIX}{stamp}{LOG_SUFFIX}" == path.name else None
