"""Publishing to disks, verifying published runs, and their history."""

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import joblib
import pytest
from conftest import ARTIFACTS, ROOT, Completed, Project, RunUpTo, copy_project, copy_runs, is_verified, kill_and_resume


def runs_py(project: Project, *arguments: str, **settings: str) -> Completed:
    """Run runs.py."""
    return project.step("runs", *arguments, **settings)


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            "s3://AKtest:Zq7Secret@bucket/x",
            "s3:///AK:Zq7Secret@b/x",
            "abfs://c:Zq7Secret@a/x",
            "AK:Zq7Secret@bucket/x",
        ),
        *("s3://bucket/x?key=Zq7Secret", "s3://"),
    ],
)
def test_url_with_credentials_is_refused(project: Project, wrong: str) -> None:
    """A storage URL with credentials is refused before any work and never shown."""
    done = project.step("data_loader", STORAGE_URL=wrong)

    assert done.returncode == 78
    assert "STORAGE_URL (set by the environment): expected a URL like s3://bucket/prefix" in done.stderr
    refused = [runs_py(project, name, wrong) for name in ("verify", "list")] if "://" in wrong else []
    assert [each.returncode for each in refused] == [78] * len(refused)
    assert "Zq7Secret" not in "".join([done.stderr, *(each.stdout + each.stderr for each in refused)])


def test_killed_publication_to_a_disk_is_resumed(project: Project, run_up_to: RunUpTo) -> None:
    """However often publishing is killed, readers never see half a run, and the next try finishes it."""
    kill_and_resume(project, run_up_to("evaluate"), f"file://{project.root}/a store", {})


@pytest.fixture(scope="module")
def project_with_published_runs(tmp_path_factory: pytest.TempPathFactory, compiled_project: Path) -> Project:
    """Publish two runs to a folder of a project that serves as a model for others."""
    project = copy_project(tmp_path_factory.mktemp("published") / "project", compiled_project)
    place = f"file://{project.root}/a store"
    project.chain(STORAGE_URL=place)
    project.chain(STORAGE_URL=place, DATA_URL=str(project.root / "data" / "wdbc.csv"))
    return project


@pytest.fixture
def published(project: Project, project_with_published_runs: Project) -> Path:
    """Give the project two runs that are published to a folder, and return the folder."""
    copy_runs(project_with_published_runs.root, project.root)
    return shutil.copytree(project_with_published_runs.root / "a store", project.root / "a store")


def change(path: Path, **values: Any) -> None:
    """Replace values in a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_bytes()) | values), encoding="utf-8")


def record(run: Path, name: str) -> None:
    """Record a changed file in the manifest, as a forger would."""
    from steplib.runs.manifest import sha256

    manifest = json.loads((run / "manifest.json").read_bytes())
    manifest["artifacts"][name] |= {"sha256": sha256(run / name), "bytes": (run / name).stat().st_size}
    change(run / "manifest.json", **manifest)


@pytest.mark.parametrize("name", [*sorted(ARTIFACTS), "log", "manifest.json", "latest.json"])
def test_one_byte_is_enough(project: Project, published: Path, name: str) -> None:
    """If one byte of any file is changed, runs.py verify names the file."""
    latest = json.loads((published / "latest.json").read_bytes())
    run = published / "runs" / latest["run"]
    path = published / name if name == "latest.json" else run / (f"log_{run.name}.log" if name == "log" else name)
    content = bytearray(path.read_bytes())
    spot = content.index(b"0.99") + 3 if name.endswith(".json") else len(content) // 2
    content[spot] ^= 1
    path.write_bytes(content)
    done = runs_py(project, "verify", f"file://{published}/latest.json")

    assert not is_verified(done)
    assert done.stderr.startswith(f"runs.py: {path.name}: expected what was written")


@pytest.mark.slow
def test_forged_manifest_does_not_help(project: Project, published: Path) -> None:
    """A forged metric, prediction or model is found and named even if the manifest records its hash."""
    run = min((published / "runs").iterdir())
    original = shutil.copytree(run, run.parent / "original")

    def verified_after(name: str) -> Completed:
        record(run, name)
        done = runs_py(project, "verify", f"file://{run}")
        shutil.rmtree(run)
        shutil.copytree(original, run)
        return done

    change(run / "evaluation.json", recall=0.5)
    assert (
        "metrics, computed again: expected what was written, found a different recall"
        in verified_after("evaluation.json").stderr
    )
    rows = (run / "predictions.csv").read_text(encoding="utf-8").splitlines()
    row = rows[1].split(",")
    rows[1] = ",".join([*row[:2], str(1 - int(row[2])), row[3]])
    (run / "predictions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert "found a different y_pred in row 1" in verified_after("predictions.csv").stderr
    model = joblib.load(run / "model.pkl")
    model[-1].coef_ = model[-1].coef_ * 0.5
    joblib.dump(model, run / "model.pkl")
    assert "predictions, made again: expected" in verified_after("model.pkl").stderr
    joblib.dump(model[-1], run / "model.pkl")
    assert "model.pkl: expected what was written, found a model that cannot score" in verified_after("model.pkl").stderr
    (run / "model.pkl").write_bytes(b"no pickle")
    assert "model.pkl: expected what was written, found a model that cannot score" in verified_after("model.pkl").stderr
    (run / "evaluation.json").write_text("3", encoding="utf-8")
    assert "evaluation.json: expected what was written, found no metrics" in verified_after("evaluation.json").stderr
    for text in ("", "id\n1\n", "id,y_true,fold,probability\n1,7,0,0.5\n", "id,y_true,fold,probability\n1,0,0\n"):
        (run / "cross_validation.csv").write_text(text, encoding="utf-8")
        expected = "runs.py: cross_validation.csv: expected rows of id,y_true,fold,probability, found something else"
        assert verified_after("cross_validation.csv").stderr.startswith(expected)
    (run / "predictions.csv").write_text("", encoding="utf-8")
    assert "found a different number of rows or columns in row 0" in verified_after("predictions.csv").stderr
    (run / "predictions.csv").write_bytes(b"id,y_true,y_pred,probability\n\xff\n")
    assert "found a file that is not a table" in verified_after("predictions.csv").stderr
    assert is_verified(runs_py(project, "verify", f"file://{run}"))


@pytest.mark.parametrize(
    "forged", [{"run": "2001_01_01_00_00_00"}, {"artifacts": {"../../x": {}}}, {"run": 3}, {"steps": 3}]
)
def test_foreign_manifest_is_refused(published: Path, project: Project, forged: dict[str, Any]) -> None:
    """A manifest of a different run, or one that no step wrote, is refused."""
    run = min((published / "runs").iterdir())
    change(run / "manifest.json", **forged)
    done = runs_py(project, "verify", f"file://{run}")

    assert not is_verified(done)
    assert "manifest" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("field", ["started", "manifest", "metrics"])
def test_forged_latest_is_refused(published: Path, project: Project, field: str) -> None:
    """A field of latest.json that differs from the run is named."""
    change(published / "latest.json", **{field: "runs/other"})
    done = runs_py(project, "verify", f"file://{published}/latest.json")

    assert not is_verified(done)
    assert done.stderr.startswith(f"runs.py: latest.json: expected what was written, found a different {field}")


def test_wrong_argument_of_verify(project: Project) -> None:
    """An argument that does not name a run is a usage error in one line."""
    for arguments in ([], ["2026_01_01_00_00_00"], ["/nowhere"], ["a", "b"], ["--fast"]):
        done = runs_py(project, "verify", *arguments)
        assert done.returncode == 64
        assert done.stderr.startswith("runs.py: ")
        assert len(done.stderr.splitlines()) == 1
    assert runs_py(project, "verify", "file:///nowhere/latest.json").returncode == 65


@pytest.mark.parametrize("command", [[], ["list"], ["verify"], ["rollback"]])
def test_help_of_runs(project: Project, command: list[str]) -> None:
    """Each command has its --help, and without a command the usage is wrong."""
    done = runs_py(project, *command, "--help")

    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: runs.py {' '.join(command)}".rstrip())
    assert done.stderr == ""
    assert runs_py(project).returncode == 64


def test_history(project: Project, published: Path) -> None:
    """Local and published runs are listed newest first with their outcome, and the page needs no other file."""
    (project.root / "secret.csv").write_text("Zq7patient,M,1\nZq7patient,X,2\n", encoding="utf-8")
    assert project.pipeline(DATA_URL="secret.csv").returncode == 65
    local = runs_py(project, "list")
    page = (project.root / "results" / "history.html").read_text(encoding="utf-8")
    remote = runs_py(project, "list", f"file://{published}")

    lines = local.stdout.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == [run.name for run in reversed(project.runs())]
    assert lines[1].split()[-4:] == ["transform:", "failed", "with", "65"]
    assert lines[2].split()[-2:] == ["done", "latest"]
    assert re.findall(r"0\.\d{4}|1\.0000", lines[2]) == ["0.9919", "0.9762", "1.0000", "0.9880", "0.9994", "0.0209"]
    assert len(remote.stdout.splitlines()) == 9
    assert all(run.name in page for run in project.runs())
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert "Zq7patient" not in local.stdout + page


def test_documented_reader_and_roll_back(project: Project, published: Path) -> None:
    """The documented code loads the latest model, and the documented command rolls back to an older run."""
    page = (ROOT / "docs" / "storage.md").read_text(encoding="utf-8")
    (reader,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "s3://" in code)
    page = (ROOT / "docs" / "gate.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^\.venv/bin/python etl/runs\.py (rollback s3.*)$", page, re.MULTILINE)
    older, newer = (run.name for run in project.runs())

    def documented(text: str) -> str:
        return text.replace("s3://bucket/prefix", f"file://{published}").replace("2026_11_22_21_36_36", older)

    def latest() -> str:
        done = project.run([sys.executable, "-c", documented(reader) + "\nprint(latest['run'])"])
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    name, url, stamp = command.split()
    assert latest() == newer
    assert runs_py(project, name, documented(url), documented(stamp)).returncode == 0
    assert latest() == older
    assert runs_py(project, name, newer, documented(url)).returncode == 0
    assert latest() == newer
    assert runs_py(project, name, documented(url), "2001_01_01_00_00_00").returncode == 64
    assert runs_py(project, name, documented(url), "newest").returncode == 64
    assert is_verified(runs_py(project, "verify", f"file://{published}/latest.json"))


def test_roll_back_to_a_run_that_lost_a_file(project: Project, published: Path) -> None:
    """A run with a missing or shortened file is refused, and latest.json stays as it is."""
    older = min((published / "runs").iterdir())
    before = (published / "latest.json").read_bytes()
    for change_file in (lambda path: path.write_bytes(path.read_bytes()[:-1]), Path.unlink):
        change_file(older / "model.pkl")
        done = runs_py(project, "rollback", f"file://{published}", older.name)
        assert done.returncode == 65
        assert (
            f"expected the file model.pkl of run {older.name}, found none or one of a different size; " in done.stderr
        )
        assert (published / "latest.json").read_bytes() == before


def test_place_without_runs(project: Project, published: Path) -> None:
    """A place without latest.json, or without the run that it names, is named as such."""
    latest = json.loads((published / "latest.json").read_bytes())
    shutil.rmtree(published / "runs" / latest["run"])
    gone = runs_py(project, "verify", f"file://{published}/latest.json")
    (published / "latest.json").unlink()
    none = runs_py(project, "verify", f"file://{published}/latest.json")

    assert (gone.returncode, none.returncode) == (65, 65)
    assert f"there is no published run with manifest.json at {published}/runs/{latest['run']}" in gone.stderr
    assert "there is no latest.json, because no run has been published" in none.stderr


@pytest.mark.slow
def test_unusable_place(project: Project, run_up_to: RunUpTo) -> None:
    """A place without its package or with a wrong port is a wrong setting, an unusable folder exit 74."""
    log = run_up_to("evaluate")
    for place, code in (("smb://host/share", 78), ("ftp://h:abc/x", 78), ("FILE:///proc/nowhere", 74)):
        assert project.step("evaluate", log, STORAGE_URL=place).returncode == code
    (project.runs()[0] / "raw_data.csv").unlink()
    gone = project.step("evaluate", log, STORAGE_URL=f"file://{project.root.parent}/storage")
    assert gone.returncode == 65
    assert "raw_data.csv: expected what the manifest records, found no file" in gone.stderr
