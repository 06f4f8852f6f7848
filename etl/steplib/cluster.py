"""A Dask cluster that does the work on the batches; distributed is imported only here, when there is one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import make_archive
from tempfile import TemporaryDirectory
from typing import Any

from steplib.errors import SettingError, UnreachableError

SECONDS_TO_CONNECT = 30


@contextmanager
def connect(address: str) -> Iterator[int]:
    """Connect to a Dask scheduler, give it and its workers this package's code, and tell how many threads they have.

    Raises SettingError for what is no address, UnreachableError where there is no scheduler, no worker, or one is lost.
    """
    try:
        from distributed import Client, KilledWorker
        from distributed.comm.core import CommClosedError
    except ModuleNotFoundError as error:
        msg = f"DASK_SCHEDULER: expected the package {error.name}, found none; install what README.md names"
        raise SettingError(msg) from error
    try:
        client: Any = Client(address, timeout=SECONDS_TO_CONNECT)  # type: ignore[no-untyped-call]  # it has no types
    except (TypeError, ValueError) as error:
        # The former where its scheme needs what is not configured.
        raise SettingError(f"DASK_SCHEDULER: expected an address like tcp://host:8786, found {address!r}") from error
    except OSError as error:
        msg = f"DASK_SCHEDULER: expected a scheduler at {address}, found none ({type(error).__name__})"
        raise UnreachableError(f"{msg}; check its address and the network") from error
    with client, TemporaryDirectory() as folder:
        threads = sum(client.nthreads().values())
        if not threads:
            raise UnreachableError(f"DASK_SCHEDULER: expected workers at {address}, found none; start some")
        package = Path(__file__).parent
        client.upload_file(make_archive(f"{folder}/{package.name}", "zip", package.parent, package.name))
        try:
            yield threads
        except (CommClosedError, KilledWorker) as error:
            msg = f"DASK_SCHEDULER: expected {address} and its workers to stay, found {type(error).__name__}"
            raise UnreachableError(f"{msg}; look at their logs, then run again") from error
