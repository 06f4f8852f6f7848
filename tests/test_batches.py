"""The same answer for every batch size and number of workers, on tables of every shape."""

import csv
import io
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import train
from steplib.errors import DataError
from steplib.model import fitting, scoring, training
from steplib.table import batches, duplicates
from steplib.table import pool as pools
from steplib.table.batches import split
from steplib.table.cleaning import Summary, clean
from steplib.table.pool import THIS_THREAD, Pool, open_pool

LOG = logging.getLogger("test")
WHOLE = 1 << 30
SIZES = (4096, 50_000, WHOLE)


class Answer(NamedTuple):
    """The results of the steps for one file."""

    clear: bytes
    weights: np.ndarray
    predictions: list[list[str]]
    metrics: dict[str, Any]


def answer(raw: Path, folder: Path, batch_bytes: int, pool: Pool) -> Answer:
    """Clean, train and evaluate in the way of the steps."""
    folder.mkdir()
    clear, predictions = folder / "clear_data.csv", io.BytesIO()
    clean_file(raw, clear, batch_bytes, pool)
    model = train.fit(training.read_training_rows(clear, folder / "rows", batch_bytes, pool), pool, LOG)
    metrics = scoring.measure(model, clear, predictions, batch_bytes, pool).metrics
    rows = list(csv.reader(io.StringIO(predictions.getvalue().decode(), newline="")))
    return Answer(clear.read_bytes(), np.append(model[-1].coef_, model[-1].intercept_), rows, metrics)


def clean_file(raw: Path, clear: Path, batch_bytes: int, pool: Pool = THIS_THREAD) -> Summary:
    """Clean a file in the way of transform.py."""
    with clear.open("w+b") as cleaned:
        return clean(raw, cleaned, io.BytesIO(), batch_bytes, pool)


def numbers(rows: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features and the classes that they separate, with noise."""
    rng = np.random.default_rng(features)
    target = rng.random(rows) < 0.4
    return np.round(rng.normal(size=(rows, features)) * 10 + target[:, None], 3), target


def lines(values: np.ndarray, target: np.ndarray, ids: list[str] | None = None) -> Iterator[str]:
    """Return the rows of a CSV without a header."""
    for i, (row, is_m) in enumerate(zip(values.tolist(), target, strict=True)):
        cells = ["" if cell != cell else repr(cell) for cell in row]  # noqa: PLR0124 - NaN
        yield ",".join([ids[i] if ids else str(i), "M" if is_m else "B", *cells]) + "\n"


def three_features() -> Iterator[str]:
    """Few features and many rows."""
    return lines(*numbers(6000, 3))


def three_hundred_features() -> Iterator[str]:
    """More features than fit into a batch of 4 kB."""
    return lines(*numbers(900, 300))


def mostly_missing() -> Iterator[str]:
    """One feature misses nine of ten values, two miss all, and one has a value only in the last row."""
    values, target = numbers(3000, 7)
    values[np.arange(len(values)) % 10 > 0, 2] = np.nan
    values[:, [3, 6]] = np.nan
    values[:-1, 4] = np.nan
    return lines(values, target)


def rare_class() -> Iterator[str]:
    """One row in two hundred belongs to class M."""
    values, target = numbers(6000, 5)
    return lines(values, target & (np.arange(len(target)) % 80 == 0))


def long_ids() -> Iterator[str]:
    """Ids are long texts with Cyrillic letters."""
    values, target = numbers(2000, 4)
    return lines(values, target, [f"пациент {i} " + "x" * (i % 700) for i in range(len(target))])


def sorted_by_class() -> Iterator[str]:
    """Every batch except one holds a single class."""
    values, target = numbers(4000, 5)
    return lines(values[np.argsort(target)], np.sort(target))


def quoted_ids() -> Iterator[str]:
    """Quoted ids contain commas, quotes and line ends."""
    values, target = numbers(3000, 4)
    ids = [f'"{i}, ""ward"" {i % 7}' + ("\n\n,B,1\n" if i % 5 == 0 else "") + '"' for i in range(len(target))]
    return lines(values, target, ids)


def uneven_lines() -> Iterator[str]:
    """Lines differ greatly in length, blank lines lie between them, and numbers are written in odd ways."""
    for i, line in enumerate(lines(*numbers(3000, 5))):
        record_id, target, *cells = line.rstrip("\n").split(",")
        yield ",".join([record_id + " " * (i % 3), f" {target}", *(cell + "0" * (i % 50 == 0) * 900 for cell in cells)])
        yield "\r\n\r\n" if i % 40 == 0 else "\n"


def with_repeats() -> Iterator[str]:
    """Every third row is repeated far away in a different notation; every twentieth is then repeated twice."""
    rows = list(lines(*numbers(3000, 4)))
    yield from rows
    yield from (row.replace(",", ', "', 1).replace(",", '",', 2).replace('",', ",", 1) for row in rows[::3])
    yield from (row for row in rows[::20] for _ in range(2))


def very_unlike_scales() -> Iterator[str]:
    """Features are tiny, huge, constant, or vary little around a large mean."""
    values, target = numbers(4000, 5)
    return lines(values * [1e-200, 1e100, 1, 1e-3, 0] + [0, 0, 1e7, 1e3, 0.1], target)


SHAPES = [
    three_features,
    pytest.param(three_hundred_features, marks=pytest.mark.slow),
    mostly_missing,
    rare_class,
    long_ids,
    sorted_by_class,
    quoted_ids,
    uneven_lines,
    with_repeats,
    very_unlike_scales,
]


@pytest.mark.parametrize("small", [0, WHOLE], ids=["as arrays", "row by row"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_same_answer(
    tmp_path: Path, shape: Callable[[], Iterator[str]], small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clear data and classes are identical; weights and probabilities agree to 1e-8, metrics to 1e-11.

    The number of workers changes nothing at all.
    """
    monkeypatch.setattr(batches, "SMALL_FILE_BYTES", small)
    raw = tmp_path / "raw_data.csv"
    raw.write_text("".join(shape()), encoding="utf-8", newline="")
    answers = []
    for batch_bytes, number in [(WHOLE, 1), *itertools.product(SIZES[:-1], (1, 2))]:
        with open_pool(number) as pool:
            answers.append(answer(raw, tmp_path / f"{batch_bytes}_{number}", batch_bytes, pool))
    whole, *others = answers
    for other in others:
        assert other.clear == whole.clear
        assert np.abs(other.weights - whole.weights).max() < 1e-8
        assert [row[:3] for row in other.predictions] == [row[:3] for row in whole.predictions]
        for actual, expected in zip(other.predictions[1:], whole.predictions[1:], strict=True):
            assert abs(float(actual[3]) - float(expected[3])) < 1e-8
        for name, value in whole.metrics.items():
            is_exact = value is None or isinstance(value, str)
            assert value == (other.metrics[name] if is_exact else pytest.approx(other.metrics[name], rel=1e-11))
    for one_worker, two_workers in zip(others[::2], others[1::2], strict=True):
        assert (one_worker.weights == two_workers.weights).all()
        assert one_worker.predictions == two_workers.predictions


def test_repeats_are_dropped_wherever_they_are(tmp_path: Path) -> None:
    """The first of several equal rows stays in its place."""
    raw = tmp_path / "raw_data.csv"
    raw.write_text("".join(with_repeats()), encoding="utf-8")
    summary = clean_file(raw, tmp_path / "clear_data.csv", 4096)
    clear = (tmp_path / "clear_data.csv").read_text(encoding="utf-8").splitlines()[1:]

    assert (summary.rows_read, summary.rows, summary.duplicates) == (4300, 3000, 1300)
    assert [line.split(",")[0] for line in clear] == [str(i) for i in range(3000)]


@pytest.mark.parametrize("rows_at_a_time", [1, 100, 1 << 21])
def test_repeats_are_found_in_groups(rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeats are found however few rows are compared at a time; digests that agree only by half are different."""
    monkeypatch.setattr(duplicates, "ROWS_AT_A_TIME", rows_at_a_time)
    monkeypatch.setattr(duplicates, "ROWS_READ_AT_A_TIME", 64)
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 40, size=(500, 2)).astype(np.uint64)
    seen: set[tuple[int, ...]] = set()
    expected = [i for i, row in enumerate(map(tuple, digests.tolist())) if row in seen or seen.add(row)]

    assert duplicates.find_repeats(io.BytesIO(digests.tobytes()), len(digests)).tolist() == expected


@pytest.mark.parametrize("size", [1, 7, 30, 1000])
def test_no_row_is_cut(tmp_path: Path, size: int) -> None:
    """Batches follow each other without a gap, end at the end of a row, and know their first line."""
    content = '\ufeffid,"a\nb"\r\n' + 'x,"1\n""2"", \n3"\r\n\n  "q\n", 1\nz""z,2\n' * 5 + "last,3"
    path = tmp_path / "raw_data.csv"
    path.write_text(content, encoding="utf-8", newline="")
    found = list(split(path, size, first_line=3))

    assert "".join(batch.read().decode() for batch in found) == content[content.index("x,") :]
    for batch in found:
        assert content.encode()[: batch.start].count(b"\n") == batch.first_line - 1
        assert list(csv.reader(io.StringIO(batch.read().decode(), newline=""), strict=True, skipinitialspace=True))
        assert batch.read().decode().lstrip().startswith(("x,", '"q', "z", "last"))


@pytest.mark.parametrize("before", [0, 1 << 22])
def test_broken_quote_does_not_swallow_the_file(tmp_path: Path, before: int) -> None:
    """An unclosed quote neither puts the rest of the file into one batch nor starts a new search at every line."""
    path = tmp_path / "raw_data.csv"
    path.write_bytes(b"1,B,2\n" * (before // 6) + b'1,M,"2\n' + b"1,B,2\n" * 500_000)
    start = time.process_time()

    assert max(batch.length for batch in split(path, max(1000, before))) < before + 3 * batches.LONGEST_FIELD_BYTES
    assert time.process_time() - start < 10


def test_field_of_many_lines_stays_whole(tmp_path: Path) -> None:
    """A quoted field of thousands of lines lies in one batch."""
    path = tmp_path / "raw_data.csv"
    path.write_bytes(b'1,M,2\n"' + b"\n" * 100_000 + b'x",B,2\n' + b"3,M,4\n" * 50_000)
    found = list(split(path, 3))

    assert len(found) > 10_000
    assert sum(b"x" in batch.read() for batch in found) == 1
    assert all(batch.read().count(b'"') in {0, 2} for batch in found)


def fail_at_seven(number: int) -> int:
    """Raise ZeroDivisionError for one of the numbers."""
    return number // (number - 7)


@pytest.mark.parametrize("id_lines", [1, 4, 1000, 5000])
@pytest.mark.parametrize("blank", ["", " "])
def test_batches_stay_small_whatever_the_ids_hold(tmp_path: Path, id_lines: int, blank: str) -> None:
    """Line ends inside every id neither enlarge the batches nor cut a row."""
    many = "\n" * id_lines
    content = "".join(f'{blank}"{i}\n""{many}",M,"{i}"\n' for i in range(400_000 // (id_lines + 60)))
    path = tmp_path / "raw_data.csv"
    path.write_text(content, encoding="utf-8")
    found = [batch.read().decode() for batch in split(path, 4096)]

    assert max(map(len, found)) <= 4096 + 2 * (id_lines + 60)
    assert "".join(found) == content
    rows = [list(csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)) for text in found]
    assert {len(row) for batch in rows for row in batch} == {3}


@pytest.mark.parametrize("long", ["a" + " " * 140_000, "1" * 140_000, '"' + "a," * 70_000 + '"'])
@pytest.mark.parametrize("column", [0, 1, 2])
def test_field_that_is_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: str, column: int
) -> None:
    """A field longer than csv accepts is refused, whichever way the file is read."""
    row = ["5", "M", "1", "2"]
    row[column] = long
    raw = tmp_path / "raw_data.csv"
    raw.write_text("".join(f"{i},{'MB'[i % 2]},{i},1\n" for i in range(100)) + ",".join(row), encoding="utf-8")
    for small, batch_bytes in itertools.product((0, WHOLE), (1000, WHOLE)):
        monkeypatch.setattr(batches, "SMALL_FILE_BYTES", small)
        with pytest.raises(DataError, match="line 101: expected quotes only around whole fields"):
            clean_file(raw, tmp_path / "clear_data.csv", batch_bytes)


@pytest.mark.parametrize("number", [1, 2])
def test_error_of_a_worker_names_its_place(number: int) -> None:
    """An error arrives with its type and its place in the code, whatever the number of workers."""
    with open_pool(number) as pool, pytest.raises(ZeroDivisionError) as raised:
        list(pool.map(fail_at_seven, range(20)))

    assert "fail_at_seven" in str(raised.getrepr())


def test_scaling_leaves_the_stored_rows_unchanged() -> None:
    """A task that a cluster repeats after losing a worker reads the same rows as the first one."""
    rows = np.array([[1.0, np.nan, 1, 0], [3.0, 5.0, 1, 1]] * 100)
    part = training.Part(200, 4, lambda: rows)
    for _ in range(2):
        scaled = np.concatenate(list(training.blocks(part, np.array([2.0, 5.0]), np.array([1.0, 2.0]))))
        assert scaled.tolist() == [[-1, 0, 1, 0], [1, 0, 1, 1]] * 100


def test_look_ahead_is_bounded() -> None:
    """However slowly the results are consumed, only a limited number is computed ahead."""
    begun: list[int] = []
    with open_pool(2) as pool:
        for used, _ in enumerate(pool.map(begun.append, range(200))):
            assert len(begun) - used <= 2 * pools.LOOK_AHEAD + 1
    assert sorted(begun) == list(range(200))


def test_one_worker_is_this_thread() -> None:
    """A single worker, or a single item, starts no thread; several map in order too."""
    with open_pool(1) as pool:
        assert set(pool.map(lambda _: threading.current_thread(), range(3))) == {threading.current_thread()}
    with open_pool(2) as pool:
        assert list(pool.map(lambda _: threading.current_thread(), [1])) == [threading.current_thread()]
        assert list(pool.map(str, [])) == []
        assert list(pool.map(str, range(100))) == [str(i) for i in range(100)]


def test_everything_in_memory_gives_the_same() -> None:
    """A table can be cleaned, fitted and scored without files, a log or settings."""
    raw = "".join(with_repeats()).encode()
    clear, predictions = io.BytesIO(), io.BytesIO()
    summary = clean(raw, clear, io.BytesIO())
    rows = training.read_training_rows(clear.getvalue())
    metrics = scoring.measure(fitting.fit(train.build_model(), rows), clear.getvalue(), predictions).metrics

    assert summary.rows == metrics["train_rows"] + metrics["test_rows"] == 3000
    assert predictions.getvalue().count(b"\n") == metrics["test_rows"] + 1


@pytest.mark.parametrize("quoted", ['a"b', 'a""b"', '"1",a"b'])
def test_odd_quote_inside_an_unquoted_field_is_refused(tmp_path: Path, quoted: str) -> None:
    """Such a row would make it unclear where rows end; the error names its line, in batches of every size."""
    raw = tmp_path / "raw_data.csv"
    rows = [f"{i},{'MB'[i % 2]},{i},1\n" for i in range(100)]
    raw.write_text("".join([*rows[:50], f"{quoted},M,1,1\n", *rows[50:]]), encoding="utf-8")
    for batch_bytes in (1, 100, WHOLE):
        with pytest.raises(DataError, match="line 51: "):
            clean_file(raw, tmp_path / "clear_data.csv", batch_bytes)
