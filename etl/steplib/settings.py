"""The settings: the environment, then `.env` in the project's root, then the defaults. They are read nowhere else."""

import os
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import NamedTuple

from steplib import envfile
from steplib.address import check_storage_url, cloud_of
from steplib.envfile import ROOT
from steplib.errors import SettingError

ENVIRONMENT = "the environment"
DAY = 86_400
# Where Airflow keeps what it has fetched for a DAG bundle; it resets and removes these folders.
BUNDLE = re.compile(r"/versions/[0-9a-f]{40}(/|$)|/tracking_repo(/|$)|/dag_bundles/")
# Systems refuse to start tens of thousands of threads.
MOST_WORKERS = 1024

DEFAULTS = {
    "DATA_URL": "data/wdbc.csv",
    "DATA_TIMEOUT": "30",
    "STATE_DIR": "",
    "RETRY_DELAY": "5",
    "KEEP_RUNS": "10",
    "MIN_RECALL": "",
    "GATE": "on",
    "REPORT_IDS": "0",
    "BATCH_BYTES": "2097152",
    "WORKERS": "0",
    "DASK_SCHEDULER": "",
    "STORAGE_URL": "",
    "RUNS_URL": "",
    "KEEP_PUBLISHED": "0",
    "ETL_PYTHON": "",
    "SCHEDULE": "",
    "PREDICT_URL": "",
    "STEP_TIMEOUT": "21600",
    "NOTIFY_URL": "",
    "STORAGE_CONN": "",
}


class Value(NamedTuple):
    """A setting as it was written, and where."""

    name: str
    text: str
    origin: str

    def wrong(self, expected: str, found: str | None = None) -> SettingError:
        """Return the error of a value that cannot be used; without `found` the value itself is shown."""
        shown = repr(self.text[:40]) if found is None else found
        return SettingError(f"{self.name} (set by {self.origin}): expected {expected}, found {shown}; correct it")


@dataclass(frozen=True)
class Settings:
    """The settings of the steps; times in seconds; `workers` 0: one per core; `keep_published` 0: all."""

    data_url: str
    data_base: Path
    data_timeout: float
    predict_url: str
    predict_base: Path
    keep_runs: int
    storage_url: str
    keep_published: int
    min_recall: Decimal | None
    gate: bool
    report_ids: bool
    batch_bytes: int
    workers: int
    dask_scheduler: str


def read_settings() -> Settings:
    """Read and check the settings of the steps. Raises SettingError for a value that cannot be used.

    A relative path of a source starts from the working directory if the environment names it, else from the root.
    """
    values = read_values()
    data_url, storage = values["DATA_URL"], values["STORAGE_URL"]
    if not data_url.text:
        expected = "an http(s) or file URL or a path (leave the line out for the embedded data)"
        raise data_url.wrong(expected, "nothing")
    retry_pauses(values)
    return Settings(
        data_url=data_url.text,
        data_base=_base(data_url),
        predict_url=values["PREDICT_URL"].text,
        predict_base=_base(values["PREDICT_URL"]),
        data_timeout=seconds(values["DATA_TIMEOUT"], least=0.001),
        keep_runs=_whole_number(values["KEEP_RUNS"], least=1),
        storage_url=storage.text and check_storage_url(storage.text, f"{storage.name} (set by {storage.origin})"),
        keep_published=_whole_number(values["KEEP_PUBLISHED"], least=0),
        min_recall=_share(values["MIN_RECALL"]),
        gate=_is_on(values["GATE"]),
        report_ids=bool(_whole_number(values["REPORT_IDS"], least=0, most=1)),
        batch_bytes=_whole_number(values["BATCH_BYTES"], least=1),
        workers=_whole_number(values["WORKERS"], least=0, most=MOST_WORKERS),
        dask_scheduler=_scheduler(values["DASK_SCHEDULER"]),
    )


def _base(source: Value) -> Path:
    return Path.cwd() if source.origin == ENVIRONMENT else ROOT


def read_values() -> dict[str, Value]:
    """Return every setting as it was written, by its name. Raises SettingError if `.env` cannot be read."""
    in_file = envfile.read()
    return {name: _find(name, in_file) for name in DEFAULTS}


def retry_pauses(values: dict[str, Value]) -> list[float]:
    """Return the seconds to wait before each further try of a step that could not reach something."""
    delay = seconds(values["RETRY_DELAY"], least=0)
    return [delay, 3 * delay]


def etl_python(values: dict[str, Value]) -> str:
    """Return the interpreter of the steps, or nothing; a relative path in `.env` starts from the root."""
    text = values["ETL_PYTHON"].text
    return str(ROOT / text) if "/" in text and values["ETL_PYTHON"].origin != ENVIRONMENT else text


@cache
def state_dir() -> Path:
    """Return the folder of `logs/` and `results/`; a relative path starts from the root.

    Raises SettingError in a folder that Airflow removes, unless STATE_DIR is set.
    """
    value = read_values()["STATE_DIR"]
    text = os.path.expanduser(value.text)  # noqa: PTH111 - Path's raises RuntimeError for an unknown user
    if text.startswith("~"):
        raise value.wrong("a folder, and ~ only for a home folder that the system knows")
    folder = ROOT / text
    bundles = os.environ.get("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH")
    place = os.path.realpath(folder)
    if BUNDLE.search(f"{place}/") or (bundles and Path(place).is_relative_to(os.path.realpath(bundles))):
        raise value.wrong(
            f"a full path outside {ROOT}, which Airflow removes", repr(value.text) if value.text else "none"
        )
    return folder


def runs_url() -> str:
    """Return where runs are between their steps, for workers without a shared disk; if empty, on this disk.

    Raises SettingError for a place that cannot reliably refuse to replace an object, and for settings that exclude
    RUNS_URL.
    """
    values = read_values()
    value = values["RUNS_URL"]
    if not value.text:
        return ""
    url = check_storage_url(value.text, f"{value.name} (set by {value.origin})")
    if not cloud_of(url) and not url.startswith("file:"):
        raise value.wrong("an address like s3://, gs://, abfs:// or file://", url.partition("://")[0] + "://")
    if not values["STORAGE_URL"].text:
        raise value.wrong("STORAGE_URL to be set too, for finished runs", "none")
    if values["DASK_SCHEDULER"].text:
        raise value.wrong("DASK_SCHEDULER to be empty, because its workers need a shared disk", "both set")
    return url


def pipeline_run_id() -> str | None:
    """Return the orchestrator's name for this run, if any: a repeated load step under it continues the same run."""
    return os.environ.get("PIPELINE_RUN_ID") or None


def _find(name: str, in_file: dict[str, str]) -> Value:
    written = [
        Value(name, text.strip(), origin)
        for text, origin in ((os.environ.get(name), ENVIRONMENT), (in_file.get(name), str(envfile.ENV_FILE)))
        if text is not None
    ]
    # An empty variable must not hide a line of .env: docker compose passes variables that nobody has set as empty.
    filled = [value for value in written if value.text]
    return [*filled, *written, Value(name, DEFAULTS[name], "the default")][0]


def seconds(value: Value, least: float, most: float = DAY) -> float:
    """Return a setting that is a time. Raises SettingError for anything else."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value.text) or not least <= float(value.text) <= most:
        raise value.wrong(f"seconds from {least} to {most}")
    return float(value.text)


def _whole_number(value: Value, least: int, most: int = 999_999_999) -> int:
    if not re.fullmatch("[0-9]{1,9}", value.text) or not least <= int(value.text) <= most:
        raise value.wrong(f"a whole number from {least} to {most}")
    return int(value.text)


def _is_on(value: Value) -> bool:
    if value.text not in {"on", "off"}:
        raise value.wrong("on or off")
    return value.text == "on"


def _share(value: Value) -> Decimal | None:
    if value.text and not (re.fullmatch(r"0?\.[0-9]{1,30}", value.text) and 0 < Decimal(value.text) < 1):
        raise value.wrong("a number between 0 and 1, such as 0.98, or nothing")
    return Decimal(value.text) if value.text else None


def _scheduler(value: Value) -> str:
    if value.text and not re.fullmatch(r"[a-z]+://[^\s/@]+:[0-9]{1,5}", value.text):
        raise value.wrong("an address like tcp://host:8786, without credentials, or nothing", "something else")
    return value.text
