"""A proxy in front of fake-gcs-server that refuses what Google refuses; a path's first part selects the case."""

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests

MAY_NOT = "Zq7@example.org does not have storage.objects.create access to the Google Cloud Storage object."
# By case: the requests, as method and path, and the status and message, as Google documents them at
# https://cloud.google.com/storage/docs/json_api/v1/status-codes.
REFUSALS = {
    "anonymous": (".*", 401, "Anonymous caller does not have storage.objects.get access to the object."),
    "invalid": (".*", 401, "Invalid Credentials"),
    "forbidden": (".*", 403, MAY_NOT),
    "read_only": ("(?!GET).*", 403, MAY_NOT),
    "objects_alone": ("GET storage/v1/b/[^/]+/?", 403, MAY_NOT),
    "unavailable": (".*", 503, "Backend Error"),
    # The server itself forgets this condition for an upload in parts.
    "as_documented": ("POST .*uploadType=resumable.*&ifGenerationMatch=0.*", 412, "conditionNotMet"),
}
TOKENS = {"revoked": (400, {"error": "invalid_grant"}), "busy": (503, {"error": "server_error"})}


class Handler(BaseHTTPRequestHandler):
    """Refuses a request or hands it on to the server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: object) -> None:
        """Log nothing."""

    def handle_request(self) -> None:
        """Answer any method."""
        _, case, rest = self.path.split("/", 2)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if rest == "token":
            self.answer(TOKENS[case][0], json.dumps(TOKENS[case][1]).encode())
        elif case in REFUSALS and re.fullmatch(REFUSALS[case][0], f"{self.command} {rest}"):
            _, status, message = REFUSALS[case]
            self.answer(status, json.dumps({"error": {"code": status, "message": message}}).encode())
        else:
            headers = {name: self.headers[name] for name in self.headers if name.lower() != "host"}
            url = f"{self.server.target()}/{rest}"  # type: ignore[attr-defined]
            found = requests.request(self.command, url, headers=headers, data=body, timeout=60)
            location = {"Location": found.headers["Location"]} if "Location" in found.headers else {}
            self.answer(found.status_code, found.content, **location)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request  # noqa: N815 - http.server's names

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """Send a response."""
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class GoogleProxy:
    """Runs the proxy in front of the server whose address `target` returns."""

    def __init__(self, target: Callable[[], str]) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.target = target  # type: ignore[attr-defined]
        # Its address, to which a case is added.
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop it."""
        self.server.shutdown()
        self.server.server_close()
