# Sourced by the scripts in the project root. make_environment FOLDER LOCK… creates or updates the virtual environment
# FOLDER with the packages that the locks pin, and sets PYTHON to its interpreter.
# shellcheck shell=sh

# The exit codes that shell scripts use; README.md lists all.
# shellcheck disable=SC2034 # also used by the scripts that source this file
EX_USAGE=64 EX_OSERR=71 EX_IOERR=74 EX_TEMPFAIL=75 EX_CONFIG=78

fail() { # CODE MESSAGE
    printf '%s: %s\n' "$(basename "$0")" "$2" >&2
    exit "$1"
}

is_recent() { # PYTHON
    [ "$("$1" -c 'import sys; print(sys.version_info >= (3, 11))' 2>/dev/null)" = True ]
}

find_python() {
    for name in python3 python3.13 python3.12 python3.11; do
        if is_recent "$name"; then
            command -v "$name"
            return
        fi
    done
    fail $EX_CONFIG "expected Python 3.11 or newer as python3, found $(command -v python3 >/dev/null && python3 --version 2>&1 || echo none); install one, or name it in ETL_PYTHON"
}

install_pins() { # LOCK…
    for lock; do
        set -- "$@" -r "$lock"
        shift
    done
    if command -v uv >/dev/null; then
        # Trust the system's certificates: many hospital networks have their own certificate authority.
        UV_NATIVE_TLS=1 uv pip install --quiet --compile-bytecode --python "$VENV" "$@"
    else
        # pip is missing if uv created the environment, or if its creation was interrupted.
        "$PYTHON" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m ensurepip --default-pip
        "$PYTHON" -m pip install --quiet --disable-pip-version-check --retries 2 "$@"
    fi
}

is_installed() { # LOCK…
    is_in_place || return
    for lock; do
        cmp -s "$lock" "$VENV/installed-$(basename "$lock")" || return
    done
}

# A virtual environment works only where it was created: its commands contain the interpreter's path.
is_in_place() {
    [ -x "$PYTHON" ] && [ "$(cat "$VENV/made-in" 2>/dev/null)" = "$VENV" ]
}

make_environment() { # FOLDER LOCK…
    VENV=$1
    PYTHON=$VENV/bin/python
    shift
    names=
    for lock; do
        [ -f "$lock" ] || fail $EX_CONFIG "the lock file $lock is missing; restore it"
        names="$names $(basename "$lock")"
    done
    if is_installed "$@"; then
        return
    fi
    [ -w "$(dirname "$VENV")" ] || fail $EX_CONFIG "$VENV cannot be created, because its folder is not writable; name a Python in ETL_PYTHON"
    base=$(find_python) || exit
    # This shell's descriptor holds the lock: a run started at the same moment waits, then uses the same environment.
    exec 9>"$VENV.lock"
    "$base" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
    if ! is_installed "$@"; then
        echo "$(basename "$0"): installing$names into ${VENV#"$ROOT"/}; the first time takes a minute or more" >&2
        build_environment "$@"
        for lock; do
            cp "$lock" "$VENV/installed-$(basename "$lock")"
        done
    fi
    exec 9>&-
}

build_environment() { # LOCK…
    report=$VENV.log
    if ! is_in_place || ! is_recent "$PYTHON"; then
        rm -rf "$VENV"
        if command -v uv >/dev/null; then
            uv venv --quiet --python "$base" "$VENV" >"$report" 2>&1 ||
                fail $EX_OSERR "uv could not create $VENV; $report says why"
        else
            # venv refuses it, because PATH separates folders by colons.
            case $VENV in *:*) fail $EX_CONFIG "$VENV: expected a path without a colon, found one; move the project, or install uv" ;; esac
            "$base" -c 'import ensurepip, venv' 2>/dev/null ||
                fail $EX_CONFIG "$base has no venv module; install it (Debian, Ubuntu: apt install python3-venv), or install uv"
            "$base" -m venv "$VENV" >"$report" 2>&1 ||
                fail $EX_OSERR "$base could not create $VENV; $report says why"
        fi
    fi
    echo "$VENV" >"$VENV/made-in"
    # An interrupted installation must not look complete.
    rm -f "$VENV"/installed-*
    install_pins "$@" >"$report" 2>&1 ||
        fail $EX_TEMPFAIL "the packages could not be installed: no package index was reached, or it lacks one of them; $report says which"
    rm -f "$report"
}
