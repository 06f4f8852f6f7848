"""What the environment and `.env` may say to the DAGs; what they say to the steps is for the steps to read."""

import os
import re
import sys
from pathlib import Path

from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parents[1]
# Either may be a link to a larger disk; the steps name the log as it is called there.
LOGS = (ROOT / "logs").resolve()
RUNS = (ROOT / "results").resolve() / "runs"
ENV_FILE = ROOT / ".env"
DEFAULTS = {
    "DATA_TIMEOUT": "30",
    "DATA_URL": "data/wdbc.csv",
    "ETL_PYTHON": sys.executable,
    "NOTIFY_URL": "",
    "OWNER_LINK": "",
    "RETRY_DELAY": "5",
    "SCHEDULE": "",
    "STEP_TIMEOUT": "21600",
}
IN_FILE = dotenv_values(ENV_FILE, encoding="utf-8-sig")
DAY = 86_400
PRESETS = "@(once|continuous|hourly|daily|weekly|monthly|quarterly|yearly)"

if not (ROOT / "etl").is_dir():
    raise FileNotFoundError(f"expected the project around dags/, found no {ROOT / 'etl'}; link or copy all of it here")


def setting(name: str) -> str:
    """Return a setting: the environment's, else that of `.env`, else the default; for an empty one as well."""
    text = os.environ[name] if name in os.environ else IN_FILE.get(name)
    return (text or "").strip() or DEFAULTS[name]


def seconds(name: str, least: float, most: float = DAY) -> float:
    """Return a setting that is a time. Raises ValueError for another, which the UI shows as an import error."""
    text = setting(name)
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not least <= float(text) <= most:
        raise wrong(name, f"seconds, a number from {least} to {most}")
    return float(text)


def schedule() -> str | None:
    """Return SCHEDULE. Raises ValueError for what is neither five fields of cron nor a name for them."""
    text = setting("SCHEDULE")
    if text and not re.fullmatch(
        r"@(once|continuous|hourly|daily|weekly|monthly|quarterly|yearly)|\S+( +\S+){4}", text
    ):
        raise wrong("SCHEDULE", 'five fields of cron ("0 5 * * 1"), @daily or the like')
    return text or None


def owner_links() -> dict[str, str]:
    """Return OWNER_LINK as Airflow wants it. Raises ValueError for what is no link."""
    link = setting("OWNER_LINK")
    if link and not re.match("https?://[^/]|mailto:.", link):
        raise wrong("OWNER_LINK", "https://… or mailto:…")
    return {"my_pipeline": link} if link else {}


def wrong(name: str, expected: str) -> ValueError:
    """Return the error of a setting that cannot be used."""
    return ValueError(
        f"{name}: expected {expected}, found {setting(name)[:40]!r}; correct {ENV_FILE} or the environment"
    )
