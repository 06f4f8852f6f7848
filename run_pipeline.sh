#!/bin/sh
# Run the whole pipeline: load, transform, train, evaluate. README.md says what comes out and what the settings are.
# On first use, it creates .venv from requirements-etl.txt, or from the locks of the clouds that DATA_URL, STORAGE_URL and
# RUNS_URL name; with ETL_PYTHON set, uses that interpreter and installs nothing.
set -eu

ROOT=$(dirname -- "$(readlink -f -- "$0")")
. "$ROOT/bin/environment.sh"

[ $# -eq 0 ] || fail $EX_USAGE "expected no arguments, found $#; settings come from the environment or .env"

ask() { # QUESTION [ARGUMENT]
    "$PYTHON" "$ROOT/bin/ask.py" "$@"
}

# Set PYTHON to one that can read the settings; reading .env takes python-dotenv, which the steps' lock has.
find_asker() {
    PYTHON=$ROOT/.venv/bin/python
    can_read_env "$PYTHON" && return
    PYTHON=$(find_python) || exit
    [ ! -f "$ROOT/.env" ] || can_read_env "$PYTHON" || make_environment "$ROOT/.venv" "$ROOT/requirements-etl.txt"
}

can_read_env() { # PYTHON
    "$1" -c 'import dotenv' 2>/dev/null
}

choose_python() {
    # Blanks around a value do not count, as in the other settings.
    ETL_PYTHON=$(printf '%s' "${ETL_PYTHON-}" | sed 's/^[[:space:]]*//; s/[[:space:]]*$//')
    if [ -z "$ETL_PYTHON" ]; then
        find_asker
        answer=$(ask settings) || exit
        locks=${answer##*"
"}
        ETL_PYTHON=${answer%"
"*}
    fi
    if [ -z "$ETL_PYTHON" ]; then
        # The names of locks have no blanks; the root may.
        set --
        for lock in $locks; do
            set -- "$@" "$ROOT/$lock"
        done
        make_environment "$ROOT/.venv" "$@"
    else
        PYTHON=$ETL_PYTHON
        is_recent "$PYTHON" || fail $EX_CONFIG "ETL_PYTHON: expected Python 3.11 or newer, found none at $PYTHON; correct it, or leave it empty"
    fi
}

# Run a step, and try it again after a pause if the source or the storage could not be reached.
run_step() { # STEP [LOG]
    try=1
    while :; do
        code=0
        LOG_FILE=$("$PYTHON" "$ROOT/etl/$1.py" ${2+"$2"}) || code=$?
        [ $code -eq $EX_TEMPFAIL ] || return $code
        pause=$(ask pause $try) || return
        [ -n "$pause" ] || return $code
        echo "$(basename "$0"): retrying $1 in $pause s" >&2
        sleep "$pause"
        try=$((try + 1))
    done
}

# If it were set, Python would not find what the scripts share.
unset PYTHONSAFEPATH
choose_python
# A name for the run, so that a repeated load step continues the same log and folder.
PIPELINE_RUN_ID=${PIPELINE_RUN_ID:-$(uname -n)-$$-$(date +%s)}
export PIPELINE_RUN_ID
run_step data_loader || exit
for step in transform train evaluate; do
    run_step $step "$LOG_FILE" || exit
done
ask results "$LOG_FILE" || exit $EX_IOERR
