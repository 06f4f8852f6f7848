"""A web server for the source; the requested path selects the fault."""

import contextlib
import gzip
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from conftest import wdbc_rows

CSV = ("\n".join(wdbc_rows()) + "\n").encode()
PART = CSV[:80_000]
assert PART[-1:] != b"\n"
SECRET = "Zq7Secret"


class Misbehaving(BaseHTTPRequestHandler):
    """Answers each request with the fault that its path names."""

    protocol_version = "HTTP/1.1"
    tries: dict[str, int]

    def log_message(self, *_args: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        """Answer with the fault that the path names."""
        fault = self.path.split("?")[0].strip("/")
        self.server.tries[fault] = self.server.tries.get(fault, 0) + 1  # type: ignore[attr-defined]
        if fault.isdecimal():
            self.answer(b"refused", status=int(fault))
        else:
            getattr(self, fault)()
        self.close_connection = True

    def do_POST(self) -> None:
        """Record the body of the request."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(body))  # type: ignore[attr-defined]
        self.answer(b"")

    def do_CONNECT(self) -> None:
        """Refuse to be a proxy, with the status that the name of the host begins with."""
        self.send_error(int(self.path.split(".")[0]))

    def answer(self, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        """Send a response, whose declared length may be wrong."""
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
        """Redirect to the data."""
        self.answer(b"", 302, Location="/good?token=" + SECRET)

    def redirect_to_other_name(self) -> None:
        """Redirect to the same server under another name."""
        self.answer(b"", 302, Location=f"http://localhost:{self.server.server_port}/who")  # type: ignore[attr-defined]

    def redirect_to_plain_http(self) -> None:
        """Redirect to an address without TLS."""
        self.answer(b"", 302, Location="http://127.0.0.1:1/" + SECRET)

    def who(self) -> None:
        """Record the credentials of the request, and send the data."""
        self.server.credentials.append(self.headers["Authorization"])  # type: ignore[attr-defined]
        self.answer(CSV)

    def redirect_for_ever(self) -> None:
        """Redirect to the same path every time."""
        self.answer(b"", 302, Location=self.path)

    def second_time_good(self) -> None:
        """Fail the first request."""
        self.answer(CSV, 503 if self.server.tries["second_time_good"] == 1 else 200)  # type: ignore[attr-defined]

    def third_time_good(self) -> None:
        """Fail the first two requests."""
        self.answer(CSV, 503 if self.server.tries["third_time_good"] < 3 else 200)  # type: ignore[attr-defined]

    def held(self) -> None:
        """Send one half, and the other when the test sets `release`."""
        self.answer(CSV[: len(CSV) // 2], length=len(CSV))
        self.server.release.wait(60)  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            self.wfile.write(CSV[len(CSV) // 2 :])

    def packed(self) -> None:
        """Send the data compressed, although the client did not ask for it."""
        self.answer(gzip.compress(CSV), Content_Encoding="gzip")

    def packed_cut_off(self) -> None:
        """Send half of the compressed data as if it were complete."""
        body = gzip.compress(CSV)
        self.answer(body[: len(body) // 2], Content_Encoding="gzip")

    def packed_damaged(self) -> None:
        """Send plain text that is declared as gzip."""
        self.answer(CSV, Content_Encoding="gzip")

    def chunked(self) -> None:
        """Send the data in small chunks, without a total length."""
        self.send_chunks(end=b"0\r\n\r\n")

    def chunked_cut_off(self) -> None:
        """Send all chunks except the final, empty one."""
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

    def unframed(self, body: bytes = CSV, header: bytes = b"") -> None:
        """Send the data without its length, so that only the end of the connection shows the end of the data."""
        self.wfile.write(b"HTTP/1.0 200 OK\r\n" + header + b"\r\n" + body)

    def unframed_cut_off(self) -> None:
        """Send a part without its length."""
        self.unframed(PART)

    def unframed_cut_off_in_the_first_line(self) -> None:
        """Send a few bytes without their length."""
        self.unframed(CSV[:5])

    def unframed_packed(self) -> None:
        """Send compressed data without its length."""
        self.unframed(gzip.compress(CSV), b"Content-Encoding: gzip\r\n")

    def unframed_packed_cut_off(self) -> None:
        """Send compressed data without its length and its last byte."""
        self.unframed(gzip.compress(CSV)[:-1], b"Content-Encoding: gzip\r\n")

    def malformed_length_cut_off(self) -> None:
        """Send a part with a length that is not a number."""
        self.unframed(PART, b"Content-Length: all\r\n")

    def unframed_closed(self) -> None:
        """Send the data without its length, and end as TLS demands."""
        self.unframed()
        self.connection.unwrap()  # type: ignore[attr-defined]

    def drip(self, start: bytes, drop: bytes) -> None:
        """Send a few bytes, again and again."""
        with contextlib.suppress(OSError):
            self.wfile.write(start)
            for _ in range(100):
                self.wfile.write(drop)
                time.sleep(0.1)

    def slow_body(self) -> None:
        """Send a body slowly, after a good beginning."""
        self.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + PART, b"1")

    def slow_chunks(self) -> None:
        """Send small chunks slowly."""
        self.drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n1\r\n")

    def slow_header(self) -> None:
        """Send a header slowly."""
        self.drip(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"1")

    def slow_promises(self) -> None:
        """Announce a response again and again."""
        self.drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n")

    def redirect_to_slow_header(self) -> None:
        """Redirect to a slow response."""
        self.answer(b"", 302, Location="/slow_header")

    def slow_but_steady(self) -> None:
        """Send the data in pieces, with pauses."""
        self.answer(b"", length=len(CSV))
        for start in range(0, len(CSV), 40_000):
            self.wfile.write(CSV[start : start + 40_000])
            time.sleep(0.5)

    def cut_off(self) -> None:
        """Send half of the declared length."""
        self.answer(CSV[: len(CSV) // 2], length=len(CSV))

    def reset(self) -> None:
        """Send one half, then reset the connection."""
        self.answer(CSV[: len(CSV) // 2], length=len(CSV))
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.wfile = self.rfile  # nothing left to flush

    def stall(self) -> None:
        """Send one half, then nothing more."""
        self.answer(CSV[: len(CSV) // 2], length=len(CSV))
        time.sleep(3)

    def silent(self) -> None:
        """Send nothing."""
        time.sleep(3)

    def headers_cut_off(self) -> None:
        """Close the connection in the middle of the headers."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")

    def absurd_length(self) -> None:
        """Declare a length too long for an integer, then close the connection."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")

    def negative_chunk(self) -> None:
        """Send a chunk of negative size."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n")

    def redirect_nowhere(self) -> None:
        """Redirect to a malformed address."""
        self.answer(b"", 302, Location="http://[::1/x?" + SECRET)

    def redirect_to_file(self) -> None:
        """Redirect to a file on the client's machine."""
        self.answer(b"", 302, Location="file:///etc/passwd")

    def garbage(self) -> None:
        """Answer with bytes that are not HTTP."""
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
        """Send binary data."""
        self.answer(bytes(range(256)) * 10)

    def empty(self) -> None:
        """Send a complete response without content."""
        self.answer(b"")

    def larger_than_the_disk(self) -> None:
        """Declare an exabyte."""
        self.answer(CSV, length=1 << 60)


@contextlib.contextmanager
def serve(context: ssl.SSLContext | None = None) -> Iterator[ThreadingHTTPServer]:
    """Run the server on a free port of loopback; with a context it speaks TLS."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Misbehaving) as running:
        if context:
            running.socket = context.wrap_socket(running.socket, server_side=True, do_handshake_on_connect=False)
        running.tries = {}  # type: ignore[attr-defined]
        running.received = []  # type: ignore[attr-defined]
        running.credentials = []  # type: ignore[attr-defined]
        running.release = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running
        finally:
            running.release.set()  # type: ignore[attr-defined]
            running.shutdown()
            thread.join()
