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
from typing import NoReturn

import psutil

HOME = Path(__file__).resolve().parents[1] / ".airflow"
REPORT = HOME / "standalone.log"
BIN = Path(sys.executable).parent
# Every process of this Airflow inherits this variable. Parent and session would not identify them all: each running
# step has its own session, and can outlive the process that started it.
MARK = "MY_PIPELINE_STANDALONE"
SECONDS_TO_START = 300
SECONDS_TO_STOP = 20
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    """Run Airflow until a signal comes, then stop all of it."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, interrupt)
    try:
        stop_processes()  # left by a run_airflow.sh that was killed
        run()
    except KeyboardInterrupt:
        say("stopping Airflow")
    finally:
        ignore_stop_signals()
        stop_processes()


def run() -> NoReturn:
    """Start Airflow, print its address once it shows the DAG, and wait until it ends."""
    settings = airflow_settings()
    write_environment(settings)
    say(f"starting Airflow, which takes about half a minute; its output goes to {REPORT}")
    airflow = start(settings)
    address = settings["AIRFLOW__API__BASE_URL"]
    if password := wait_for_dag(airflow, address):
        say("Airflow is ready; Ctrl-C stops it")
        print(f"Address:  {address}/dags/my_pipeline\nLogin:    admin, password {password}", flush=True)
        airflow.wait()
    outcome = f"did not show the DAG within {SECONDS_TO_START} s" if airflow.poll() is None else "ended unexpectedly"
    say(f"Airflow {outcome}; {REPORT} says why")
    raise SystemExit(os.EX_SOFTWARE)


def airflow_settings() -> dict[str, str]:
    """Return the settings for Airflow's processes and for its command line in another terminal."""
    port = free_port(8080)
    direct = f"127.0.0.1,localhost,{os.environ.get('NO_PROXY') or os.environ.get('no_proxy', '')}"
    return {
        "AIRFLOW_HOME": str(HOME),
        # airflow.cfg has these paths too, but keeps the old ones when the project is moved.
        "AIRFLOW__CORE__DAGS_FOLDER": str(HOME / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(HOME / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(HOME / "logs" / "dag_processor"),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port(8793)),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port(8794)),
        # Reachable from this machine only; Airflow's processes call each other here, so never through a proxy.
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "NO_PROXY": direct,
        "no_proxy": direct,
        # Tasks start sooner, and 28 idle processes are saved.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


def free_port(preferred: int) -> int:
    """Return the preferred port if it is free, otherwise any free one."""
    with suppress(OSError), socket.create_server(("", preferred)):
        return preferred
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def write_environment(settings: dict[str, str]) -> None:
    """Write a file that gives another terminal the same settings and the `airflow` command."""
    unset = r"""for name in $(env | sed -n 's/^\(AIRFLOW_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$name"; done"""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
    path = f'export PATH={shlex.quote(str(BIN))}:"$PATH"'
    (HOME / "environment").write_text("\n".join([unset, *exports, path, ""]), encoding="utf-8")


def start(settings: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start `airflow standalone`."""
    variables = os.environ | settings | {MARK: str(HOME)}
    variables["PATH"] = f"{BIN}:{os.environ['PATH']}"  # it calls `airflow`
    variables["SPT_NOENV"] = "1"  # setproctitle would overwrite the mark
    command = [sys.executable, "-m", "airflow", "standalone"]
    with REPORT.open("w") as report:
        # In a session that has no terminal: Ctrl-C reaches only this process, which then stops the others.
        return subprocess.Popen(command, env=variables, cwd=HOME, stdout=report, stderr=report, start_new_session=True)


def wait_for_dag(airflow: subprocess.Popen[bytes], address: str) -> str | None:
    """Return the password of the user admin once Airflow shows the DAG, or None if it ends or takes too long."""
    import requests  # slow, and Ctrl-C must find its handler in place

    session = requests.Session()
    session.trust_env = False
    deadline = time.monotonic() + SECONDS_TO_START
    while airflow.poll() is None and time.monotonic() < deadline:
        with suppress(OSError, KeyError, ValueError):  # not there yet; requests' errors are OSErrors
            password = str(json.loads((HOME / "simple_auth_manager_passwords.json.generated").read_bytes())["admin"])
            login = {"username": "admin", "password": password}
            token = session.post(f"{address}/auth/token", json=login, timeout=5).json()["access_token"]
            session.headers["Authorization"] = f"Bearer {token}"
            if session.get(f"{address}/api/v2/dags/my_pipeline", timeout=5).ok:
                return password
        time.sleep(0.5)
    return None


def stop_processes() -> None:
    """Stop every process of this Airflow, even if an earlier launcher started it."""
    for signum, patience in ((signal.SIGTERM, SECONDS_TO_STOP), (signal.SIGKILL, 5)):
        # A process of another user has no readable environment.
        found = psutil.process_iter(["environ"])
        processes = [process for process in found if (process.info["environ"] or {}).get(MARK) == str(HOME)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signum)
        psutil.wait_procs(processes, timeout=patience)


def say(text: str) -> None:
    """Print to the terminal, which may have been closed."""
    with suppress(OSError):
        print(f"run_airflow.sh: {text}", file=sys.stderr)


def interrupt(*_: object) -> NoReturn:
    """End the run; a second signal must not interrupt the clean-up."""
    ignore_stop_signals()
    raise KeyboardInterrupt


def ignore_stop_signals() -> None:
    """Ignore the signals that stop Airflow."""
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


if __name__ == "__main__":
    main()
