"""A CSV as batches of whole rows, and one way to map a function over them: by all cores, or by a Dask cluster."""

import ctypes
import os
import re
import resource
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, TypeVar

from steplib import cluster
from steplib.csvfile import LONGEST_FIELD, open_csv
from steplib.settings import Settings

if TYPE_CHECKING:
    from joblib import Parallel

# Below this, importing pyarrow costs more than it saves.
SMALL_FILE_BYTES = 1 << 20
# With less, pyarrow and many threads may end the process rather than say that there is no memory.
AMPLE_ADDRESS_SPACE = 8 << 30
# As csv reads it: quotes count where a field begins, and a quoted field may run on over line ends. The quote stands
# first, so that searching for it is fast; where a blank may stand before it, it takes the slower one.
QUOTED_FIELD = re.compile(rb'"(?<![^,\n]")[^"]*(?:""[^"]*)*("|\Z)')
QUOTED_FIELD_AFTER_BLANKS = re.compile(rb'(?:^|(?<=[,\n])) *"[^"]*(?:""[^"]*)*("|\Z)')
# A field that is still open after so many bytes has more characters than csv takes: it is broken.
LONGEST_FIELD_BYTES = 4 * LONGEST_FIELD
# Batches that are handed out at a time, for each worker: what bounds the memory if the reduction is slow.
LOOK_AHEAD = 8
# Of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

Item = TypeVar("Item")
Result = TypeVar("Result")


class Map(Protocol):
    """Map a function over items, in order, as the built-in map does."""

    def __call__(self, work: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
        """Yield the results."""


class Batch(NamedTuple):
    """Some whole rows of a file, by their place in bytes and the number of their first line, counted from 1."""

    path: str
    start: int
    length: int
    first_line: int

    def read(self) -> bytes:
        """Return the rows' bytes."""
        with Path(self.path).open("rb") as file:
            file.seek(self.start)
            return file.read(self.length)

    @property
    def goes_row_by_row(self) -> bool:
        """Whether to read without pyarrow, since the file, not the batch, is small, or memory is limited."""
        return is_limited() or Path(self.path).stat().st_size < SMALL_FILE_BYTES


def is_limited() -> bool:
    """Tell whether this process has little address space (`ulimit -v`): then it does without what takes much."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return limit != resource.RLIM_INFINITY and limit < AMPLE_ADDRESS_SPACE


def split(path: Path, size: int, first_line: int = 1) -> Iterator[Batch]:
    """Yield the rows from a line on as batches of about `size` bytes, none of them cut."""
    with open_csv(path) as file:
        for _ in range(first_line - 1):
            file.readline()
        start, line = file.tell(), first_line
        while rows := _read_rows(file, size):
            yield Batch(str(path), start, len(rows), line)
            start, line = start + len(rows), line + rows.count(b"\n")


def _read_rows(file: BinaryIO, size: int) -> bytes | bytearray:
    """Read some more than `size` bytes, up to the end of the row that is at hand then."""
    rows: bytes | bytearray = file.read(size) + file.readline()
    field = _open_field(rows, 0) if b'"' in rows else None
    if field is None:
        return rows
    more = 1 << 12
    while (end := _end_of_row(rows, field)) is None:
        still_open = _open_field(rows, field)
        is_broken = still_open is not None and len(rows) - still_open > LONGEST_FIELD_BYTES
        rest = b"" if is_broken else file.read(more) + file.readline()
        if not rest:
            return rows
        rows, more = bytearray(rows) + rest, 2 * more
    file.seek(end - len(rows), os.SEEK_CUR)
    return rows[:end]


def _end_of_row(rows: bytes | bytearray, start: int) -> int | None:
    """Return where the row ends that has a quoted field at `start`, if it ends in these bytes."""
    pattern = _quoted_field(rows, start)
    while field := pattern.search(rows, start):
        line_end = rows.find(b"\n", start)
        if 0 <= line_end < field.start():
            return line_end + 1
        if not field[1]:
            return None
        start = field.end()
    return rows.find(b"\n", start) + 1 or None


def _open_field(rows: bytes | bytearray, start: int) -> int | None:
    """Return where the quoted field begins that does not end in these rows, if there is one."""
    last = next(iter(deque(_quoted_field(rows, start).finditer(rows, start), maxlen=1)), None)
    return last.start() if last and not last[1] else None


def _quoted_field(rows: bytes | bytearray, start: int) -> re.Pattern[bytes]:
    return QUOTED_FIELD if rows.find(b' "', start) < 0 else QUOTED_FIELD_AFTER_BLANKS


@contextmanager
def workers(settings: Settings) -> Iterator[Map]:
    """Give the map of a step. Nothing is started for a single item, nor by one worker.

    With threads, since pyarrow and numpy let go of the interpreter while they work; on a Dask cluster, if
    DASK_SCHEDULER names one, by its processes. Raises UnreachableError if that does not answer.
    """
    with ExitStack() as stack:
        parallel = None

        def over(work: Callable[[Item], Result], items: Iterable[Item], /) -> Iterator[Result]:
            nonlocal parallel
            rest = iter(items)
            first = list(islice(rest, 2))
            alone = is_limited() or settings.workers == 1
            if len(first) < 2 or (alone and not settings.dask_scheduler):  # noqa: PLR2004 - there is a second
                yield from map(work, chain(first, rest))
                return
            parallel = parallel or stack.enter_context(_start(settings, stack))
            yield from _in_waves(parallel, work, chain(first, rest))

        yield over


def _in_waves(parallel: "Parallel", work: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Result]:
    """Hand out some items at a time: joblib would go on to the last, however slowly the results are used."""
    from joblib import delayed

    while wave := list(islice(items, LOOK_AHEAD * parallel.n_jobs)):
        for result, error in parallel(delayed(_attempt)(work, item) for item in wave):
            if error:
                raise error
            yield result


def _attempt(work: Callable[[Item], Result], item: Item) -> tuple[Any, Exception | None]:
    """Return the result, or the error as it is: joblib's own would no longer know where in the work it was raised."""
    try:
        return work(item), None
    except Exception as error:  # noqa: BLE001 - raised again by who uses the results
        return None, error


def _start(settings: Settings, stack: ExitStack) -> "Parallel":
    from joblib import Parallel, cpu_count, parallel_config

    if settings.dask_scheduler:
        backend, n_jobs = "dask", stack.enter_context(cluster.connect(settings.dask_scheduler))
    else:
        _reuse_memory()
        backend, n_jobs = "threading", settings.workers or cpu_count()
    # Who stops at a fault leaves some results unused.
    warnings.filterwarnings("ignore", ".*tasks have been successfully executed but not used", UserWarning)
    stack.enter_context(parallel_config(backend, n_jobs=n_jobs))
    return Parallel(return_as="generator", pre_dispatch="all")


def _reuse_memory() -> None:
    """Have glibc, if it is there, keep what arrays give back, up to the limits that it allows.

    Asking the system for each batch's memory anew, which it does one thread at a time, takes a quarter of the run.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        for parameter, size in ((M_MMAP_THRESHOLD, 1 << 25), (M_TRIM_THRESHOLD, 1 << 29)):
            mallopt(parameter, size)
