"""A source in a real object store: whole, unchanged, shown without secrets, or refused with the right exit code."""

import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT, Project, wdbc_rows
from fsspec import get_filesystem_class
from object_store import SECRETS, ObjectStore, store
from steplib import envfile
from steplib.errors import UnreachableError
from steplib.source.address import redact
from steplib.source.bucket import version
from steplib.source.opening import CHUNK_BYTES, open_source

__all__ = ["store"]
# Uploading a large object at once is the tests' own short cut.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body")
CSV = (ROOT / "data" / "wdbc.csv").read_bytes()
KEY = "exports/cases 1.csv"
# One more attempt instead of four: the pauses between them grow up to eight seconds.
FEWER_ATTEMPTS = ('"total_max_attempts": 5', '"total_max_attempts": 2')
KEYS = {"AWS_ACCESS_KEY_ID": "AKtest", "AWS_SECRET_ACCESS_KEY": "Zq7", "AWS_DEFAULT_REGION": "us-east-1"}
PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def source(store: ObjectStore) -> ObjectStore:
    """Return a store with the embedded data in it."""
    store.files().pipe_file(f"bucket/{KEY}", CSV)
    return store


def facts(project: Project) -> dict[str, object]:
    """Return what the only run's manifest says about loading."""
    (run,) = project.runs()
    return json.loads((run / "manifest.json").read_bytes())["steps"]["data_loader"]


@pytest.mark.parametrize("capitals", [True, False])
def test_object_is_loaded_byte_for_byte(
    project: Project,
    source: ObjectStore,
    capitals: bool,  # noqa: FBT001
) -> None:
    """An object arrives as it is, and the manifest records which version of it; a scheme may be in capitals."""
    scheme = source.scheme.upper() if capitals else source.scheme
    done = project.step("data_loader", DATA_URL=f"{scheme}://bucket/{KEY}", **source.environment)

    assert done.returncode == 0, done.stderr
    assert project.artifacts() == {"raw_data.csv": CSV}
    found = facts(project)
    assert found["source"] == f"{scheme.lower()}://bucket/{KEY}"
    assert found["source_version"]
    assert found["source_version"] == version(source.files().info(f"bucket/{KEY}"))
    assert f"source: {scheme.lower()}://bucket/{KEY}, {len(CSV)} bytes" in done.stderr


def test_source_and_storage_share_their_credentials(project: Project, source: ObjectStore) -> None:
    """The whole chain reads from one bucket and publishes to it, with credentials from .env."""
    lines = [f"{name}={value}\n" for name, value in source.environment.items()]
    (project.root / ".env").write_text("".join(lines), encoding="utf-8")
    project.chain(DATA_URL=f"{source.scheme}://bucket/{KEY}", STORAGE_URL=f"{source.scheme}://bucket/models")

    assert source.files().exists("bucket/models/latest.json")


def test_memory_does_not_grow_with_the_object(project: Project, source: ObjectStore) -> None:
    """An object of 80 MB takes little more memory than a small one."""
    large = b"".join(f"{copy:0>14000}{row}\n".encode() for copy in range(10) for row in wdbc_rows())
    assert len(large) > 80_000_000
    source.files().pipe_file("bucket/large.csv", large)
    command = [sys.executable, "-c", PEAK, sys.executable, str(project.root / "etl" / "data_loader.py")]
    peaks = []
    for key, content in ((KEY, CSV), ("large.csv", large)):
        done = project.run(command, DATA_URL=f"{source.scheme}://bucket/{key}", **source.environment)
        assert done.returncode == 0, done.stderr
        assert project.artifacts()["raw_data.csv"] == content
        peaks.append(int(done.stdout.split()[-1]))

    assert peaks[1] - peaks[0] < 65_000


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("bucket/none.csv", "nothing"),
        ("nobucket/cases.csv", "nothing"),
        ("bucket/exports", "a folder"),
        ("bucket/exports/", "a folder"),
        ("bucket", "a folder"),
    ],
)
def test_missing_object_is_a_wrong_setting(project: Project, source: ObjectStore, path: str, found: str) -> None:
    """A missing key or bucket, or a folder, is exit 78; nothing is loaded."""
    url = f"{source.scheme}://{path}"
    done = project.step("data_loader", DATA_URL=url, **source.environment)

    assert done.returncode == 78, done.stderr
    assert f"DATA_URL: expected an object at {url}, found {found}" in done.stderr
    assert project.artifacts() == {}


def test_refused_access_is_a_wrong_setting(project: Project, source: ObjectStore) -> None:
    """Wrong or missing credentials are exit 78, and appear nowhere."""
    for fault, given in source.refused.items():
        if fault in {"no right to write", "revoked key"}:
            continue  # the first may read, the second is tried again for half a minute
        done = project.step("data_loader", DATA_URL=f"{source.scheme}://bucket/{KEY}", **given)

        assert done.returncode == 78, (fault, done.stderr)
        assert f"{source.scheme}://bucket/{KEY}: " in done.stderr
        assert not re.search(SECRETS, done.stderr)


def test_store_that_is_down(project: Project) -> None:
    """A store that cannot be reached is temporary."""
    project.shorten_wait(*FEWER_ATTEMPTS)
    done = project.step("data_loader", DATA_URL="s3://bucket/a.csv", AWS_ENDPOINT_URL="http://127.0.0.1:1", **KEYS)

    assert done.returncode == 75, done.stderr
    assert "s3://bucket/a.csv: the storage did not answer" in done.stderr


@pytest.mark.parametrize("without_s3fs", [True, False])
@pytest.mark.parametrize(
    "url",
    ["s3://AK:Zq7Secret@bucket/a", "s3://bucket/a?key=Zq7Secret", "s3://bucket/a;token=Zq7Secret", "s3:Zq7Secret@b/a"],
)
def test_secret_in_an_address_is_never_shown(
    project: Project,
    url: str,
    without_s3fs: bool,  # noqa: FBT001
) -> None:
    """An address with credentials, a query or parameters is exit 78, and its secret appears nowhere."""
    if without_s3fs:
        (project.root / "s3fs.py").write_text("raise ImportError\n", encoding="utf-8")
    done = project.step("data_loader", DATA_URL=url, PYTHONPATH=str(project.root), AWS_EC2_METADATA_DISABLED="true")

    assert done.returncode == 78, done.stderr
    assert any(text in done.stderr for text in ("DATA_URL: expected", "install requirements-s3.txt", "access denied"))
    written = [path.read_text(encoding="utf-8") for path in project.root.glob("[lr]*s/**/*") if path.is_file()]
    assert "Zq7Secret" not in "".join([done.stderr, *written])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("S3://bucket/a b/ü.csv", "S3://bucket/a b/ü.csv"),
        ("s3://bucket/year=2026/a.csv", "s3://bucket/***"),
        ("s3://AK:Zq7Secret@bucket/a", "s3://***@bucket/a"),
        ("abfs://cases@account.dfs.core.windows.net/a.csv", "abfs://cases@account.dfs.core.windows.net/a.csv"),
        ("abfs://c:Zq7Secret@account.dfs.core.windows.net/a.csv", "abfs://***@account.dfs.core.windows.net/a.csv"),
        ("abfs://Zq7Secret@x@account/a.csv", "abfs://***@account/a.csv"),
    ],
)
def test_what_is_shown_of_a_storage(url: str, shown: str) -> None:
    """The bucket, Azure's container and account, and a plain path are shown; nothing that could be a secret is."""
    assert redact(url) == shown


@pytest.fixture
def in_process(source: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Prepare this process for reading an object: without a .env, and with no client of an earlier store."""
    monkeypatch.setattr(envfile, "ENV_FILE", tmp_path / "none")
    for name, value in source.environment.items():
        monkeypatch.setenv(name, value)
    client = get_filesystem_class(source.scheme)
    client.clear_instance_cache()
    yield
    client.clear_instance_cache()


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("chunks", [1, 20])
@pytest.mark.parametrize("change", ["same size", "shorter", "longer", "removed"])
def test_object_that_changes_while_it_is_read(source: ObjectStore, change: str, chunks: int) -> None:
    """An object that is replaced or removed before the read ends, even after its last byte, is temporarily unusable."""
    content = b"1,M,2\n" * (chunks * CHUNK_BYTES // 6)
    files, path = source.files(), f"bucket/changes/{change}/{chunks}.csv"
    files.pipe_file(path, content)
    with open_source(f"{source.scheme}://{path}", Path(), timeout=1) as opened:
        if chunks > 1:
            next(opened.chunks)
        if change == "removed":
            files.rm_file(path)
        else:
            new = b"2,B,3\n" * (len(content) // 6 + {"same size": 0, "shorter": -1, "longer": 1}[change])
            files.pipe_file(path, new)
        with pytest.raises(UnreachableError, match="the object changed while it was read"):
            list(opened.chunks)


@pytest.mark.parametrize("whole", [True, False])
def test_store_that_sends_fewer_bytes(
    project: Project,
    whole: bool,  # noqa: FBT001
) -> None:
    """An object of which fewer bytes arrive than it has is temporarily unusable, even if each answer is complete."""

    class Short(BaseHTTPRequestHandler):
        def log_message(self, *_args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(len(CSV))

        def do_GET(self) -> None:
            begin = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
            content = CSV[begin : len(CSV) // 2]
            self.answer(len(content) if whole else len(content) + 1)
            self.wfile.write(content)

        def answer(self, length: int) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.send_header("ETag", '"1"')
            self.end_headers()

    project.shorten_wait(*FEWER_ATTEMPTS)
    with ThreadingHTTPServer(("127.0.0.1", 0), Short) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            done = project.step("data_loader", DATA_URL="s3://bucket/a.csv", AWS_ENDPOINT_URL=address, **KEYS)
        finally:
            server.shutdown()

    assert done.returncode == 75, done.stderr
    assert "the transfer was cut off" in done.stderr or not whole
    assert project.artifacts() == {}
