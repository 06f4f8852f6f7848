"""What the environment and `.env` may say, typed and checked. Every setting is read here and nowhere else."""

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from steplib.errors import SettingError

ROOT = Path(__file__).resolve().parents[2]
ENV_FILE = ROOT / ".env"

DEFAULTS = {
    "DATA_URL": "data/wdbc.csv",
    "DATA_TIMEOUT": "30",
    "KEEP_RUNS": "10",
    "RETRY_DELAY": "5",
    "STORAGE_URL": "",
    "BATCH_BYTES": "4194304",
    "WORKERS": "0",
    "DASK_SCHEDULER": "",
}
LONGEST_WAIT = 86_400


class Value(NamedTuple):
    """A setting as it was written, and where."""

    name: str
    text: str
    origin: str


@dataclass(frozen=True)
class Settings:
    """The settings of a run; times in seconds; `workers` 0 for one on each core."""

    data_url: str
    data_base: Path
    data_timeout: float
    keep_runs: int
    retry_delay: float
    storage_url: str
    batch_bytes: int
    workers: int
    dask_scheduler: str


def read_settings() -> Settings:
    """Read every setting: the environment first, then `.env` in the project's root, then the default.

    A relative path in DATA_URL starts from the working directory if the environment names it, else from the root.
    Raises SettingError for a value that cannot be used.
    """
    in_file = _read_env_file()
    values = {name: _find(name, in_file) for name in DEFAULTS}
    data_url, storage = values["DATA_URL"], values["STORAGE_URL"]
    if not data_url.text:
        raise _wrong(data_url, "an http(s) or file URL or a path (leave the line out for the embedded data)", "nothing")
    return Settings(
        data_url=data_url.text,
        data_base=Path.cwd() if data_url.origin == "the environment" else ROOT,
        data_timeout=_seconds(values["DATA_TIMEOUT"], least=0.001),
        keep_runs=_whole_number(values["KEEP_RUNS"], least=1),
        retry_delay=_seconds(values["RETRY_DELAY"], least=0),
        storage_url=storage.text and check_storage_url(storage.text, f"{storage.name} (set by {storage.origin})"),
        batch_bytes=_whole_number(values["BATCH_BYTES"], least=1),
        workers=_whole_number(values["WORKERS"], least=0),
        dask_scheduler=_scheduler(values["DASK_SCHEDULER"]),
    )


def pipeline_run_id() -> str | None:
    """Return the name that an orchestrator gave this run, if any: its repeated load step goes on in the same run."""
    return os.environ.get("PIPELINE_RUN_ID") or None


def export_env_file() -> None:
    """Put what `.env` says into the environment, where the clouds' libraries look for their credentials."""
    for name, text in _read_env_file().items():
        if text is not None:
            os.environ.setdefault(name, text)


def _find(name: str, in_file: dict[str, str | None]) -> Value:
    if name in os.environ:
        return Value(name, os.environ[name].strip(), "the environment")
    if name in in_file:
        return Value(name, (in_file[name] or "").strip(), str(ENV_FILE))
    return Value(name, DEFAULTS[name], "the default")


def _read_env_file() -> dict[str, str | None]:
    """Read `.env`; unlike python-dotenv alone, refuse a line that cannot be read rather than pass over it."""
    if not ENV_FILE.exists():
        return {}
    # Only who has the file pays for the import.
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        text = ENV_FILE.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{ENV_FILE}: expected a readable UTF-8 text file, found {type(error).__name__}; correct or remove it"
        raise SettingError(msg) from error
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            msg = f"{ENV_FILE}, line {binding.original.line}: expected NAME=value; correct or remove the line"
            raise SettingError(msg)
    return dotenv_values(stream=io.StringIO(text))


def check_storage_url(text: str, name: str) -> str:
    """Return the address of a storage. Raises SettingError for one with credentials, without showing it."""
    scheme, separator, rest = text.partition("://")
    user, at, _ = rest.partition("@")
    # Azure writes container@account.
    account = not at or ("abfs" in scheme and not re.search("[:/]", user))
    if not separator or not re.fullmatch(r"[^?#@]*@?[^?#@]+", rest) or not account or not scheme.isalnum():
        msg = f"{name}: expected an URL like s3://bucket/prefix, without credentials, ? and #, found something else"
        raise SettingError(f"{msg}; credentials belong into the environment or .env")
    return text


def _whole_number(value: Value, least: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", value.text) or int(value.text) < least:
        raise _wrong(value, f"a whole number from {least} to 999999999", repr(value.text[:40]))
    return int(value.text)


def _seconds(value: Value, least: float) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value.text) or not least <= float(value.text) <= LONGEST_WAIT:
        raise _wrong(value, f"seconds, a number from {least} to {LONGEST_WAIT}", repr(value.text[:40]))
    return float(value.text)


def _scheduler(value: Value) -> str:
    if value.text and not re.fullmatch(r"[a-z]+://[^\s/@]+:[0-9]{1,5}", value.text):
        raise _wrong(value, "an address like tcp://host:8786, without credentials, or nothing", "something else")
    return value.text


def _wrong(value: Value, expected: str, found: str) -> SettingError:
    return SettingError(f"{value.name} (set by {value.origin}): expected {expected}, found {found}")
