"""Score new cases with the model in use, or with that of the run that --model names.

Reads     SOURCE: http(s)://…, s3://…, gs://…, abfs://…, file://… or a path (default: the setting PREDICT_URL), a CSV of
          ids and the model's features. A header line is matched by name, in any order: the ids are in the column id,
          otherwise in the first column; diagnoses and other surplus columns are ignored. Without a header line: id and
          features, or id, diagnosis and features, in the model's order. An id may occur twice.
Writes    the output: id,y_pred,probability (1 = M) in the order of SOURCE; beside it <output>.json: the run, hashes,
          the threshold, versions, and how the cases differ from the training rows.
Refuses   with 65: what transform.py refuses in a row, a missing feature, a model that is not the recorded one;
          with 64: no run in use, or none with that name; with 75 and 78: as data_loader.py.
Warns     about features whose values are not like those of the training rows.

The only line on stdout is the path of the output.
"""

import hashlib
import json
import logging
from argparse import Namespace, RawDescriptionHelpFormatter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steplib import process
from steplib.arguments import Parser
from steplib.errors import PipelineError, SettingError, UsageError, shorten
from steplib.runs import lookup, manifest
from steplib.runs.output import find_output, sidecar_of, writing
from steplib.settings import Settings, read_settings
from steplib.source.address import HIDDEN, redact
from steplib.source.opening import open_source
from steplib.table.csvfile import check_head
from steplib.table.new_cases import find_cases
from steplib.table.pool import open_pool

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline
    from steplib.model.drift import Array

CLEAR = "clear_data.csv"
# Without the diagnosis: an id and a feature.
LEAST_COLUMNS = 2
Facts = dict[str, Any]


def predict(arguments: Namespace, log: logging.Logger) -> Path:
    """Score the cases, and return the path of the output."""
    started, settings = datetime.now(UTC), read_settings()
    if arguments.publish and not settings.storage_url:
        raise SettingError("STORAGE_URL: expected where to publish, found none; set it, or leave --publish out")
    source, base = arguments.source or settings.predict_url, Path.cwd() if arguments.source else settings.predict_base
    if not source:
        raise UsageError("SOURCE: expected a file or an address, found none, nor one in PREDICT_URL; see --help")
    shown = redact(source)
    output = find_output(arguments.output, "" if HIDDEN in shown else shown.rpartition("/")[2])
    with writing(output, base / source) as (part, sidecar):
        run = lookup.find_run(arguments.model, settings.storage_url, part.parent)
        log.info("model: run %s in %s", run.record["run"], run.place)
        facts = score(run, source, base, part, settings, log)
        facts |= {"output": {"name": output.name, **describe(part)}, "started": started.isoformat()}
        facts |= {"seconds": round((datetime.now(UTC) - started).total_seconds(), 3)} | manifest.versions()
        sidecar.write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    log.info("%s: %d rows", output, facts["rows"])
    if arguments.publish:
        from steplib.publish import predictions

        predictions.publish([output, sidecar_of(output)], started, settings.storage_url, log)
    return output


def score(  # noqa: PLR0913, PLR0917 - by which model, what, and how
    run: lookup.Found, source: str, base: Path, part: Path, settings: Settings, log: logging.Logger
) -> Facts:
    """Write the predictions to `part`, and return facts about them."""
    ranges, table = run.record["steps"]["train"].get("features", {}), part.with_name("cases")
    with ThreadPoolExecutor(1) as thread:
        # Importing scikit-learn takes as long as copying a large file.
        loading = thread.submit(load_model, lookup.read_model(run))
        copied = copy(source, base, table, settings.data_timeout)
        log.info("source: %s, %d bytes", copied["name"], copied["bytes"])
    from steplib.model import likeness, prediction

    model = loading.result()
    cases = find_cases(table, list(model[0].feature_names_in_), copied["lines"])
    if cases.columns.ignored:
        log.info("columns that are ignored: %s", shorten(cases.columns.ignored))
    with open_pool(settings.workers) as pool, part.open("wb") as out:
        scored = prediction.predict(model, cases, ranges, out, settings.batch_bytes, pool)
    training = training_rows(run, log) if scored.rows >= likeness.LEAST_ROWS else None
    found, warnings = likeness.compare(scored, cases.columns.feature_names, ranges, training)
    for warning in warnings:
        log.warning(warning)
    return {
        "run": run.record["run"],
        "place": run.place,
        "model_sha256": run.record["artifacts"][lookup.MODEL]["sha256"],
        "threshold": manifest.metrics(run.record).get("threshold"),
        "input": copied,
        "rows": scored.rows,
        "columns_ignored": cases.columns.ignored,
        "warnings": warnings,
        **found,
    }


def load_model(content: bytes) -> "Pipeline":
    """Unpickle a model."""
    from steplib.model import joblib

    return joblib.load(BytesIO(content))


def copy(source: str, base: Path, path: Path, timeout: float) -> Facts:
    """Copy the source to this disk, and return facts about it; memory holds one chunk at a time."""
    sha256, lines = hashlib.sha256(), 0
    try:
        with open_source(source, base, timeout) as opened, path.open("wb") as file:
            check_head(head := next(opened.chunks, b""), LEAST_COLUMNS)
            for chunk in chain([head], opened.chunks):
                sha256.update(chunk)
                lines += chunk.count(b"\n")
                file.write(chunk)
    except PipelineError as error:
        # As for data_loader.py, by the name that the source has here.
        raise type(error)(str(error).replace("DATA_URL", "SOURCE")) from error
    return {"name": opened.name, "version": opened.version, "lines": lines, **describe(path, sha256.hexdigest())}


def describe(path: Path, sha256: str | None = None) -> Facts:
    """Return a file's sha256 and size."""
    return {"sha256": sha256 or manifest.sha256(path), "bytes": path.stat().st_size}


def training_rows(run: lookup.Found, log: logging.Logger) -> "Array | None":
    """Return a sample of the run's training rows; None if the run no longer has them as they were."""
    from steplib.model.drift import sample_training_rows

    made, path = run.record["artifacts"][CLEAR], run.fetch([CLEAR]) / CLEAR
    if not path.is_file() or manifest.sha256(path) != made["sha256"]:
        log.info("%s of the run is missing or has changed, so the cases are not tested for drift", CLEAR)
        return None
    return sample_training_rows(path, made["rows"])


parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
parser.add_argument("source", nargs="?", metavar="SOURCE", help="the new cases")
parser.add_argument("--model", metavar="RUN|URL", help="a run's stamp or folder, or the URL of a published run")
parser.add_argument("--output", metavar="FILE", help="where to write (default: results/predictions/<name of SOURCE>)")
parser.add_argument("--publish", action="store_true", help="send the output to STORAGE_URL/predictions/<UTC time>/ too")

if __name__ == "__main__":
    process.main_of_writer(__file__, parser, predict)
