"""Run `airflow standalone` on this project until SIGINT, SIGTERM or SIGHUP; called by run_airflow.sh."""

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
from typing import TYPE_CHECKING, NoReturn

# What is heavy is imported where it is used, so that Ctrl-C finds its handler from the start.
if TYPE_CHECKING:
    from collections.abc import Callable

    import psutil

HOME = Path(__file__).resolve().parents[1] / ".airflow"
REPORT = HOME / "standalone.log"
BIN = Path(sys.executable).parent
ENVIRONMENT = HOME / "environment"
PASSWORDS = HOME / "simple_auth_manager_passwords.json.generated"
# In the environment of all that is started here; what has it and outlives Airflow is ended.
MARK = "MY_PIPELINE_STANDALONE"
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
    """Run Airflow until a signal comes, and end all of it."""
    on_signals(_raise_stop)
    try:
        # Of a run_airflow.sh that was killed.
        end_processes()
        run()
    except Stop:
        say("stopping Airflow")
    finally:
        on_signals(signal.SIG_IGN)
        end_processes()


def run() -> None:
    """Start Airflow, say where it is, wait."""
    settings = airflow_settings()
    write_environment(settings)
    say(f"starting Airflow, half a minute or so; what it says is in {REPORT}")
    airflow = start(settings)
    address = settings["AIRFLOW__API__BASE_URL"]
    if shows_dag(airflow, address):
        say("Airflow is ready; Ctrl-C stops it")
        print(f"Address:  {address}/dags/my_pipeline\nLogin:    admin, password {password()}", flush=True)
        airflow.wait()
    found = "that it ended" if airflow.poll() is not None else f"that it did not within {SECONDS_TO_START} s"
    say(f"expected Airflow to show the DAG and go on, found {found}; {REPORT} says why")
    raise SystemExit(os.EX_SOFTWARE)


def start(settings: dict[str, str]) -> "subprocess.Popen[bytes]":
    """Start `airflow standalone`."""
    with REPORT.open("w") as report:
        return subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            # It starts its parts as `airflow`.
            env=os.environ | settings | {MARK: str(HOME), "PATH": f"{BIN}:{os.environ['PATH']}"},
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
        # Said here too, since airflow.cfg keeps where the project was when it was written.
        "AIRFLOW__CORE__DAGS_FOLDER": str(HOME / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(HOME / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(HOME / "logs" / "dag_processor"),
        # Its processes call each other there; a proxy of the network must not come between.
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{ports['AIRFLOW__API__PORT']}",
        "NO_PROXY": direct,
        "no_proxy": direct,
        **ports,
        **KNOBS,
    }


def write_environment(settings: dict[str, str]) -> None:
    """Write a file that gives another terminal the same settings, and `airflow` on its PATH."""
    others = r"""for name in $(env | sed -n 's/^\(AIRFLOW_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$name"; done"""
    ours = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
    path = f'export PATH={shlex.quote(str(BIN))}:"$PATH"'
    ENVIRONMENT.write_text("\n".join([others, *ours, path, ""]), encoding="utf-8")


def free_port(preferred: int) -> int:
    """Return the preferred port, or another if that is taken."""
    for port in (preferred, 0):
        with socket.socket() as server, suppress(OSError):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("", port))
            return int(server.getsockname()[1])
    raise OSError("expected a free port, found none")


def shows_dag(airflow: "subprocess.Popen[bytes]", address: str) -> bool:
    """Wait until Airflow shows the DAG; tell whether it came to that before it ended or the time was up."""
    import requests

    session = requests.Session()
    session.trust_env = False
    deadline = time.monotonic() + SECONDS_TO_START
    while airflow.poll() is None and time.monotonic() < deadline:
        with suppress(requests.RequestException, OSError, KeyError, ValueError):
            login = {"username": "admin", "password": password()}
            token = session.post(f"{address}/auth/token", json=login, timeout=5).json()["access_token"]
            headers = {"Authorization": f"Bearer {token}"}
            if session.get(f"{address}/api/v2/dags/my_pipeline", headers=headers, timeout=5).ok:
                return True
        time.sleep(0.5)
    return False


def password() -> str:
    """Return the password that Airflow made for the user admin."""
    return str(json.loads(PASSWORDS.read_bytes())["admin"])


def end_processes() -> None:
    """End what was started here: by SIGINT to its head, which is how Airflow takes its parts down, then by force."""
    import psutil

    for signum, patience in ((signal.SIGINT, SECONDS_TO_STOP), (signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        found = started_processes()
        pids = {process.pid for process in found}
        for process in found:
            with suppress(psutil.NoSuchProcess):
                if signum != signal.SIGINT or process.ppid() not in pids:
                    process.send_signal(signum)
        psutil.wait_procs(found, timeout=patience)


def started_processes() -> "list[psutil.Process]":
    """Return the processes that were started here, by whomever and however deep."""
    import psutil

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
    """Tell the person at the terminal, who may have closed it."""
    with suppress(OSError):
        print(f"run_airflow.sh: {text}", file=sys.stderr)


def on_signals(handler: "Callable[[int, FrameType | None], NoReturn] | signal.Handlers") -> None:
    """Let the signals that stop do this."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, handler)


def _raise_stop(_signum: int, _frame: FrameType | None) -> NoReturn:
    # Once is enough: a second signal would strike the farewell.
    on_signals(signal.SIG_IGN)
    raise Stop


if __name__ == "__main__":
    main()
