#!/bin/sh
# Run an Airflow for this project alone, until Ctrl-C: http://127.0.0.1:8080/dags/my_pipeline. Everything that it needs
# and leaves is in .airflow; on first use, it creates .airflow/venv from requirements.txt.
set -eu

ROOT=$(dirname -- "$(readlink -f -- "$0")")
. "$ROOT/bin/environment.sh"

[ $# -eq 0 ] || fail $EX_USAGE "expected no arguments, found $#; settings come from the environment or .env"

mkdir -p "$ROOT/.airflow/dags"
chmod 700 "$ROOT/.airflow" # it holds the password
# Locked as long as this process runs. Until .airflow/venv exists, PYTHON is that of the system.
exec 8>"$ROOT/.airflow/lock"
PYTHON=$(find_python) || exit
"$PYTHON" -c 'import fcntl; fcntl.flock(8, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null ||
    fail $EX_TEMPFAIL "an Airflow is already running in $ROOT/.airflow; stop that first"
# Keep nothing in the home folder.
export PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1
make_environment "$ROOT/.airflow/venv" "$ROOT/requirements.txt"
ln -sfn ../../dags "$ROOT/.airflow/dags/my_pipeline"
# Drop the settings of any other Airflow or Python: they name its database and packages.
for name in $(env | sed -n -e 's/^\(AIRFLOW_[A-Za-z0-9_]*\)=.*/\1/p' -e 's/^\(PYTHON[A-Z][A-Z]*\)=.*/\1/p'); do
    unset "$name"
done
exec "$PYTHON" "$ROOT/bin/airflow_standalone.py" </dev/null
