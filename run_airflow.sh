#!/bin/sh
# Run the project in an Airflow of its own, until Ctrl-C: http://127.0.0.1:8080/dags/my_pipeline. All that it needs and
# leaves is in .airflow; on first use makes .airflow/venv from requirements.txt.
set -eu

ROOT=$(dirname -- "$(readlink -f -- "$0")")
. "$ROOT/etl/environment.sh"

[ $# -eq 0 ] || fail $EX_USAGE "expected no arguments, found $#; settings come from the environment or .env"

mkdir -p "$ROOT/.airflow/dags"
chmod 700 "$ROOT/.airflow" # it holds the password
# Packages come and go with .airflow; nothing is kept in the home folder.
export PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1
make_environment "$ROOT/requirements.txt" "$ROOT/.airflow/venv"
ln -sfn ../../dags "$ROOT/.airflow/dags/my_pipeline"
exec "$PYTHON" "$ROOT/etl/airflow_standalone.py"
