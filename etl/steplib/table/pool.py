"""Mapping a function over batches: in this thread, on all cores, or on a Dask cluster."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from shutil import make_archive
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

from steplib.errors import SettingError, UnreachableError, address_space

# Items that are begun, and results that are held, ahead of the one in use, for each worker: this bounds the memory.
LOOK_AHEAD = 2
SECONDS_TO_CONNECT = 30
PACKAGE = Path(__file__).parents[1]

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers(NamedTuple):
    """How to submit work and to wait for its result, as an Executor and its futures do, and the number of workers."""

    submit: Callable[..., Any]
    result: Callable[[Any], Any]
    number: int


class Pool(NamedTuple):
    """Workers with the `map` of an Executor that does not run far ahead of its results; by default this thread."""

    start: Callable[[], Workers | None] = lambda: None

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield the result for each item, in order. No worker is started for a single item."""
        rest = iter(items)
        first = list(islice(rest, 2))
        workers = self.start() if len(first) > 1 else None
        if workers is None:
            yield from map(function, chain(first, rest))
            return
        begun: deque[Any] = deque()
        for item in chain(first, rest):
            begun.append(workers.submit(function, item))
            if len(begun) > LOOK_AHEAD * workers.number:
                yield workers.result(begun.popleft())
        while begun:
            yield workers.result(begun.popleft())


THIS_THREAD = Pool()


@contextmanager
def open_pool(workers: int, dask_scheduler: str = "") -> Iterator[Pool]:
    """Yield a pool of `workers` threads (0: one per core), or of the threads of a Dask cluster.

    Threads suffice because pyarrow and numpy release the GIL while they work. Raises SettingError for a wrong address,
    UnreachableError if scheduler or workers are missing or lost.
    """
    with ExitStack() as stack:
        start = partial(_connect, dask_scheduler) if dask_scheduler else partial(_start_threads, workers)
        yield Pool(cache(partial(start, stack)))


def _start_threads(workers: int, stack: ExitStack) -> Workers | None:
    workers = workers or len(os.sched_getaffinity(0))
    # Each thread reserves address space for its stack, its heap and its matrix products.
    if workers == 1 or address_space() < math.inf:
        return None
    executor = ThreadPoolExecutor(workers)
    # After an error or a signal, do not wait for what is under way.
    stack.callback(executor.shutdown, wait=False, cancel_futures=True)
    return Workers(executor.submit, lambda future: future.result(), workers)


def _connect(address: str, stack: ExitStack) -> Workers:
    """Connect to a Dask scheduler and send its workers this package's code."""
    try:
        from distributed import Client, KilledWorker
        from distributed.comm import CommClosedError  # type: ignore[attr-defined]  # in its documented API
    except ModuleNotFoundError as error:
        msg = f"DASK_SCHEDULER: the package {error.name} is not installed; install what docs/large-files.md names"
        raise SettingError(msg) from error
    try:
        client: Any = Client(address, timeout=SECONDS_TO_CONNECT)  # type: ignore[no-untyped-call]  # it has no types
    except (TypeError, ValueError) as error:
        # TypeError where the address's scheme needs more configuration.
        msg = f"DASK_SCHEDULER: expected an address like tcp://host:8786, found {address!r}; correct it"
        raise SettingError(msg) from error
    except OSError as error:
        msg = f"DASK_SCHEDULER: there is no scheduler at {address} ({type(error).__name__})"
        raise UnreachableError(f"{msg}; check the address and the network") from error
    stack.enter_context(client)
    threads = sum(client.nthreads().values())
    if not threads:
        raise UnreachableError(f"DASK_SCHEDULER: the scheduler at {address} has no workers; start some")
    with TemporaryDirectory() as folder:
        client.upload_file(make_archive(f"{folder}/{PACKAGE.name}", "zip", PACKAGE.parent, PACKAGE.name))

    def result(future: Any) -> Any:  # noqa: ANN401 - a future of distributed, which has no types
        try:
            return future.result()
        except (CancelledError, CommClosedError, KilledWorker) as error:
            msg = f"DASK_SCHEDULER: {address} or its workers were lost ({type(error).__name__})"
            raise UnreachableError(f"{msg}; look at their logs, then run again") from error

    return Workers(partial(client.submit, pure=False), result, threads)
