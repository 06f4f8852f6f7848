#!/bin/sh
# Run the whole pipeline: load, transform, train, evaluate. README.md says what comes out and what the settings are.
# On first use makes .venv from requirements-etl.txt (requirements-s3.txt if STORAGE_URL is on S3); with ETL_PYTHON set,
# uses that interpreter and installs nothing.
set -eu

ROOT=$(dirname -- "$(readlink -f -- "$0")")
. "$ROOT/bin/environment.sh"

[ $# -eq 0 ] || fail $EX_USAGE "expected no arguments, found $#; settings come from the environment or .env"

env_file_value() { # NAME; plain or in quotes, without # and $ in the value; the last line counts
    tr -d '\r' <"$ROOT/.env" |
        sed -n "s/^[^[:alnum:]_#]*\(export[[:space:]]\)\{0,1\}[[:space:]]*$1[[:space:]]*=[[:space:]]*//p" |
        sed -n "s/^[\"']\{0,1\}\([^\"'#]*\).*/\1/; s/[[:space:]]*$//; \$p"
}

needed() {
    if [ -z "${STORAGE_URL-}" ] && [ -f "$ROOT/.env" ]; then
        STORAGE_URL=$(env_file_value STORAGE_URL)
    fi
    case ${STORAGE_URL-} in
        s3://* | s3a://*) echo s3 ;;
        *) echo etl ;;
    esac
}

choose_python() {
    if [ -z "${ETL_PYTHON-}" ] && [ -f "$ROOT/.env" ]; then
        ETL_PYTHON=$(env_file_value ETL_PYTHON)
        case $ETL_PYTHON in
            /* | '') ;;
            */*) ETL_PYTHON=$ROOT/$ETL_PYTHON ;;
        esac
    fi
    if [ -z "${ETL_PYTHON-}" ]; then
        make_environment "$ROOT/requirements-$(needed).txt" "$ROOT/.venv"
    else
        PYTHON=$ETL_PYTHON
        is_recent "$PYTHON" || fail $EX_CONFIG "ETL_PYTHON: expected Python 3.11 or newer, found none at $PYTHON; correct or empty it"
    fi
}

# Try a step again, twice and after growing pauses, if the source or the storage could not be reached.
run_step() { # STEP [LOG]
    for tries_left in 2 1 0; do
        code=0
        LOG_FILE=$("$PYTHON" "$ROOT/etl/$1.py" ${2+"$2"}) || code=$?
        if [ $code -ne $EX_TEMPFAIL ] || [ $tries_left -eq 0 ]; then
            return $code
        fi
        pause=$(PYTHONPATH="$ROOT/etl" "$PYTHON" -c "from steplib.settings import read_settings
print(f'{read_settings().retry_delay * 3 ** (2 - $tries_left):g}')") || return
        echo "$(basename "$0"): $1 is tried again in $pause s" >&2
        sleep "$pause"
    done
}

show_results() {
    stamp=${LOG_FILE##*/log_}
    results=$ROOT/results/runs/${stamp%.log}
    echo "Results: $results"
    echo "Log:     $LOG_FILE"
    sed -n '2,5s/[",]//gp' "$results/evaluation.json"
}

# With it set, Python would not find what the scripts share.
unset PYTHONSAFEPATH
choose_python
# One name for the run, so that a repeated load step goes on in the same log and folder.
PIPELINE_RUN_ID=${PIPELINE_RUN_ID:-$(uname -n)-$$-$(date +%s)}
export PIPELINE_RUN_ID
run_step data_loader || exit
for step in transform train evaluate; do
    run_step $step "$LOG_FILE" || exit
done
show_results || exit $EX_IOERR
