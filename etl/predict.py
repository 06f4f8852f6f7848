"""Score new cases with the model in use, or with that of the run that --model names.

Reads     SOURCE: http(s)://…, s3://…, gs://…, abfs://…, file://… or a path (default: the setting PREDICT_URL), a CSV of
          ids and the model's features. With a header line, columns are matched by name, in any order; the ids are in
          the column id, otherwise in the first column; diagnoses and other surplus columns are ignored. Without a
          header line: id and features, or id, diagnosis and features, in the model's order. An id may occur twice.
Writes    the output: id,y_pred,probability (1 = M) in the order of SOURCE; beside it <output>.json: the run, hashes,
          the threshold, versions, and how the cases differ from the training rows.
Refuses   with 65: what transform.py refuses in a row, a missing feature, a model that is not the recorded one;
          with 64: no run in use, or none with that name; an output that would replace the source or a run's file;
          with 71, 74, 75 and 78: as the steps.
Warns     about features whose values are not like those of the training rows.

The only line on stdout is the path of the output.
"""

import hashlib
import json
import logging
from argparse import Namespace, RawDescriptionHelpFormatter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import import_module
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from steplib import process
from steplib.arguments import Parser
from steplib.errors import PipelineError, SettingError, UsageError, shorten
from steplib.runs import lookup, manifest
from steplib.runs.output import Output, find_output, finish, sidecar_of, writing
from steplib.settings import Settings, read_settings
from steplib.source.address import HIDDEN, redact
from steplib.source.opening import open_source, path_of
from steplib.table.csvfile import check_head
from steplib.table.new_cases import find_cases
from steplib.table.pool import open_pool

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline
    from steplib.model.drift import Array

CLEAR = "clear_data.csv"
# Without the diagnosis: an id and a feature.
LEAST_COLUMNS = 2
MOST_NAMES = 20
Facts = dict[str, Any]


class Given(NamedTuple):
    """The source as it was given, the folder from which a relative path starts, and the name of what gave it."""

    url: str
    base: Path
    name: str


def predict(arguments: Namespace, log: logging.Logger) -> Path:
    """Score the cases, and return the path of the output."""
    started, settings = datetime.now(UTC), read_settings()
    if arguments.publish and not settings.storage_url:
        raise SettingError("STORAGE_URL: expected a storage to publish to, found none; set it, or omit --publish")
    source, base, name = arguments.source, Path.cwd(), "SOURCE"
    if not source:
        source, base, name = settings.predict_url, settings.predict_base, "PREDICT_URL"
    if not source:
        raise UsageError("SOURCE: expected a file or an address, here or in PREDICT_URL, found none; see --help")
    shown = redact(source)
    path = find_output(arguments.output, "" if HIDDEN in shown else shown.rpartition("/")[2])
    with writing(path, path_of(source, base)) as output:
        run = lookup.find_run(arguments.model, settings.storage_url, output.scratch)
        log.info("model: run %s in %s", run.record["run"], run.place)
        facts = score(run, Given(source, base, name), output, settings, log)
        seconds = round((datetime.now(UTC) - started).total_seconds(), 3)
        facts |= {"started": started.isoformat(), "seconds": seconds, **manifest.versions()}
        output.description.write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        finish(output)
        log.info("output: %s, %d cases", path, facts["rows"])
        if arguments.publish:
            from steplib.publish import predictions

            predictions.publish([path, sidecar_of(path)], started, settings.storage_url, log)
    return path


def score(run: lookup.Found, source: Given, output: Output, settings: Settings, log: logging.Logger) -> Facts:
    """Write the predictions, and return facts about them."""
    about_training, table = run.record["steps"]["train"], output.scratch / "cases"
    with ThreadPoolExecutor(1) as thread:
        # Importing scikit-learn takes as long as copying a large file.
        loading = thread.submit(load_model, lookup.read_model(run))
        copied = copy(source, table, settings.data_timeout)
        log.info("source: %s, %d bytes", copied["name"], copied["bytes"])
        model = loading.result()
        from steplib.model import prediction

        cases = find_cases(table, list(model[0].feature_names_in_), copied["lines"])
        if cases.columns.unused:
            log.info("ignored columns: %s", shorten(cases.columns.unused, MOST_NAMES))
        # And scipy.stats, which this imports, as scoring a part of it.
        thread.submit(import_module, "steplib.model.likeness")
        with open_pool(settings.workers) as pool, output.part.open("wb") as out:
            scored = prediction.predict(model, cases, about_training, out, settings.batch_bytes, pool)
    from steplib.model import likeness

    training = training_rows(run, log) if scored.rows >= likeness.LEAST_ROWS else None
    found, warnings = likeness.compare(scored, cases.columns.feature_names, about_training, training)
    for warning in warnings:
        log.warning(warning)
    return {
        "run": run.record["run"],
        "place": run.place,
        "model_sha256": run.record["artifacts"][lookup.MODEL]["sha256"],
        "threshold": manifest.metrics(run.record).get("threshold"),
        "input": copied,
        "output": {"name": output.path.name, **describe(output.part)},
        "rows": scored.rows,
        "columns_ignored": cases.columns.unused,
        "warnings": warnings,
        **found,
    }


def load_model(content: bytes) -> "Pipeline":
    """Unpickle a model."""
    from steplib.model import joblib

    return joblib.load(BytesIO(content))


def copy(source: Given, path: Path, timeout: float) -> Facts:
    """Copy the source to this disk, and return facts about it; memory holds one chunk at a time."""
    sha256, lines = hashlib.sha256(), 0
    try:
        with open_source(source.url, source.base, timeout) as opened, path.open("wb") as file:
            check_head(head := next(opened.chunks, b""), LEAST_COLUMNS)
            for chunk in chain([head], opened.chunks):
                sha256.update(chunk)
                lines += chunk.count(b"\n")
                file.write(chunk)
    except PipelineError as error:
        # data_loader.py and this script share these errors; each names how its source was given.
        raise type(error)(str(error).replace("DATA_URL", source.name)) from error
    return {"name": opened.name, "version": opened.version, "lines": lines, **describe(path, sha256.hexdigest())}


def describe(path: Path, sha256: str | None = None) -> Facts:
    """Return a file's sha256 and size."""
    return {"sha256": sha256 or manifest.sha256(path), "bytes": path.stat().st_size}


def training_rows(run: lookup.Found, log: logging.Logger) -> "Array | None":
    """Return a sample of the run's training rows; None if they cannot be had as they were, which stops nothing."""
    from steplib.model.drift import sample_training_rows

    made = run.record["artifacts"][CLEAR]
    try:
        path = run.fetch([CLEAR]) / CLEAR
        if path.is_file() and manifest.sha256(path) == made["sha256"]:
            return sample_training_rows(path, made["rows"])
        found = "is missing or has changed"
    except (OSError, PipelineError) as error:
        found = f"cannot be read ({type(error).__name__})"
    log.info("%s of run %s %s, so the cases are not tested for drift", CLEAR, run.record["run"], found)
    return None


parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
parser.add_argument("source", nargs="?", metavar="SOURCE", help="the new cases")
parser.add_argument(
    "--model", metavar="RUN|URL", help="a run's stamp or folder, or the URL of a published run or of latest.json"
)
parser.add_argument("--output", metavar="FILE", help="where to write (default: results/predictions/<name of SOURCE>)")
parser.add_argument("--publish", action="store_true", help="send the output to STORAGE_URL/predictions/<UTC time>/ too")

if __name__ == "__main__":
    process.main_of_writer(__file__, parser, predict)
