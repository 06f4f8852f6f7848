"""Publishing to a real object store and to disks, verifying published runs, and their history."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import pytest
from conftest import ROOT, STEPS, Completed, Project, RunUpTo, copy_project, copy_runs, wdbc_rows
from object_store import ADMIN, READER, ObjectStore, store

__all__ = ["store"]
ARTIFACTS = {"raw_data.csv", "clear_data.csv", "model.pkl", "evaluation.json", "predictions.csv"}
# One more attempt instead of four: the pauses between them grow up to eight seconds.
FEWER_ATTEMPTS = ('"total_max_attempts": 5', '"total_max_attempts": 2')


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """Return a separate place for each test."""
    return "s3://bucket/" + re.sub(r"\W", "_", request.node.name)


def runs_py(project: Project, *arguments: str, **settings: str) -> Completed:
    """Run runs.py."""
    return project.step("runs", *arguments, **settings)


def is_verified(done: Completed) -> bool:
    """Return whether runs.py verify found no difference."""
    assert done.returncode in {0, 65}, done.stderr
    return done.returncode == 0


def log_of(run: Path) -> str:
    """Return the path of a run's log."""
    return str(run.parents[2] / "logs" / f"log_{run.name}.log")


def large_csv(project: Project, megabytes: int) -> str:
    """Write a CSV of few rows and long ids."""
    path = project.root / "large.csv"
    copies = megabytes * 1_000_000 // (569 * 10_000)
    with path.open("w", encoding="utf-8") as file:
        for copy in range(copies):
            file.writelines(f"{copy:0>10000}{row}\n" for row in wdbc_rows())
    return str(path)


def test_published_run_is_whole_and_verified(project: Project, store: ObjectStore, url: str) -> None:
    """All results, the log and the manifest are published, latest.json names them, and runs.py verify confirms them."""
    log = project.chain(STORAGE_URL=url, **store.environment)
    (run,) = project.runs()
    files = store.files()
    latest = json.loads(files.cat_file(f"{url}/latest.json"))
    manifest = json.loads(files.cat_file(f"{url}/{latest['manifest']}"))

    names = {path.rpartition("/")[2] for path in files.ls(f"{url}/runs/{run.name}", detail=False)}
    assert names == {*ARTIFACTS, "manifest.json", f"log_{run.name}.log"}
    assert set(manifest["artifacts"]) == names - {"manifest.json"}
    assert latest["run"] == run.name
    assert latest["metrics"] == json.loads((run / "evaluation.json").read_bytes())
    assert files.cat_file(f"{url}/runs/{run.name}/model.pkl") == (run / "model.pkl").read_bytes()
    assert Path(log).read_text(encoding="utf-8").endswith(f"published: {url}/runs/{run.name}\n")
    for name in (f"{url}/latest.json", f"{url}/runs/{run.name}", run.name, str(run)):
        done = runs_py(project, "verify", name, **store.environment)
        assert is_verified(done), done.stderr
        assert "metrics, computed again          matches" in done.stdout


def written_at(store: ObjectStore, folder: str) -> dict[str, Any]:
    """Return the time at which each object of a folder was written."""
    return {found["name"]: found["LastModified"] for found in store.files().ls(folder, detail=True)}


def test_evaluating_again_publishes_nothing(project: Project, run_up_to: RunUpTo, store: ObjectStore, url: str) -> None:
    """Evaluating a published run again changes none of its objects."""
    log = run_up_to("evaluate")
    assert project.step("evaluate", log, STORAGE_URL=url, **store.environment).returncode == 0
    (run,) = project.runs()
    before = written_at(store, f"{url}/runs/{run.name}")
    time.sleep(1.1)
    done = project.step("evaluate", log, STORAGE_URL=url, **store.environment)

    assert done.returncode == 0, done.stderr
    assert written_at(store, f"{url}/runs/{run.name}") == before


def test_different_content_under_the_same_name_is_an_error(
    project: Project, run_up_to: RunUpTo, store: ObjectStore, url: str
) -> None:
    """An existing object of a run is never replaced, and the error names it."""
    log = run_up_to("evaluate")
    (run,) = project.runs()
    store.files().pipe_file(f"{url}/runs/{run.name}/model.pkl", b"another")
    done = project.step("evaluate", log, STORAGE_URL=url, **store.environment)

    assert done.returncode == 74
    assert "model.pkl: expected the content of" in done.stderr
    assert store.files().cat_file(f"{url}/runs/{run.name}/model.pkl") == b"another"
    assert not store.files().exists(f"{url}/latest.json")


def test_store_that_is_down(project: Project, run_up_to: RunUpTo, store: ObjectStore, url: str) -> None:
    """If the store is down, the exit code is 75, the local results stay, and evaluate publishes the run later."""
    project.shorten_wait(*FEWER_ATTEMPTS)
    log = run_up_to("evaluate")
    down = store.environment | {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    failed = project.step("evaluate", log, STORAGE_URL=url, **down)

    assert failed.returncode == 75, failed.stderr
    assert failed.stdout == ""
    assert f"{url}: the storage did not answer" in failed.stderr
    assert set(project.artifacts()) == ARTIFACTS
    assert project.step("evaluate", log, STORAGE_URL=url, **store.environment).returncode == 0
    assert is_verified(runs_py(project, "verify", f"{url}/latest.json", **store.environment))


@pytest.mark.parametrize("place", ["s3", "file"])
def test_killed_publication_is_resumed(
    project: Project, run_up_to: RunUpTo, store: ObjectStore, url: str, place: str
) -> None:
    """However often publishing is killed, readers never see half a run, and the next try finishes it."""
    place = url if place == "s3" else f"file://{project.root}/a store"
    log = run_up_to("evaluate")
    environment = project.environment(STORAGE_URL=place, **store.environment)
    for pause in (0, 0.15, 0.3, 0.45):
        begun = Path(log).read_text(encoding="utf-8").count("publishing to")
        with subprocess.Popen([sys.executable, project.root / "etl" / "evaluate.py", log], env=environment) as process:
            wait_until(lambda begun=begun: Path(log).read_text(encoding="utf-8").count("publishing to") > begun)
            time.sleep(pause)
            process.kill()
        seen = runs_py(project, "verify", f"{place}/latest.json", **store.environment)
        assert is_verified(seen) or "there is no latest.json" in seen.stderr, seen.stderr

    assert project.step("evaluate", log, STORAGE_URL=place, **store.environment).returncode == 0
    assert is_verified(runs_py(project, "verify", f"{place}/latest.json", **store.environment))


def wait_until(happened: Callable[[], bool]) -> None:
    """Wait for at most a minute."""
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_store_that_goes_down_in_the_middle(project: Project, store: ObjectStore, url: str) -> None:
    """A store that stops during an upload leaves no partial run; evaluate, run again, finishes the publication."""
    project.shorten_wait(*FEWER_ATTEMPTS)
    log = project.chain(DATA_URL=large_csv(project, 80))
    (run,) = project.runs()
    environment = project.environment(STORAGE_URL=url, **store.environment)
    command = [sys.executable, str(project.root / "etl" / "evaluate.py"), log]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as publishing:
        wait_until(lambda: "publishing to" in Path(log).read_text(encoding="utf-8"))
        # The small objects are complete, the large ones being uploaded.
        wait_until(lambda: store.files().exists(f"{url}/runs/{run.name}/evaluation.json"))
        store.kill()
        publishing.communicate(timeout=110)
    store.start()

    assert publishing.returncode == 75
    assert not store.files().exists(f"{url}/latest.json")
    assert not store.files().exists(f"{url}/runs/{run.name}/manifest.json")
    assert project.step("evaluate", log, STORAGE_URL=url, **store.environment).returncode == 0
    assert is_verified(runs_py(project, "verify", f"{url}/latest.json", **store.environment))


@pytest.mark.parametrize(
    "fault", ["wrong keys", "wrong secret", "no right to write", "no keys", "no bucket", "bad endpoint"]
)
def test_refusal_is_a_wrong_setting_without_a_secret(
    project: Project, run_up_to: RunUpTo, store: ObjectStore, url: str, fault: str
) -> None:
    """A refusal is exit 78 and one line with the URL; the keys appear nowhere."""
    given = dict(store.environment)
    if fault == "wrong keys":
        given |= {"AWS_ACCESS_KEY_ID": "AKnone", "AWS_SECRET_ACCESS_KEY": ADMIN[1]}
    if fault == "wrong secret":
        given["AWS_SECRET_ACCESS_KEY"] = READER[1]
    if fault == "bad endpoint":
        given["AWS_ENDPOINT_URL"] = "127.0.0.1:1"
    if fault == "no right to write":
        given |= {"AWS_ACCESS_KEY_ID": READER[0], "AWS_SECRET_ACCESS_KEY": READER[1]}
    if fault == "no keys":
        del given["AWS_ACCESS_KEY_ID"], given["AWS_SECRET_ACCESS_KEY"]
    place = url.replace("bucket", "nobucket") if fault == "no bucket" else url
    log = run_up_to("evaluate")
    # The load step finds out too, before an hour of training.
    for done in (
        project.step("data_loader", STORAGE_URL=place, **given),
        project.step("evaluate", log, STORAGE_URL=place, **given),
    ):
        assert done.returncode == 78, done.stderr
        assert place in done.stderr.splitlines()[-1]
    everything = done.stderr + Path(log).read_text(encoding="utf-8")
    assert not re.search("Zq7|AKtest|AKreader|AKnone", everything)


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


def test_credentials_in_env_file(project: Project, store: ObjectStore, url: str) -> None:
    """The cloud's own variables may be set in .env."""
    lines = [f"{name}={value}\n" for name, value in (store.environment | {"STORAGE_URL": url}).items()]
    (project.root / ".env").write_text("".join(lines), encoding="utf-8")
    project.chain()

    assert is_verified(runs_py(project, "verify", f"{url}/latest.json"))


def test_reader_always_finds_a_whole_run(project: Project, run_up_to: RunUpTo, store: ObjectStore, url: str) -> None:
    """A reader who follows latest.json while runs are published always finds a complete and consistent run."""
    first = run_up_to("evaluate")
    logs = [project.run_steps(STEPS[:3]) for _ in range(10)]
    published = [project.step("evaluate", first, STORAGE_URL=url, **store.environment)]
    done = threading.Event()
    found: list[str] = []

    def read() -> None:
        files = store.files()
        while not done.is_set():
            found.append(read_latest(files, url))

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            published += [project.step("evaluate", log, STORAGE_URL=url, **store.environment) for log in logs]
        finally:
            done.set()
    reader.result()

    assert [step.returncode for step in published] == [0] * 11
    assert len(set(found)) >= 10
    assert len(found) >= 100
    assert is_verified(runs_py(project, "verify", f"{url}/latest.json", **store.environment))


def read_latest(files: Any, url: str) -> str:
    """Follow latest.json to a run, compare every object with its recorded hash, and return the run's name."""
    latest = json.loads(files.cat_file(f"{url}/latest.json"))
    content = files.cat_file(f"{url}/{latest['manifest']}")
    assert hashlib.sha256(content).hexdigest() == latest["manifest_sha256"]
    artifacts = json.loads(content)["artifacts"]
    assert set(artifacts) > ARTIFACTS
    for name, recorded in artifacts.items():
        assert hashlib.sha256(files.cat_file(f"{url}/runs/{latest['run']}/{name}")).hexdigest() == recorded["sha256"]
    return str(latest["run"])


def test_two_runs_at_once(project: Project, run_up_to: RunUpTo, store: ObjectStore, url: str) -> None:
    """Both runs are complete, and latest.json names the one that started later, whichever ends last."""
    logs = [run_up_to("evaluate"), project.chain()]
    environment = project.environment(STORAGE_URL=url, **store.environment)
    publishing = [
        subprocess.Popen(
            [sys.executable, str(project.root / "etl" / "evaluate.py"), log],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for log in reversed(logs)
    ]
    assert [process.wait(60) for process in publishing] == [0, 0]
    project.step("evaluate", logs[0], STORAGE_URL=url, **store.environment)

    assert json.loads(store.files().cat_file(f"{url}/latest.json"))["run"] == project.runs()[1].name
    for run in project.runs():
        assert is_verified(runs_py(project, "verify", f"{url}/runs/{run.name}", **store.environment))


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
    assert re.findall(r"0\.\d{4}|1\.0000", lines[2]) == ["0.9919", "0.9762", "1.0000", "0.9880", "0.9994"]
    assert len(remote.stdout.splitlines()) == 9
    assert all(run.name in page for run in project.runs())
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)
    assert "Zq7patient" not in local.stdout + page


def test_documented_reader_and_roll_back(project: Project, published: Path) -> None:
    """The documented code loads the latest model, and the documented command rolls back to an older run."""
    page = (ROOT / "docs" / "storage.md").read_text(encoding="utf-8")
    (reader,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "s3://" in code)
    (command,) = re.findall(r"^\.venv/bin/python etl/runs\.py (rollback .*)$", page, re.MULTILINE)
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
