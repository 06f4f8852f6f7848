"""Reading the records of promotions (promotions.py) and latest.json, the copy of the highest."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from steplib.errors import DataError
from steplib.runs import manifest
from steplib.storage import objects

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

LATEST = "latest.json"
READS_AT_ONCE = 4
# No storage holds as many records.
LIMIT = 10**9

# What latest.json says.
Promotion = dict[str, Any]


def read_highest(files: "AbstractFileSystem", root: str) -> tuple[int, Promotion | None]:
    """Return the highest number, and the highest record that can be read.

    Without a record, the number is 0, and what an older version has written to latest.json counts.
    """
    number, content = find_highest(files, root, objects.read(files, f"{root}/{LATEST}"))
    return number, _parse_leniently(content)


def read_all(files: "AbstractFileSystem", root: str) -> list[tuple[int, Promotion | None]]:
    """Return all records with their numbers, the highest first; None for a record that cannot be read."""
    number, current = read_highest(files, root)
    if not number:
        return [(0, current)] if current else []
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        return list(pool.map(lambda n: (n, read(files, root, n)), range(number, 0, -1)))


def parse(content: bytes, url: str) -> Promotion:
    """Return what latest.json says. Raises DataError if it names no run."""
    try:
        latest = json.loads(content)
        manifest.STAMP.fullmatch(latest["run"])[0]  # type: ignore[index]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{url}: expected the name of a run, found something else; publish a run again") from error
    return cast("Promotion", {"started": "", **latest})


def find_highest(files: "AbstractFileSystem", root: str, latest: bytes | None) -> tuple[int, bytes | None]:
    """Return the highest number and the content of the highest record that can be read, upwards from latest.json."""
    number = number_of(latest)
    content = objects.read(files, path_of(root, number)) if number else None
    if content is None:
        number = 0  # the latest.json of an older version, or one that is damaged
    if not _parse_leniently(content):
        content = latest if _parse_leniently(latest) else None
    while (record := objects.read(files, path_of(root, number + 1))) is not None:
        number += 1
        content = record if _parse_leniently(record) else content
    return number, content


def path_of(root: str, number: int) -> str:
    """Return where the record with this number is."""
    return f"{root}/promotions/{number}.json"


def number_of(content: bytes | None) -> int:
    """Return the number of the record that latest.json is a copy of; 0 if there is none."""
    number = (_parse_leniently(content) or {}).get("number")
    return number if type(number) is int and 0 < number < LIMIT else 0


def read(files: "AbstractFileSystem", root: str, number: int) -> Promotion | None:
    """Return the record with this number; None if there is none, or it cannot be read."""
    return _parse_leniently(objects.read(files, path_of(root, number)))


def _parse_leniently(content: bytes | None) -> Promotion | None:
    """Return what latest.json or a record says; None if there is none, or it names no run."""
    try:
        return None if content is None else parse(content, LATEST)
    except DataError:
        return None
