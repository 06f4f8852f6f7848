"""STORAGE_CONN: the credentials in an Airflow connection, as the variables that the clouds' libraries read."""

import json
import re
from typing import Any

from airflow.sdk import Connection, Context
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
from airflow.sdk.log import mask_secret

from my_pipeline_shared.settings import STORAGE_CONN, VALUES

# By the type of a connection: the variable for each field and each name in its extra.
VARIABLES = {
    "aws": {
        "login": "AWS_ACCESS_KEY_ID",
        "password": "AWS_SECRET_ACCESS_KEY",
        "aws_access_key_id": "AWS_ACCESS_KEY_ID",
        "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "aws_session_token": "AWS_SESSION_TOKEN",
        "region_name": "AWS_DEFAULT_REGION",
        "endpoint_url": "AWS_ENDPOINT_URL",
    },
    "wasb": {
        "login": "AZURE_STORAGE_ACCOUNT_NAME",
        "password": "AZURE_STORAGE_ACCOUNT_KEY",
        "account_key": "AZURE_STORAGE_ACCOUNT_KEY",
        "shared_access_key": "AZURE_STORAGE_ACCOUNT_KEY",
        "sas_token": "AZURE_STORAGE_SAS_TOKEN",
        "connection_string": "AZURE_STORAGE_CONNECTION_STRING",
        "an account's URL as host": "AZURE_STORAGE_ACCOUNT_NAME",
    },
    "google_cloud_platform": {"key_path": "GOOGLE_APPLICATION_CREDENTIALS", "project": "GOOGLE_CLOUD_PROJECT"},
}
# With a tenant, the login of Azure is not an account but a service principal.
PRINCIPAL = {
    "tenant_id": "AZURE_STORAGE_TENANT_ID",
    "login": "AZURE_STORAGE_CLIENT_ID",
    "password": "AZURE_STORAGE_CLIENT_SECRET",
}
ACCOUNT_URL = re.compile(r"(?:https://)?(\w+)\.blob\.core\.windows\.net/?")
# What Google's form always has, and what matters to Airflow's own client alone.
IGNORED = {"num_retries", "scope"}
SECRET = re.compile("SECRET|TOKEN|STRING|KEY$")


class WithConnection(dict[str, Any]):
    """The templates of a step's environment, to which the variables of STORAGE_CONN are added."""

    def resolve(self, context: Context) -> dict[str, str]:
        """Return the rendered templates and the credentials; Airflow calls this and renders the result no further."""
        rendered: dict[str, str] = context["task"].render_template(dict(self), context)
        return rendered | read_connection(STORAGE_CONN)


def read_connection(conn_id: str) -> dict[str, str]:
    """Return what a connection holds, as variables, and mask the secrets. Only what it holds is set.

    Raises AirflowFailException, which is not retried, if it does not exist or holds something without a variable.
    """
    try:
        connection = Connection.get(conn_id)
    except AirflowNotFoundException:
        raise _wrong("a connection that exists in Airflow", repr(conn_id)) from None
    kind = connection.conn_type
    if kind not in VARIABLES:
        raise _wrong("a connection of type aws, wasb or google_cloud_platform", repr(kind))
    fields = _fields(connection)
    names = VARIABLES[kind] | (PRINCIPAL if kind == "wasb" and "tenant_id" in fields else {})
    others = sorted(name for name, value in fields.items() if name not in names or not isinstance(value, str))
    if others:
        raise _wrong(f"only {', '.join(names)} in a connection of type {kind}", ", ".join(map(repr, others)))
    found = {names[name]: value for name, value in fields.items()}
    for name, value in found.items():
        if SECRET.search(name):
            # Line by line too, since a log is masked line by line.
            mask_secret([value, *value.splitlines()])
    return found


def _fields(connection: Connection) -> dict[str, Any]:
    """Return what a connection holds, by the names of its fields and those in its extra, except what is empty."""
    try:
        extra = dict(json.loads(connection.extra or "{}"))
    except (TypeError, ValueError):
        raise _wrong("a JSON object in the connection's extra", "something else") from None
    prefix = f"extra__{connection.conn_type}__"
    fields = {name.removeprefix(prefix): value for name, value in extra.items()}
    for name in ("host", "schema", "port", "login", "password"):
        fields[name] = getattr(connection, name) or fields.get(name)
    if url := ACCOUNT_URL.fullmatch(str(fields["host"])):
        fields["an account's URL as host"] = url[1]
        del fields["host"]
    return {name: value for name, value in fields.items() if value and name not in IGNORED}


def _wrong(expected: str, found: str) -> AirflowFailException:
    return AirflowFailException(str(VALUES["STORAGE_CONN"].wrong(expected, found)))
