#!/bin/sh
# Check the project as CI does: ruff, mypy, shellcheck, pytest on all cores. With --quick as the first argument, leave out
# the tests that need a server or Airflow and the slow ones. All other arguments go to pytest.
# On first use, it creates .venv from requirements-dev.txt.
set -eu

ROOT=$(dirname -- "$(readlink -f -- "$0")")
. "$ROOT/bin/environment.sh"

# Whole files go to one core, because their tests share a server.
distribution=loadfile
if [ "${1-}" = --quick ]; then
    shift
    set -- -m "not (airflow or server or slow)" "$@"
    distribution=worksteal
fi
make_environment "$ROOT/.venv" "$ROOT/requirements-dev.txt"
cd "$ROOT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
.venv/bin/shellcheck -x ./*.sh bin/*.sh .ci/run
exec "$PYTHON" -m pytest -n logical --dist $distribution --no-loadscope-reorder "$@"
