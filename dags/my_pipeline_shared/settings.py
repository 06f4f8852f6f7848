"""The settings of the DAGs, checked when Airflow parses them; the steps read theirs themselves."""

import re
import sys

from steplib import envfile, settings

ROOT = envfile.ROOT
VALUES = settings.read_values()
NAMED_SCHEDULES = "once|continuous|hourly|daily|weekly|monthly|quarterly|yearly"

ETL_PYTHON = settings.etl_python(VALUES) or sys.executable
NOTIFY_URL = VALUES["NOTIFY_URL"].text
RETRY_PAUSES = settings.retry_pauses(VALUES)
STEP_TIMEOUT = settings.seconds(VALUES["STEP_TIMEOUT"], least=1, most=30 * settings.DAY)


def _storage_conn() -> str:
    value = VALUES["STORAGE_CONN"]
    if not re.fullmatch("[A-Za-z0-9_.-]*", value.text):
        # It may be the connection itself, as a URI or as JSON, with its password.
        found = "something else" if re.search('[:@"]', value.text) else None
        raise value.wrong("the name of an Airflow connection", found)
    return value.text


STORAGE_CONN = _storage_conn()


def schedule() -> str | None:
    """Return SCHEDULE. Raises SettingError for anything but five fields of cron or a name for them."""
    value = VALUES["SCHEDULE"]
    if value.text and not re.fullmatch(rf"@({NAMED_SCHEDULES})|\S+( +\S+){{4}}", value.text):
        raise value.wrong('five cron fields ("0 5 * * 1"), or @daily and the like')
    return value.text or None
