"""The objects of runs in RUNS_URL.

<RUNS_URL>/<stamp>/manifest/<n>.json   create-only, n from 0: the manifest; whoever writes the next number has the run
<RUNS_URL>/<stamp>/files/<sha256>      create-only: an artifact
<RUNS_URL>/<stamp>/log/<n>.log         what the attempt that wrote manifest n has logged; joined, the run's log
<RUNS_URL>/<stamp>/published           the run is finished, and nothing more is to be done
<RUNS_URL>/names/<sha256>              create-only: the stamp of the run that has an orchestrator's name, here hashed
"""

import hashlib
import re
from typing import TYPE_CHECKING

from steplib.errors import DataError
from steplib.runs import manifest
from steplib.storage import objects
from steplib.storage.places import open_storage, translate_errors

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PUBLISHED = "published"
# In the last manifest of a run that is being removed (remote_pruning.py).
REMOVED = "removed"


def find_objects(files: "AbstractFileSystem", folder: str) -> list[str]:
    """Return the paths of all objects of a run; a published run may be in the same folder."""
    try:
        found = files.find(folder)
    except FileNotFoundError:
        return []
    return [path for path in found if re.search(rf"/(manifest|files|log)/[^/]+$|/{PUBLISHED}$", path)]


def highest_revision(paths: list[str]) -> int:
    """Return the highest number of a manifest, -1 if there is none."""
    return max(
        (int(found[1]) for path in paths if (found := re.search(r"/manifest/(0|[1-9][0-9]{0,8})\.json$", path))),
        default=-1,
    )


def revision_path(folder: str, number: int) -> str:
    """Return where the manifest with this number is."""
    return f"{folder}/manifest/{number}.json"


def name_path(folder: str, run_id: str) -> str:
    """Return the path of the record of an orchestrator's name, which may contain any characters."""
    return f"{folder.rpartition('/')[0]}/names/{hashlib.sha256(run_id.encode(errors='backslashreplace')).hexdigest()}"


def find_stamp(url: str, run_id: str) -> str | None:
    """Return the stamp of the run that has an orchestrator's name, None if there is none."""
    with translate_errors(url):
        files, root = open_storage(url)
        path = name_path(f"{root}/", run_id)
        content = objects.read(files, path)
    return None if content is None else parse_stamp(content, path)


def parse_stamp(content: bytes, path: str) -> str:
    """Return the stamp in the record of a name. Raises DataError for anything else."""
    stamp = content.decode(errors="replace")
    if not manifest.STAMP.fullmatch(stamp):
        raise DataError(f"{path}: expected the stamp of a run, found something else; remove this object")
    return stamp


def pieces_of_log(paths: list[str]) -> list[str]:
    """Return the paths of the pieces of a log, in order."""
    numbers = {int(found[1]): path for path in paths if (found := re.search(r"/log/(0|[1-9][0-9]{0,8})\.log$", path))}
    return [numbers[n] for n in sorted(numbers)]
