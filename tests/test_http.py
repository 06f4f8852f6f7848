"""The source on a server that misbehaves."""

import contextlib
import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import Project, wdbc_rows

CSV = ("\n".join(wdbc_rows()) + "\n").encode()
SECRET = "Zq7Secret"


class Misbehaving(BaseHTTPRequestHandler):
    """A server on which the path says what goes wrong."""

    protocol_version = "HTTP/1.1"
    tries: dict[str, int]

    def log_message(self, *_args: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        """Answer as the path says."""
        fault = self.path.split("?")[0].strip("/")
        self.server.tries[fault] = self.server.tries.get(fault, 0) + 1  # type: ignore[attr-defined]
        if fault.isdecimal():
            self.answer(b"refused", status=int(fault))
        else:
            getattr(self, fault)()
        self.close_connection = True

    def answer(self, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        """Send a response, with a length that may be wrong."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def good(self) -> None:
        """Send the data."""
        self.answer(CSV)

    def redirect(self) -> None:
        """Send to the data."""
        self.answer(b"", 302, Location="/good?token=" + SECRET)

    def redirect_for_ever(self) -> None:
        """Send to the same place again."""
        self.answer(b"", 302, Location=self.path)

    def second_time_good(self) -> None:
        """Fail once."""
        self.answer(CSV, 503 if self.server.tries["second_time_good"] == 1 else 200)  # type: ignore[attr-defined]

    def packed(self) -> None:
        """Send the data packed, though nobody asked for it."""
        self.answer(gzip.compress(CSV), Content_Encoding="gzip")

    def packed_cut_off(self) -> None:
        """Send half of the packed data as if it were all."""
        body = gzip.compress(CSV)
        self.answer(body[: len(body) // 2], Content_Encoding="gzip")

    def packed_damaged(self) -> None:
        """Send what is not gzip as gzip."""
        self.answer(CSV, Content_Encoding="gzip")

    def chunked(self) -> None:
        """Send the data in small chunks, length unknown."""
        self.send_chunks(end=b"0\r\n\r\n")

    def chunked_cut_off(self) -> None:
        """Send chunks without the last."""
        self.send_chunks(end=b"")

    def send_chunks(self, end: bytes) -> None:
        """Send the data in chunks of 1,000 bytes."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        for start in range(0, len(CSV), 1000):
            part = CSV[start : start + 1000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(end)

    def cut_off(self) -> None:
        """Send half of what was promised."""
        self.answer(CSV[: len(CSV) // 2], length=len(CSV))

    def reset(self) -> None:
        """Send half, then reset the connection."""
        self.answer(CSV[: len(CSV) // 2], length=len(CSV))
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.wfile = self.rfile  # nothing left to flush

    def stall(self) -> None:
        """Send half, then nothing."""
        self.answer(CSV[: len(CSV) // 2], length=len(CSV))
        time.sleep(3)

    def silent(self) -> None:
        """Send nothing."""
        time.sleep(3)

    def headers_cut_off(self) -> None:
        """Close in the middle of the headers."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")

    def absurd_length(self) -> None:
        """Promise a number too long for an integer, and close."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")

    def negative_chunk(self) -> None:
        """Send a chunk of less than nothing."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n")

    def redirect_nowhere(self) -> None:
        """Send to what is no address."""
        self.answer(b"", 302, Location="http://[::1/x?" + SECRET)

    def redirect_to_file(self) -> None:
        """Send to a file of the machine that asks."""
        self.answer(b"", 302, Location="file:///etc/passwd")

    def garbage(self) -> None:
        """Answer in no protocol."""
        self.wfile.write(b"\x00\x01\x02 nonsense\r\n\r\n")

    def html(self) -> None:
        """Send a login page with status 200."""
        self.answer(f"<!DOCTYPE html><html>{SECRET}</html>".encode(), Content_Type="text/html")

    def json(self) -> None:
        """Send JSON."""
        self.answer(json.dumps({"error": SECRET}).encode())

    def archive(self) -> None:
        """Send an archive."""
        self.answer(gzip.compress(CSV))

    def workbook(self) -> None:
        """Send a spreadsheet."""
        self.answer(b"PK\x03\x04" + b"\0" * 100)

    def binary(self) -> None:
        """Send bytes."""
        self.answer(bytes(range(256)) * 10)

    def empty(self) -> None:
        """Send nothing, as a whole."""
        self.answer(b"")

    def larger_than_the_disk(self) -> None:
        """Promise an exabyte."""
        self.answer(CSV, length=1 << 60)


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    """Run the server on a free port of loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving) as running:
        running.tries = {}  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def url(server: ThreadingHTTPServer) -> str:
    """Return the address of the server, with credentials."""
    return f"http://user:{SECRET}@127.0.0.1:{server.server_port}"


@pytest.mark.parametrize("way", ["good", "redirect", "packed", "chunked"])
def test_served_data(project: Project, url: str, way: str) -> None:
    """However the server sends the file, raw_data.csv is its content."""
    done = project.step("data_loader", DATA_URL=f"{url}/{way}?token={SECRET}")

    assert done.returncode == 0, done.stderr
    assert project.artifacts()["raw_data.csv"] == CSV
    assert SECRET not in everything(project) + done.stderr


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        *((str(status), 75) for status in (408, 429, 500, 502, 503, 504)),
        *((str(status), 78) for status in (400, 401, 403, 404, 410)),
        *((fault, 75) for fault in ("cut_off", "reset", "stall", "silent", "garbage", "chunked_cut_off")),
        *((fault, 75) for fault in ("packed_cut_off", "packed_damaged", "headers_cut_off", "negative_chunk")),
        *((fault, 78) for fault in ("redirect_for_ever", "redirect_nowhere", "redirect_to_file")),
        *((fault, 65) for fault in ("html", "json", "archive", "workbook", "binary", "empty")),
        ("absurd_length", 65),
        ("larger_than_the_disk", 74),
    ],
)
def test_fault_of_the_server(project: Project, url: str, fault: str, code: int) -> None:
    """Each fault has its exit code and one line, leaves no file, and tells no secret."""
    timeout = "0.5" if fault in {"stall", "silent"} else "30"
    done = project.step("data_loader", DATA_URL=f"{url}/{fault}?token={SECRET}", DATA_TIMEOUT=timeout)

    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr + everything(project)
    assert SECRET not in done.stderr + everything(project)
    assert [path.name for path in project.runs()[0].iterdir() if path.suffix != ".json"] == [".lock"]
    assert project.artifacts() == {}


def test_nobody_listens(project: Project) -> None:
    """A refused connection may pass."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = project.step("data_loader", DATA_URL=f"http://127.0.0.1:{unused.getsockname()[1]}/x")

    assert done.returncode == 75


def test_pipeline_tries_again_in_the_same_log(project: Project, url: str) -> None:
    """run_pipeline.sh repeats the load step, and the run goes on as one."""
    done = project.pipeline(DATA_URL=f"{url}/second_time_good", RETRY_DELAY="0.1")

    assert done.returncode == 0, done.stderr
    assert len(project.runs()) == len(list((project.root / "logs").iterdir())) == 1
    assert everything(project).count("[data_loader]: [DATA_LOADER]: started") == 2


@pytest.mark.parametrize(("fault", "tries", "code"), [("503", 3, 75), ("404", 1, 78), ("html", 1, 65)])
def test_pipeline_gives_up(project: Project, url: str, fault: str, tries: int, code: int) -> None:
    """Only what may pass is tried again, twice; then the pipeline stops with the step's exit code."""
    done = project.pipeline(DATA_URL=f"{url}/{fault}", RETRY_DELAY="0.1")

    assert done.returncode == code
    assert everything(project).count("[ERROR]") == tries
    assert len(project.runs()) == 1


def everything(project: Project) -> str:
    """Return all logs and manifests."""
    files = [*project.root.glob("logs/*"), *project.root.glob("results/runs/*/manifest.json")]
    return "\n".join(Path(file).read_text(encoding="utf-8") for file in files)
