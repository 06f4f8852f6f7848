"""Local sources, and what is shown of an address."""

import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from threading import Timer

import pytest
from steplib.errors import UnreachableError
from steplib.source import opening
from steplib.source.address import redact
from steplib.source.opening import CHUNK_BYTES, open_source


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:Zq7Secret@host:8443/a b/ü-1.csv?token=Zq7Secret#x", "https://***@host:8443/a b/ü-1.csv"),
        ("HTTP://host", "HTTP://host"),
        ("http://host/a/x;v=1/b.csv", "http://host/a/***"),
        ("some folder/ü%20-1.csv", "some folder/ü%20-1.csv"),
        ("jdbc://host/key", "jdbc://***"),
    ],
)
def test_what_is_shown_of_an_address(url: str, shown: str) -> None:
    """A path and a plain web address are shown as they are."""
    assert redact(url) == shown


@pytest.mark.parametrize("change", ["append", "truncate", "replace", "remove"])
def test_file_that_changes_while_it_is_read(tmp_path: Path, change: str) -> None:
    """A file that is written, replaced or removed meanwhile is temporarily out of reach."""
    path = tmp_path / "source.csv"
    path.write_bytes(b"1,M,2\n" * CHUNK_BYTES)
    with open_source(str(path), tmp_path, timeout=1) as source:
        next(source.chunks)
        match change:
            case "append":
                with path.open("ab") as file:
                    file.write(b"2,B,3\n")
            case "truncate":
                os.truncate(path, CHUNK_BYTES)
            case "replace":
                shutil.copy(path, tmp_path / "new.csv")
                (tmp_path / "new.csv").rename(path)
            case "remove":
                path.unlink()
        with pytest.raises(UnreachableError, match="changed"):
            list(source.chunks)


@pytest.mark.parametrize("complete", [True, False])
def test_file_without_a_final_line_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    complete: bool,  # noqa: FBT001
) -> None:
    """A file that ends in the middle of a line may still be being copied, so it is looked at again."""
    path = tmp_path / "source.csv"
    path.write_bytes(b"1,M,2\n2,B,0.08")
    monkeypatch.setattr(opening, "SECONDS_UNTOUCHED", 0.5)
    copying = Timer(0.2, path.write_bytes, [b"1,M,2\n2,B,0.08121"])
    expected = nullcontext() if complete else pytest.raises(UnreachableError, match="changed")
    with open_source(str(path), tmp_path, timeout=1) as source, expected:
        if not complete:
            copying.start()
        assert list(source.chunks) == [b"1,M,2\n2,B,0.08"]


@pytest.mark.parametrize("end", [b"2,B,0.08", b"2,B,0.08\n"])
@pytest.mark.parametrize("stalls", [True, False])
def test_file_that_is_open_for_writing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: bytes,
    stalls: bool,  # noqa: FBT001
) -> None:
    """A file that a writer has open is watched; it counts if it is left alone, and ends with a line end."""
    path = tmp_path / "source.csv"
    monkeypatch.setattr(opening, "SECONDS_OF_WRITER", 0.5)
    with path.open("wb", buffering=0) as writer:
        writer.write(b"1,M,2\n" + end)
        if stalls:
            os.utime(path, (0, 0))
        else:
            Timer(0.2, writer.write, [b"3,M,4\n"]).start()
        accepted = stalls and end.endswith(b"\n")
        expected = nullcontext() if accepted else pytest.raises(UnreachableError, match="not complete yet")
        with open_source(str(path), tmp_path, timeout=1) as source, expected:
            assert list(source.chunks) == [b"1,M,2\n" + end]
