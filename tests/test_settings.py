"""The values of the environment and .env, and the errors about them."""

import os
from pathlib import Path

import pytest
from steplib import envfile, settings
from steplib.errors import SettingError
from steplib.settings import read_settings
from steplib.storage.places import open_storage


@pytest.fixture(autouse=True)
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test its own .env and none of the machine's settings."""
    for name in settings.DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(envfile, "ENV_FILE", tmp_path / ".env")
    return tmp_path / ".env"


def test_defaults() -> None:
    """Without any setting, the embedded data is the source."""
    found = read_settings()

    assert (found.data_url, found.data_base) == ("data/wdbc.csv", envfile.ROOT)
    assert (found.data_timeout, found.keep_runs, found.batch_bytes) == (30, 10, 2 << 20)
    assert settings.retry_pauses(settings.read_values()) == [5, 15]


def test_environment_wins_over_file(env_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment wins over .env; a path given there is relative to the working directory."""
    env_file.write_text("\ufeffDATA_URL='from file.csv'\nexport KEEP_RUNS = 3 # few\n", encoding="utf-8")
    assert (read_settings().data_url, read_settings().data_base) == ("from file.csv", envfile.ROOT)
    assert read_settings().keep_runs == 3

    monkeypatch.setenv("DATA_URL", "from environment.csv")
    monkeypatch.chdir(tmp_path)
    assert (read_settings().data_url, read_settings().data_base) == ("from environment.csv", tmp_path)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        *(("S3://Bucket/Prefix", "s3://Bucket/Prefix"), ("ABFS://c@A/x", "abfs://c@A/x")),
        *(("FILE:///tmp/X", "file:///tmp/X"), ("file://localhost/tmp/x", "file:///tmp/x")),
    ],
)
def test_storage_has_one_spelling(written: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Capitals in the scheme and this machine's name mean nothing; everything else stays as it is."""
    monkeypatch.setenv("STORAGE_URL", written)
    assert read_settings().storage_url == url


@pytest.mark.parametrize(
    "place",
    [
        *("memory://any/where", "memory:///", "data://x", "zip:///srv/a.zip", "tar://x", "dir://x", "reference://x"),
        *("http://h/x", "https://h/x", "github://o/x", "local://x", "foo://any/where"),
        *("simplecache::s3://b/x", "filecache://x", "s3://b/x::zip://y", "file:///x::memory://y"),
        *("file://models/x", "file://./x", "file://~/x", "file://localhostx/y", "file:x", "file:/x", "file://"),
    ],
)
def test_place_that_others_cannot_read_is_refused(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage in memory, in an archive, read-only, chained or at a relative path is a wrong setting."""
    monkeypatch.setenv("STORAGE_URL", place)
    with pytest.raises(SettingError, match=r"^STORAGE_URL \(set by the environment\): expected .*, found "):
        read_settings()
    with pytest.raises(SettingError, match=r"^the storage: expected .*, found "):
        open_storage(place)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("KEEP_RUNS", value) for value in ("", "0", "-1", "ten", "1.5", "１")),
        *(("DATA_TIMEOUT", value) for value in ("", "0", "nan", "inf", "1e9", "-3", "x")),
        *(("RETRY_DELAY", value) for value in ("", "-1", "soon", "99999999")),
        *(("BATCH_BYTES", value) for value in ("", "0", "4k", "1000000000")),
        *(("WORKERS", value) for value in ("", "-1", "all", "1025", "40000", "999999999")),
        *(("DASK_SCHEDULER", value) for value in ("host", "host:8786", "tcp://host", "tcp://u:p@host:1", "tcp://h:x")),
        *(("DATA_URL", value) for value in ("", "  ")),
    ],
)
def test_wrong_value_names_variable_and_origin(
    name: str, value: str, env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error about a value names the variable, where it was set, and what was expected and found."""
    env_file.write_text(f"{name}='{value}'\n" if value else name, encoding="utf-8")
    with pytest.raises(SettingError, match=rf"^{name} \(set by .*\.env\): expected .* found"):
        read_settings()
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingError, match=rf"^{name} \(set by the environment\): expected .* found"):
        read_settings()


@pytest.mark.parametrize("empty", ["", "  ", "\r"])
def test_empty_variable_does_not_hide_a_line_of_the_file(
    empty: str, env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty variable leaves each setting, and each variable of a cloud's library, as .env has it."""
    env_file.write_text("".join(f"{name}=7\n" for name in [*settings.DEFAULTS, "AWS_PROFILE"]), encoding="utf-8")
    for name in settings.DEFAULTS:
        monkeypatch.setenv(name, empty)
    assert {value.text for value in settings.read_values().values()} == {"7"}
    assert settings.etl_python(settings.read_values()) == "7"

    monkeypatch.setenv("AWS_PROFILE", "")
    envfile.export()
    assert os.environ["AWS_PROFILE"] == "7"
    env_file.write_text("AWS_REGION=\nAWS_PROFILE=8\n", encoding="utf-8")
    envfile.export()
    assert os.environ["AWS_PROFILE"] == "7"
    assert "AWS_REGION" not in os.environ


@pytest.mark.parametrize(
    "content",
    [
        *(b"DATA_URL='unclosed\n", b"\xff\xfe", b"KEEP_RUNS='3' x\n", b'"DATA_URL"=a.csv\n', b"DATA_URL=a\0b\n"),
        "DATA_URL=a.csv\n".encode("utf-16-le"),
    ],
)
def test_unreadable_env_file_is_an_error(env_file: Path, content: bytes) -> None:
    """An unreadable .env is an error instead of a run on the embedded data."""
    env_file.write_bytes(content)
    with pytest.raises(SettingError, match=r"\.env"):
        read_settings()
