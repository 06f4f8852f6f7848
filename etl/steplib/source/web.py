"""A web address as the source: who gets the credentials, how long to wait, and whether the file is complete."""

import gzip
import re
import signal
import ssl
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, NoReturn, cast

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.utils import get_auth_from_url
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import HTTPError
from urllib3.util.ssl_ import create_urllib3_context

from steplib.errors import PipelineError, SettingError, UnreachableError
from steplib.source.address import redact
from steplib.source.opening import CHUNK_BYTES, Source, check_before_last

STATUS_TO_RETRY = {408, 429, *range(500, 600)}
PROXY_REFUSES = 407
# The slowest transfer that is accepted: these bytes in these seconds, or in DATA_TIMEOUT if that is longer.
BLOCK_BYTES = 1 << 15
SECONDS_PER_BLOCK = 60


@contextmanager
def open_http(url: str, timeout: float) -> Iterator[Source]:
    """Open a web address. Raises UnreachableError for a temporary failure, SettingError for a permanent one."""
    name = redact(url)
    with _Session() as session, request(session, url, name, timeout) as response:
        status = response.status_code
        if status != requests.codes.ok:
            kind = UnreachableError if status in STATUS_TO_RETRY else SettingError
            to_check = "the proxy" if status == PROXY_REFUSES else "DATA_URL and its server"
            raise kind(f"{name}: expected HTTP status 200, found {status}; check {to_check}")
        length = response.headers.get("Content-Length", "")
        packed = response.headers.get("Content-Encoding", "").lower() in {"gzip", "x-gzip"}
        known = re.fullmatch("[0-9]{1,19}", length) and not packed
        yield Source(name, int(length) if known else None, download(name, response, timeout, packed=packed))


def request(session: requests.Session, url: str, name: str, timeout: float) -> requests.Response:
    """Return the response, its body unread. Raises UnreachableError or SettingError."""
    # Uncompressed if the server can, so that Content-Length is the size.
    headers = {"Accept-Encoding": "identity"}
    try:
        with time_limit(name, timeout):
            return session.get(url, stream=True, timeout=timeout, headers=headers, auth=_sign)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise explain(name, error, timeout) from None
    except (OSError, ValueError, HTTPError) as error:
        # requests' own errors are OSErrors, but it passes on some errors of urllib3. Their text quotes the whole URL.
        way_out = "correct DATA_URL, the address it redirects to, or the setting of the proxy or the certificates"
        raise SettingError(f"{name}: the address cannot be used ({type(error).__name__}); {way_out}") from None


def explain(name: str, error: Exception, timeout: float) -> PipelineError:
    """Return what a failed connection means: a refused certificate or a refusing proxy is a wrong setting."""
    cause: Any = error
    while isinstance(inner := getattr(cause, "reason", None) or (None, *cause.args)[-1], Exception):
        cause = inner
    if isinstance(cause, ssl.SSLError) and "CERTIFICATE" in (cause.reason or ""):
        # The rest of the text names the host, which may be that of a redirect.
        found = getattr(cause, "verify_message", cause.reason).split(",")[0]
        way_out = "correct DATA_URL, the certificate, or REQUESTS_CA_BUNDLE, which names the trusted authorities"
        return SettingError(f"{name}: the certificate of the server or proxy was not accepted ({found}); {way_out}")
    refused = re.match("Tunnel connection failed: ([0-9]{3})", str(cause))
    if refused and int(refused[1]) not in STATUS_TO_RETRY:
        way_out = "correct HTTPS_PROXY, its user and password, or NO_PROXY"
        return SettingError(f"{name}: the proxy refused the connection (HTTP status {refused[1]}); {way_out}")
    msg = f"{name}: could not be reached within {timeout:g} s (DATA_TIMEOUT; {type(error).__name__})"
    proxy = ", the proxy" if isinstance(error, requests.exceptions.ProxyError) else ""
    return UnreachableError(f"{msg}; check the server{proxy} and the network")


def download(name: str, response: requests.Response, timeout: float, *, packed: bool) -> Iterator[bytes]:
    """Yield the body of a response. Raises UnreachableError when it is cut off, too slow or damaged."""
    # Decompressed here, because requests accepts a truncated gzip stream as complete.
    response.raw.decode_content = False
    body = gzip.GzipFile(fileobj=response.raw) if packed else response.raw
    if packed and isinstance(connection := response.raw.connection, _Connection):
        connection.tls.suppress_ragged_eofs = True  # gzip knows where its stream is complete
    declared = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
    framed = packed or response.raw.chunked or response.raw.length_remaining is not None

    def read() -> bytes:
        with time_limit(name, timeout):
            return body.read(BLOCK_BYTES)

    def check_end(end: bytes) -> None:
        # Without a length, a connection that was cut off looks like the end of the file.
        if not (framed or end == b"\n" if end else declared):
            raise EOFError

    blocks = iter(read, b"")
    chunks = iter(lambda: b"".join(islice(blocks, CHUNK_BYTES // BLOCK_BYTES)), b"")
    try:
        yield from check_before_last(chunks, check_end)
    except (HTTPError, OSError, ValueError, EOFError, zlib.error):
        msg = f"{name}: the transfer was cut off, stalled or damaged, or the file does not end with a line end"
        raise UnreachableError(f"{msg}; check the server and the network") from None


@contextmanager
def time_limit(name: str, timeout: float) -> Iterator[None]:
    """Raise UnreachableError in a block that takes too long; a socket's timeout only limits the wait for each byte."""

    def give_up(*_: object) -> NoReturn:
        raise UnreachableError(f"{name}: the transfer was too slow; check the server and the network")

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, max(timeout, SECONDS_PER_BLOCK))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add the credentials of the URL; without this function, requests would prefer those of ~/.netrc."""
    user, password = get_auth_from_url(request.url or "")
    return HTTPBasicAuth(user, password)(request) if user or password else request


class _Session(requests.Session):
    """Follows redirects, but sends no credentials to a different host and never leaves https."""

    def __init__(self) -> None:
        super().__init__()
        self.mount("https://", _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return where a response redirects to, and do not read its body, which may be endless."""
        if resp.is_redirect:
            resp.close()
        return super().get_redirect_target(resp)

    def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
        """Drop the credentials if the host differs. Raises SettingError if the redirect leaves https."""
        old, new = response.request.url or "", prepared_request.url or ""
        if old.startswith("https:") and new.startswith("http:"):
            raise SettingError(
                "DATA_URL: expected redirects that stay on https, found one to http; name the final address"
            )
        if self.should_strip_auth(old, new):  # type: ignore[no-untyped-call]
            prepared_request.headers.pop("Authorization", None)


class _Adapter(HTTPAdapter):
    """Uses _Connection."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:  # noqa: ANN401
        """Return the pool of connections for a request."""
        pool: HTTPConnectionPool = super().get_connection_with_tls_context(*args, **kwargs)  # type: ignore[assignment]
        pool.ConnectionCls = _Connection
        return pool


class _Connection(HTTPSConnection):
    """A TLS connection that must be closed by close_notify; any other end is an error."""

    def connect(self) -> None:
        """Connect, and switch off what makes OpenSSL 3 and Python accept any end."""
        self.ssl_context = create_urllib3_context()
        self.ssl_context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        super().connect()
        self.tls = cast("Any", self.sock)
        self.tls.suppress_ragged_eofs = False
