# Sourced by the scripts in the project's root: make_environment LOCK FOLDER makes or renews FOLDER, a virtual
# environment with what LOCK pins, and sets PYTHON to its interpreter.
# shellcheck shell=sh

# The exit codes of README.md that a shell script can meet.
# shellcheck disable=SC2034 # the scripts that source this use them too
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

install_pins() { # LOCK
    if command -v uv >/dev/null; then
        # The system's certificates: many a hospital's network has its own.
        UV_NATIVE_TLS=1 uv pip install --quiet --compile-bytecode --python "$VENV" -r "$1"
    else
        # Missing if making the environment was cut short, or if uv made it.
        "$PYTHON" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m ensurepip --default-pip
        "$PYTHON" -m pip install --quiet --disable-pip-version-check --retries 2 -r "$1"
    fi
}

is_installed() { # LOCK
    is_in_place && cmp -s "$1" "$VENV/installed-$(basename "$1")"
}

# Its commands name the interpreter by its path, so that it works only where it was made.
is_in_place() {
    [ -x "$PYTHON" ] && [ "$(cat "$VENV/made-in" 2>/dev/null)" = "$VENV" ]
}

make_environment() { # LOCK FOLDER
    VENV=$2
    PYTHON=$VENV/bin/python
    [ -f "$1" ] || fail $EX_CONFIG "expected the lock $1, found no such file; restore it"
    if is_installed "$1"; then
        return
    fi
    base=$(find_python) || exit
    # The lock is on this shell's descriptor: a run started at the same moment waits for the one environment.
    exec 9>"$VENV.lock"
    "$base" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
    if ! is_installed "$1"; then
        echo "$(basename "$0"): installing $(basename "$1") into ${VENV#"$ROOT"/}, a minute or more the first time" >&2
        build_environment "$1"
        cp "$1" "$VENV/installed-$(basename "$1")"
    fi
    exec 9>&-
}

build_environment() { # LOCK
    report=$VENV.log
    if ! is_in_place || ! is_recent "$PYTHON"; then
        rm -rf "$VENV"
        if command -v uv >/dev/null; then
            uv venv --quiet --python "$base" "$VENV" >"$report" 2>&1 ||
                fail $EX_OSERR "uv could not make $VENV; $report says why"
        else
            "$base" -c 'import ensurepip, venv' 2>/dev/null ||
                fail $EX_CONFIG "$base has no venv module; install it (Debian, Ubuntu: apt install python3-venv), or install uv"
            "$base" -m venv "$VENV" >"$report" 2>&1 ||
                fail $EX_OSERR "$base could not make $VENV; $report says why"
        fi
    fi
    echo "$VENV" >"$VENV/made-in"
    # Until all is installed, no lock's content is.
    rm -f "$VENV"/installed-*
    install_pins "$1" >"$report" 2>&1 ||
        fail $EX_TEMPFAIL "the packages could not be installed: no package index reached, or it lacks one; $report says which"
    rm -f "$report"
}
