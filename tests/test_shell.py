"""run_pipeline.sh: its output, its choice of interpreter, its errors."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Project
from misbehaving import serve


def fake(folder: Path, name: str, script: str) -> Path:
    """Write an executable shell script."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_success_prints_the_results(project: Project) -> None:
    """Stdout has the folder, the log and the four metrics; with ETL_PYTHON set, nothing is installed."""
    done = project.run(["sh", "run_pipeline.sh"])
    lines = done.stdout.splitlines()

    assert done.returncode == 0
    assert lines[0] == f"Results: {project.runs()[0]}"
    assert Path(lines[1].split(maxsplit=1)[1]).is_file()
    *metrics, verdict = lines[2:]
    assert [line.split(":")[0].strip() for line in metrics] == ["accuracy", "precision", "recall", "f1_score"]
    assert all(0.9 < float(line.split(":")[1]) <= 1 for line in metrics)
    assert verdict == "Verdict: first: no run is in use yet"
    assert not (project.root / ".venv").exists()


def test_failed_step_ends_the_pipeline(project: Project) -> None:
    """The pipeline ends with the exit code of the failed step; later steps do not start."""
    (project.root / "one class.csv").write_text("1,M,1\n2,M,2\n", encoding="utf-8")
    done = project.pipeline(DATA_URL="one class.csv")

    assert done.returncode == 65
    assert done.stdout == ""
    assert "[train]" not in done.stderr


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.parametrize("name", ["a:b'c $d \"e", "-x*[a]\\n%s\t`id`;#&|<>!~", "line\nbreak"])
def test_odd_path_of_the_project(make_project: Callable[[str], Project], name: str) -> None:
    """Whatever the project's folder is called, a failed load is tried again, and the results are printed."""
    project = make_project(name)
    with serve() as source:
        done = project.pipeline(DATA_URL=f"http://127.0.0.1:{source.server_port}/second_time_good", RETRY_DELAY="0")

    assert done.returncode == 0, done.stderr
    assert "run_pipeline.sh: retrying data_loader in 0 s\n" in done.stderr
    assert done.stdout.startswith(f"Results: {project.runs()[0]}\nLog:     {project.root}/logs/log_")
    assert "\n  accuracy: 0.99" in done.stdout
    assert len(project.runs()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        *("ETL_PYTHON={}", "export ETL_PYTHON = '{}'  # ours", 'ETL_PYTHON="{}"', "\tETL_PYTHON={}\r"),
        *("ETL_PYTHON=/none\nETL_PYTHON={}", "\ufeffETL_PYTHON={}", "'ETL_PYTHON'=${{HOME}}/my python/python"),
    ],
)
def test_interpreter_named_in_env_file(project: Project, line: str) -> None:
    """ETL_PYTHON may also be set in .env, and its path may contain blanks."""
    python = fake(
        project.root / "my python", "python", f'echo used >> "{project.root}/used"; exec "{sys.executable}" "$@"'
    )
    (project.root / ".env").write_text(line.format(python) + "\n", encoding="utf-8")
    done = project.pipeline(ETL_PYTHON="")

    assert done.returncode == 0, done.stderr
    assert (project.root / "used").exists()


@pytest.mark.parametrize("python", ["/nonexistent/python", "false", "true"])
def test_unusable_interpreter(project: Project, python: str) -> None:
    """An ETL_PYTHON that is not a Python is a wrong setting, reported in one line."""
    done = project.pipeline(ETL_PYTHON=python)

    assert done.returncode == 78
    expected = f"expected Python 3.11 or newer, found none at {python}; correct it, or leave it empty"
    assert done.stderr == f"run_pipeline.sh: ETL_PYTHON: {expected}\n"


def path_without_python(project: Project) -> str:
    """Return a PATH with the commands that the script calls, without Python and uv."""
    tools = project.root / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "basename", "sed", "cmp", "cp", "rm", "date", "uname", "sleep", "tr", "readlink"):
        found = next(path for folder in os.environ["PATH"].split(":") if (path := Path(folder) / name).exists())
        (tools / name).symlink_to(found)
    return str(tools)


@pytest.mark.parametrize(
    ("address", "lock"),
    [
        ("file:///srv/models", "etl"),
        ("S3://bucket/x", "s3"),
        ("gcs://bucket/x", "gs"),
        ("az://c@account.blob.core.windows.net/x", "azure"),
    ],
)
def test_lock_of_the_cloud(project: Project, address: str, lock: str) -> None:
    """The packages that are installed are those of the cloud that STORAGE_URL names."""
    for name in ("s3", "gs", "azure"):
        shutil.copy(ROOT / f"requirements-{name}.txt", project.root)
    fake(project.root / "tools", "uv", "exit 1")
    done = project.pipeline(PATH=f"{project.root}/tools:{os.environ['PATH']}", ETL_PYTHON="", STORAGE_URL=address)

    assert done.returncode == 71
    assert done.stderr.startswith(f"run_pipeline.sh: installing requirements-{lock}.txt into .venv; ")


def test_locks_of_two_clouds() -> None:
    """Settings that name two clouds need both locks, each once."""
    done = subprocess.run(
        [sys.executable, "-c", "import ask; print(ask.locks(['gs://a', 'abfs://b', 'GCS://c', '/d', '']))"],
        cwd=ROOT / "bin",
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "['requirements-azure.txt', 'requirements-gs.txt']\n"


def test_two_locks_in_one_environment(project: Project) -> None:
    """Both locks are installed at once, and again only if one of them has changed."""
    locks = [project.root / f"requirements-{name}.txt" for name in ("gs", "azure")]
    for lock in locks:
        lock.write_text("", encoding="utf-8")
    tools = project.root / "tools"
    fake(
        tools,
        "uv",
        f'[ "$1" = venv ] && mkdir -p "${{@: -1}}/bin" && ln -s "{sys.executable}" "${{@: -1}}/bin/python"'
        f'; echo "$*" >> "{project.root}/uv"',
    )
    (tools / "uv").write_text((tools / "uv").read_text().replace("#!/bin/sh", "#!/bin/bash"))
    code = f'ROOT={project.root.as_posix()!r}; . "$ROOT/bin/environment.sh"; make_environment "$ROOT/.venv" "$@"'
    command = ["sh", "-euc", code, "sh", *map(str, locks)]

    def installed() -> list[str]:
        done = project.run(command, PATH=f"{tools}:{os.environ['PATH']}")
        assert done.returncode == 0, done.stderr
        return [line for line in (project.root / "uv").read_text().splitlines() if line.startswith("pip")]

    assert len(installed()) == 1
    assert installed()[0].endswith(f"-r {locks[0]} -r {locks[1]}")
    locks[1].write_text("# changed", encoding="utf-8")
    assert len(installed()) == 2
    assert len(installed()) == 2


def test_python_that_is_too_old(project: Project) -> None:
    """Without Python 3.11 or newer, one line names the version found."""
    path = path_without_python(project)
    fake(Path(path), "python3", 'case "$1" in --version) echo "Python 3.9.2" ;; *) exit 1 ;; esac')
    done = project.pipeline(PATH=path, ETL_PYTHON="")

    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr.startswith("run_pipeline.sh: expected Python 3.11 or newer as python3, found Python 3.9.2; ")
    assert len(done.stderr.splitlines()) == 1


def test_python_without_venv(project: Project) -> None:
    """If Python has no venv module, one line says what to install."""
    path = path_without_python(project)
    fake(Path(path), "python3", f'case "$*" in *ensurepip*) exit 1 ;; *) exec "{sys.executable}" "$@" ;; esac')
    done = project.pipeline(PATH=path, ETL_PYTHON="")

    assert done.returncode == 78
    assert "has no venv module" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_colon_in_the_path_of_the_environment(make_project: Callable[[str], Project]) -> None:
    """Where Python's venv module would refuse the project's path, one line says why."""
    project = make_project("a:b")
    path = path_without_python(Project(project.root.parent))
    (Path(path) / "python3").symlink_to(os.path.realpath(sys.executable))
    done = project.pipeline(PATH=path, ETL_PYTHON="")

    assert done.returncode == 78
    assert "expected a path without a colon" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_no_package_index(project: Project) -> None:
    """Without a package index, the exit code is 75 and pip's output is in a file; the next run tries again."""
    path = path_without_python(project)
    (Path(path) / "python3").symlink_to(os.path.realpath(sys.executable))
    for _ in range(2):
        done = project.pipeline(PATH=path, ETL_PYTHON="", PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)
        assert done.returncode == 75
        assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["run_pipeline.sh"] * 2
        assert "no package index" in done.stderr
    assert "No matching distribution" in (project.root / ".venv.log").read_text(encoding="utf-8")


def test_arguments_are_a_usage_error(project: Project) -> None:
    """An argument of run_pipeline.sh is a usage error."""
    done = project.run(["sh", str(project.root / "run_pipeline.sh"), "data.csv"])

    assert done.returncode == 64
    assert "expected no arguments" in done.stderr
