"""Run `airflow standalone` on this project until SIGINT, SIGTERM or SIGHUP; called by run_airflow.sh."""

import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psutil
import requests

HOME = Path(__file__).resolve().parents[1] / ".airflow"
REPORT = HOME / "standalone.log"
BIN = Path(sys.executable).parent
ENVIRONMENT = HOME / "environment"
PASSWORDS = HOME / "simple_auth_manager_passwords.json.generated"
# In the environment of all that is started here; what has it and outlives Airflow is ended.
MARK = "MY_PIPELINE_STANDALONE"
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SECONDS_TO_START = 300
SECONDS_TO_STOP = 30
KNOBS = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # No one outside this machine.
    "AIRFLOW__API__HOST": "127.0.0.1",
    # A task starts sooner, and 28 idle processes are not there.
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
}
# The ports that Airflow takes if they are free.
PORTS = {
    "AIRFLOW__API__PORT": 8080,
    "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": 8793,
    "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": 8794,
}


class Stop(BaseException):
    """A signal asked to end."""


def main() -> None:
    """Start Airflow, say where it is, wait, stop it."""
    for signum in STOPPING:
        signal.signal(signum, _raise_stop)
    lock = (HOME / "standalone.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fail(os.EX_TEMPFAIL, f"expected to be alone on {HOME}, found it running; stop that first")
    try:
        # Of a run_airflow.sh that was killed.
        end_processes()
        settings = airflow_settings()
        write_environment(settings)
        say(f"starting Airflow, half a minute or so; what it says is in {REPORT}")
        airflow = start(settings)
        address = settings["AIRFLOW__API__BASE_URL"]
        wait_until_ready(airflow, address)
        say("Airflow is ready; Ctrl-C stops it")
        print(f"Address:  {address}/dags/my_pipeline\nLogin:    admin, password {password()}", flush=True)
        airflow.wait()
        fail(os.EX_SOFTWARE, f"expected Airflow to go on, found that it ended; {REPORT} says why")
    except Stop:
        say("stopping Airflow")
    finally:
        for signum in STOPPING:
            signal.signal(signum, signal.SIG_IGN)
        end_processes()


def start(settings: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start `airflow standalone`."""
    # Settings of another Airflow, its database above all, must not be taken for this one's.
    given = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW__")}
    # It starts its parts as `airflow`.
    given["PATH"] = f"{BIN}:{given['PATH']}"
    with REPORT.open("w") as report:
        return subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            env=given | settings | {MARK: str(HOME)},
            cwd=HOME,
            stdin=subprocess.DEVNULL,
            stdout=report,
            stderr=subprocess.STDOUT,
            # A session of its own: Ctrl-C on the terminal comes to this process alone.
            start_new_session=True,
        )


def airflow_settings() -> dict[str, str]:
    """Return what Airflow's processes, and its command line in another terminal, have to be told."""
    ports = {name: str(free_port(preferred)) for name, preferred in PORTS.items()}
    proxied = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    direct = ",".join(filter(None, [proxied, "127.0.0.1", "localhost"]))
    return {
        "AIRFLOW_HOME": str(HOME),
        # Its processes call each other there; a proxy of the network must not come between.
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{ports['AIRFLOW__API__PORT']}",
        "NO_PROXY": direct,
        "no_proxy": direct,
        **ports,
        **KNOBS,
    }


def write_environment(settings: dict[str, str]) -> None:
    """Write a file that gives another terminal the same settings, and `airflow` on its PATH."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in settings.items()]
    path = f'export PATH={shlex.quote(str(BIN))}:"$PATH"\n'
    ENVIRONMENT.write_text("".join([*lines, path]), encoding="utf-8")


def free_port(preferred: int) -> int:
    """Return the preferred port, or another if that is taken."""
    for port in (preferred, 0):
        with socket.socket() as server, suppress(OSError):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("", port))
            return int(server.getsockname()[1])
    raise OSError("expected a free port, found none")


def wait_until_ready(airflow: "subprocess.Popen[bytes]", address: str) -> None:
    """Wait until Airflow shows the DAG, or ends."""
    session = requests.Session()
    session.trust_env = False
    deadline = time.monotonic() + SECONDS_TO_START
    while airflow.poll() is None:
        with suppress(requests.RequestException, OSError, KeyError, ValueError):
            login = {"username": "admin", "password": password()}
            token = session.post(f"{address}/auth/token", json=login, timeout=5).json()["access_token"]
            headers = {"Authorization": f"Bearer {token}"}
            if session.get(f"{address}/api/v2/dags/my_pipeline", headers=headers, timeout=5).ok:
                return
        if time.monotonic() > deadline:
            fail(os.EX_SOFTWARE, f"expected Airflow to show the DAG within {SECONDS_TO_START} s; {REPORT} says why not")
        time.sleep(0.5)


def password() -> str:
    """Return the password that Airflow made for the user admin."""
    return str(json.loads(PASSWORDS.read_bytes())["admin"])


def end_processes() -> None:
    """End what was started here: by SIGINT to its head, which is how Airflow takes its parts down, then by force."""
    for signum, patience in ((signal.SIGINT, SECONDS_TO_STOP), (signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        found = started_processes()
        for process in found:
            with suppress(psutil.NoSuchProcess):
                if signum != signal.SIGINT or process.parent() not in found:
                    process.send_signal(signum)
        psutil.wait_procs(found, timeout=patience)


def started_processes() -> list[psutil.Process]:
    """Return the processes that were started here, by whomever and however deep."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            marked = process.environ().get(MARK) == str(HOME)
            # What shows a title has overwritten its environment with it.
            titled = process.cwd() == str(HOME) and "".join(process.cmdline()[:1]).startswith("airflow ")
            if (marked or titled) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def say(text: str) -> None:
    """Tell the person at the terminal."""
    print(f"run_airflow.sh: {text}", file=sys.stderr)


def fail(code: int, text: str) -> NoReturn:
    """End with an error."""
    say(text)
    raise SystemExit(code)


def _raise_stop(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise Stop


if __name__ == "__main__":
    main()
