"""Finding a finished run, and reading its model: the run in use, or one that a person names."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from steplib.errors import DataError, UsageError
from steplib.runs import manifest
from steplib.runs.folders import RUNS, runs
from steplib.runs.records import LATEST, nearest, read_highest
from steplib.runs.stores import Store, open_store

MODEL = "model.pkl"
URL_OF_RUN = re.compile(rf"(.+?)/+(?:{RUNS}/+({manifest.STAMP.pattern})|{re.escape(LATEST)})/*", re.ASCII)


class Found(NamedTuple):
    """A finished run; `fetch` returns a folder on this disk with those of the named files that exist."""

    record: manifest.Record
    place: str
    fetch: Callable[[Iterable[str]], Path]


def find_run(text: str | None, storage_url: str, scratch: Path) -> Found:
    """Find a run by its stamp, its folder or its URL, or by a URL of latest.json; without a text, the one in use.

    Files from a storage are put into `scratch`. Raises UsageError if there is no such run, DataError if its manifest is
    not the one that was promoted.
    """
    url, stamp = storage_url, text or None
    if text and "://" in text:
        match = URL_OF_RUN.fullmatch(text)
        if not match:
            raise UsageError(
                f"--model: expected a URL that ends with {RUNS}/<stamp> or {LATEST}, found neither; correct it"
            )
        url, stamp = match[1], match[2]
    elif text and os.path.isfile(f"{text}/{manifest.NAME}"):  # noqa: PTH113 - Path's raises for a name that is too long
        return _check(manifest.read(Path(text)), text, lambda _: Path(text))
    elif text and not manifest.STAMP.fullmatch(text):
        msg = f"--model: expected a run's stamp, folder or URL, found no {text[:200]}/{manifest.NAME}"
        raise UsageError(f"{msg}; runs.py list shows the runs")
    elif text and (runs() / text / manifest.NAME).is_file():
        url = ""
    with open_store(url) as store:
        return _find_in(store, stamp, scratch)


def _find_in(store: Store, stamp: str | None, scratch: Path) -> Found:
    """Find a run in a store; without a stamp, the one in use, whose files may be on this disk too."""
    _, current = read_highest(store)
    expected = current.get("manifest_sha256") if current and stamp in {None, current["run"]} else None
    if stamp is None:
        if current is None:
            raise UsageError(f"{store.name}: no run is in use; run the pipeline, or name a run with --model")
        stamp = str(current["run"])
        store = nearest(store, current)
    path = f"{RUNS}/{stamp}/{manifest.NAME}"
    content = store.read(path)
    if content is None:
        raise UsageError(f"{store.name}: there is no run {stamp}; name a different one with --model, or promote one")
    if expected not in {None, hashlib.sha256(content).hexdigest()}:
        msg = f"{store.name}/{path}: expected the manifest that was promoted, found different content (sha256)"
        raise DataError(f"{msg}; promote a run that runs.py verify accepts")
    bring = partial(store.bring, stamp, scratch=scratch)
    return _check(manifest.parse(content, path), store.name, bring)


def _check(record: manifest.Record, place: str, fetch: Callable[[Iterable[str]], Path]) -> Found:
    if not manifest.is_finished(record):
        raise UsageError(
            f"{place}: run {record['run']} is not finished; run its remaining steps, or name a different run"
        )
    return Found(record, place, fetch)


def read_model(run: Found) -> bytes:
    """Return the bytes of a run's model. Raises DataError if their hash is not the recorded one."""
    path = run.fetch([MODEL]) / MODEL
    content = path.read_bytes() if path.is_file() else None
    made = run.record["artifacts"].get(MODEL, {})
    if content is None or hashlib.sha256(content).hexdigest() != made.get("sha256"):
        found = "no file" if content is None else "different content (sha256)"
        msg = f"{MODEL} of run {run.record['run']} in {run.place}: expected what its manifest records, found {found}"
        raise DataError(f"{msg}; name a run with --model that runs.py verify accepts")
    return content
