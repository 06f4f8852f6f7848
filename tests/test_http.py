"""Loading from a server that misbehaves."""

import base64
import socket
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import Project
from misbehaving import CSV, SECRET, serve


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    """Run the server."""
    with serve() as running:
        yield running


@pytest.fixture
def url(server: ThreadingHTTPServer) -> str:
    """Return the address of the server, with credentials."""
    return f"http://user:{SECRET}@127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("way", ["good", "redirect", "packed", "chunked", "unframed", "unframed_packed"])
def test_served_data(project: Project, url: str, way: str) -> None:
    """However the server sends the file, raw_data.csv has its content."""
    done = project.step("data_loader", DATA_URL=f"{url}/{way}?token={SECRET}")

    assert done.returncode == 0, done.stderr
    assert project.artifacts()["raw_data.csv"] == CSV
    assert SECRET not in everything(project) + done.stderr


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        *((str(status), 75) for status in (408, 429, 500, 502, 503, 504)),
        *((str(status), 78) for status in (400, 401, 403, 404, 407, 410)),
        *((fault, 75) for fault in ("cut_off", "reset", "stall", "silent", "garbage", "chunked_cut_off")),
        *((fault, 75) for fault in ("packed_cut_off", "packed_damaged", "headers_cut_off", "negative_chunk")),
        *((fault, 75) for fault in ("unframed_cut_off", "unframed_cut_off_in_the_first_line")),
        *((fault, 75) for fault in ("unframed_packed_cut_off", "malformed_length_cut_off")),
        *((fault, 78) for fault in ("redirect_for_ever", "redirect_nowhere", "redirect_to_file")),
        *((fault, 65) for fault in ("html", "json", "archive", "workbook", "binary", "empty")),
        ("absurd_length", 65),
        ("larger_than_the_disk", 74),
    ],
)
def test_fault_of_the_server(project: Project, url: str, fault: str, code: int) -> None:
    """Each fault has its exit code, leaves no file and no traceback, and reveals no secret."""
    timeout = "0.5" if fault in {"stall", "silent"} else "30"
    done = project.step("data_loader", DATA_URL=f"{url}/{fault}?token={SECRET}", DATA_TIMEOUT=timeout)

    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr + everything(project)
    assert SECRET not in done.stderr + everything(project)
    assert [path.name for path in project.runs()[0].iterdir() if path.suffix != ".json"] == [".lock"]
    assert project.artifacts() == {}


@pytest.mark.parametrize(
    ("way", "code"),
    [
        *((way, 75) for way in ("slow_body", "slow_chunks", "slow_header", "slow_promises", "redirect_to_slow_header")),
        ("slow_but_steady", 0),
    ],
)
def test_slow_server(project: Project, url: str, way: str, code: int) -> None:
    """A server that sends next to nothing is given up, although it never stalls; a steady one is waited for."""
    project.shorten_wait("SECONDS_PER_BLOCK = 60", "SECONDS_PER_BLOCK = 1")
    start = time.monotonic()
    done = project.step("data_loader", DATA_URL=f"{url}/{way}", DATA_TIMEOUT="1")

    assert done.returncode == code, done.stderr
    assert time.monotonic() - start < 8
    assert ("too slow" in done.stderr) == (code == 75)


@pytest.mark.parametrize("variable", ["HOME", "NETRC"])
def test_credentials_come_from_the_url_alone(project: Project, server: ThreadingHTTPServer, variable: str) -> None:
    """Neither ~/.netrc nor $NETRC changes or adds credentials, and a redirect to another host takes none along."""
    netrc = project.root / ".netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\ndefault login c password d\n", encoding="utf-8")
    setting = {variable: str(netrc if variable == "NETRC" else project.root)}
    host = f"127.0.0.1:{server.server_port}"
    server.credentials.clear()  # type: ignore[attr-defined]
    for address in (f"user:p%40ss@{host}/who", f"{host}/who", f"user:{SECRET}@{host}/redirect_to_other_name"):
        assert project.step("data_loader", DATA_URL=f"http://{address}", **setting).returncode == 0

    expected = "Basic " + base64.b64encode(b"user:p@ss").decode()
    assert server.credentials == [expected, None, None]  # type: ignore[attr-defined]


def test_refused_connection(project: Project) -> None:
    """A refused connection is exit 75, which is retried."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = project.step("data_loader", DATA_URL=f"http://127.0.0.1:{unused.getsockname()[1]}/x")

    assert done.returncode == 75


def test_pipeline_tries_again_in_the_same_log(project: Project, url: str) -> None:
    """run_pipeline.sh repeats the load step within the same run."""
    done = project.pipeline(DATA_URL=f"{url}/second_time_good", RETRY_DELAY="0.1")

    assert done.returncode == 0, done.stderr
    assert len(project.runs()) == len(list((project.root / "logs").iterdir())) == 1
    assert everything(project).count("[data_loader]: [DATA_LOADER]: started") == 2


@pytest.mark.parametrize(("fault", "tries", "code"), [("503", 3, 75), ("404", 1, 78), ("html", 1, 65)])
def test_pipeline_gives_up(project: Project, url: str, fault: str, tries: int, code: int) -> None:
    """Only a temporary fault is tried again, twice; then the pipeline stops with the step's exit code."""
    done = project.pipeline(DATA_URL=f"{url}/{fault}", RETRY_DELAY="0.1")

    assert done.returncode == code
    assert everything(project).count("[ERROR]") == tries
    assert len(project.runs()) == 1


def everything(project: Project) -> str:
    """Return all logs and manifests."""
    files = [*project.root.glob("logs/*"), *project.root.glob("results/runs/*/manifest.json")]
    return "\n".join(Path(file).read_text(encoding="utf-8") for file in files)
