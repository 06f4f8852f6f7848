"""Loading by https, and through a proxy."""

import contextlib
import datetime as dt
import ipaddress
import ssl
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import Project
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from misbehaving import CSV, SECRET, serve

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)

ServeTls = Callable[..., tuple[str, str]]


def write_certificate(path: Path, host: str = "127.0.0.1", end: dt.datetime = NOW + DAY) -> Path:
    """Write a certificate that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    address = x509.IPAddress(ipaddress.ip_address(host))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), NOW - 9 * DAY, end)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(certificate.public_bytes(pem) + private)
    return path


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    """Run the server without TLS, as a proxy."""
    with serve() as running:
        yield running


@pytest.fixture
def serve_tls(tmp_path: Path) -> Iterator[ServeTls]:
    """Return a function that runs the server with a certificate, and returns its address and the certificate."""
    with contextlib.ExitStack() as stack:

        def run(**options: Any) -> tuple[str, str]:
            certificate = write_certificate(tmp_path / "server.pem", **options)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            return f"https://127.0.0.1:{stack.enter_context(serve(context)).server_port}", str(certificate)

        yield run


@pytest.mark.parametrize(
    ("way", "code"),
    [
        *((way, 0) for way in ("good", "chunked", "packed", "unframed_packed", "unframed_closed")),
        *((way, 75) for way in ("unframed", "unframed_packed_cut_off", "cut_off", "chunked_cut_off")),
    ],
)
def test_end_of_the_connection(project: Project, serve_tls: ServeTls, way: str, code: int) -> None:
    """Where neither a length nor gzip says where the data ends, TLS must; this server ends properly only when asked."""
    url, certificate = serve_tls()
    done = project.step("data_loader", DATA_URL=f"{url}/{way}", REQUESTS_CA_BUNDLE=certificate)

    assert done.returncode == code, done.stderr
    assert project.artifacts() == ({"raw_data.csv": CSV} if code == 0 else {})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "self-signed certificate"),
        ({"host": "127.0.0.2"}, "IP address mismatch"),
        ({"end": NOW - DAY}, "certificate has expired"),
    ],
)
def test_certificate(project: Project, serve_tls: ServeTls, options: dict[str, Any], reason: str) -> None:
    """A certificate that is not accepted is a wrong setting, and the error says why."""
    url, certificate = serve_tls(**options)
    trust = {"REQUESTS_CA_BUNDLE": certificate} if options else {}
    done = project.step("data_loader", DATA_URL=f"{url}/good", **trust)

    assert done.returncode == 78
    assert f"the certificate of the server or proxy was not accepted ({reason})" in done.stderr


def test_redirect_away_from_https(project: Project, serve_tls: ServeTls) -> None:
    """A redirect from https to http is refused, and not shown."""
    url, certificate = serve_tls()
    done = project.step("data_loader", DATA_URL=f"{url}/redirect_to_plain_http", REQUESTS_CA_BUNDLE=certificate)

    assert done.returncode == 78
    assert "expected redirects that stay on https, found one to http" in done.stderr
    assert SECRET not in done.stderr


@pytest.mark.parametrize(("status", "code"), [(403, 78), (407, 78), (429, 75), (502, 75), (503, 75)])
def test_refusal_of_the_proxy(project: Project, server: ThreadingHTTPServer, status: int, code: int) -> None:
    """A proxy that refuses is a wrong setting; one that cannot reach the server is tried again."""
    proxy = f"http://user:{SECRET}@127.0.0.1:{server.server_port}"
    done = project.step("data_loader", DATA_URL=f"https://{status}.example/x", HTTPS_PROXY=proxy)

    assert done.returncode == code
    assert "the proxy" in done.stderr
    assert SECRET not in done.stderr
