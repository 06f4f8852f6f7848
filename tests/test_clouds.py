"""Publishing to each of the three clouds, as servers on loopback."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import ARTIFACTS, STEPS, Project, RunUpTo, is_verified, kill_and_resume, wait_until, wdbc_rows
from object_store import SECRETS, FakeGoogle, ObjectStore, store

__all__ = ["store"]
ONE_LINE = re.compile(r"(\[[^]]*\]){3}: \[\w+\]: .*|runs\.py: .*")


@pytest.fixture
def url(request: pytest.FixtureRequest, store: ObjectStore) -> str:
    """Return a separate place for each test."""
    return f"{store.scheme}://bucket/" + re.sub(r"\W", "_", request.node.name)


@pytest.fixture
def hasty(tmp_path: Path) -> dict[str, str]:
    """Return a PYTHONPATH with which no client pauses between its tries; the pauses take up to 80 s."""
    code = (
        "import asyncio, time\n"
        "asleep, sleep = asyncio.sleep, time.sleep\n"
        "asyncio.sleep = lambda delay, result=None: asleep(min(delay, 0.05), result)\n"
        "time.sleep = lambda delay: sleep(min(delay, 0.05))\n"
    )
    (tmp_path / "sitecustomize.py").write_text(code, encoding="utf-8")
    return {"PYTHONPATH": str(tmp_path)}


def run_in_storage(project: Project, code: str, *arguments: str, **settings: str) -> str:
    """Run code that uses steplib.storage in a separate process, and return what it prints."""
    head = "import sys\nfrom pathlib import Path\nfrom steplib.storage import objects, places\n"
    settings = {"PYTHONPATH": str(project.root / "etl")} | settings
    done = project.run([sys.executable, "-c", head + code, *arguments], **settings)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


def latest_in(store: ObjectStore, url: str) -> dict[str, Any]:
    """Return latest.json."""
    return dict(json.loads(store.files().cat_file(f"{url}/latest.json")))


def large_csv(project: Project, megabytes: int) -> str:
    """Write a CSV of few rows and long ids."""
    path = project.root / "large.csv"
    copies = megabytes * 1_000_000 // (569 * 10_000)
    with path.open("w", encoding="utf-8") as file:
        for copy in range(copies):
            file.writelines(f"{copy:0>10000}{row}\n" for row in wdbc_rows())
    return str(path)


def test_published_run_is_whole_and_verified(project: Project, store: ObjectStore, url: str) -> None:
    """All results, the log and the manifest are published, latest.json names them, and runs.py confirms them."""
    log = project.chain(STORAGE_URL=url, **store.environment)
    (run,) = project.runs()
    files, latest = store.files(), latest_in(store, url)
    manifest = json.loads(files.cat_file(f"{url}/{latest['manifest']}"))

    names = {path.rpartition("/")[2] for path in files.ls(f"{url}/runs/{run.name}", detail=False)}
    assert names == {*ARTIFACTS, "report.html", "manifest.json", f"log_{run.name}.log"}
    assert set(manifest["artifacts"]) == names - {"manifest.json"}
    assert latest["run"] == run.name
    assert latest["metrics"] == json.loads((run / "evaluation.json").read_bytes())
    assert files.cat_file(f"{url}/runs/{run.name}/model.pkl") == (run / "model.pkl").read_bytes()
    assert Path(log).read_text(encoding="utf-8").endswith(f"published: {url}/runs/{run.name}\n")
    for name in (f"{url}/latest.json", f"{url}/runs/{run.name}"):
        done = project.step("runs", "verify", name, **store.environment)
        assert is_verified(done), done.stderr
        assert "metrics, computed again          matches" in done.stdout
    listed = project.step("runs", "list", url, **store.environment)
    assert re.search(rf"^{run.name} .* done latest$", listed.stdout, re.MULTILINE), listed.stderr


def test_new_cases_are_scored_by_the_model_in_the_storage(
    project: Project, run_up_to: RunUpTo, store: ObjectStore, url: str
) -> None:
    """Without the run's files on this disk, its model is fetched and checked; source and output may be objects too."""
    log, files = run_up_to("evaluate"), store.files()
    settings = {"STORAGE_URL": url, **store.environment}
    assert project.step("evaluate", log, **settings).returncode == 0
    (run,) = project.runs()
    written, model = (run / "predictions.csv").read_text(encoding="utf-8").splitlines()[1:], run / "model.pkl"
    content = model.read_bytes()
    shutil.rmtree(project.root / "results")
    files.pipe_file(f"{url}/cases.csv", "\n".join([*wdbc_rows(), ""]).encode())

    done = project.step("predict", f"{url}/cases.csv", "--publish", **settings)

    assert done.returncode == 0, done.stderr
    scored = {line.split(",")[0]: line for line in Path(done.stdout.strip()).read_text(encoding="utf-8").splitlines()}
    assert all(scored[line.split(",")[0]].split(",")[1:] == line.split(",")[2:] for line in written)
    (folder,) = files.ls(f"{url}/predictions", detail=False)
    names = {path.rpartition("/")[2] for path in files.ls(folder, detail=False)}
    assert names == {"cases.csv", "cases.csv.json"}
    assert files.cat_file(f"{folder}/cases.csv") == Path(done.stdout.strip()).read_bytes()

    files.pipe_file(f"{url}/runs/{run.name}/model.pkl", content[:-1] + b"x")
    refused = project.step("predict", f"{url}/cases.csv", **settings)
    assert (refused.returncode, refused.stdout) == (65, ""), refused.stderr
    assert "expected what its manifest records, found different content (sha256)" in refused.stderr


def written_at(store: ObjectStore, folder: str) -> dict[str, Any]:
    """Return the time at which each object of a folder was written."""
    names = ("LastModified", "last_modified", "updated")
    found = store.files().ls(folder, detail=True)
    return {each["name"]: next(each[name] for name in names if name in each) for each in found}


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


@pytest.mark.parametrize("size", ["another size", "the same size"])
def test_different_content_under_the_same_name_is_an_error(
    project: Project, run_up_to: RunUpTo, store: ObjectStore, url: str, size: str
) -> None:
    """An existing object of a run is never replaced, and the error names it."""
    log = run_up_to("evaluate")
    (run,) = project.runs()
    other = b"another" if size == "another size" else bytes((run / "model.pkl").stat().st_size)
    store.files().pipe_file(f"{url}/runs/{run.name}/model.pkl", other)
    done = project.step("evaluate", log, STORAGE_URL=url, **store.environment)

    assert done.returncode == 74
    assert "model.pkl: expected the content of" in done.stderr
    assert store.files().cat_file(f"{url}/runs/{run.name}/model.pkl") == other
    assert not store.files().exists(f"{url}/latest.json")


def test_object_that_is_gone_is_sent_again(project: Project, run_up_to: RunUpTo, store: ObjectStore, url: str) -> None:
    """A published run that has lost an object does not pass; publishing it again heals it."""
    log = run_up_to("evaluate")
    (run,) = project.runs()
    assert project.step("evaluate", log, STORAGE_URL=url, **store.environment).returncode == 0
    store.files().rm_file(f"{url}/runs/{run.name}/model.pkl")

    assert not is_verified(project.step("runs", "verify", f"{url}/latest.json", **store.environment))
    assert project.step("evaluate", log, STORAGE_URL=url, **store.environment).returncode == 0
    assert is_verified(project.step("runs", "verify", f"{url}/latest.json", **store.environment))


def test_store_that_is_down(
    project: Project, run_up_to: RunUpTo, store: ObjectStore, url: str, hasty: dict[str, str]
) -> None:
    """If the store is down, the exit code is 75, the local results stay, and evaluate publishes the run later."""
    log = run_up_to("evaluate")
    failed = project.step("evaluate", log, STORAGE_URL=url, **store.down, **hasty)

    assert failed.returncode == 75, failed.stderr
    assert failed.stdout == ""
    assert f"{url}: the storage did not answer" in failed.stderr
    assert all(ONE_LINE.fullmatch(line) for line in failed.stderr.splitlines()), failed.stderr
    assert set(project.artifacts()) == ARTIFACTS
    assert project.step("evaluate", log, STORAGE_URL=url, **store.environment).returncode == 0
    assert is_verified(project.step("runs", "verify", f"{url}/latest.json", **store.environment))


def test_killed_publication_is_resumed(project: Project, run_up_to: RunUpTo, store: ObjectStore, url: str) -> None:
    """However often publishing is killed, readers never see half a run, and the next try finishes it."""
    kill_and_resume(project, run_up_to("evaluate"), url, store.environment)


@pytest.mark.slow
def test_store_that_goes_down_in_the_middle(
    project: Project, store: ObjectStore, url: str, hasty: dict[str, str]
) -> None:
    """A store that stops during an upload leaves no partial run; evaluate, run again, finishes the publication."""
    log = project.chain(DATA_URL=large_csv(project, 80))
    (run,) = project.runs()
    environment = project.environment(STORAGE_URL=url, **store.environment, **hasty)
    command = [sys.executable, str(project.root / "etl" / "evaluate.py"), log]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as publishing:
        wait_until(lambda: "publishing to" in Path(log).read_text(encoding="utf-8"))
        # The small objects are complete, the large ones being uploaded.
        wait_until(lambda: store.files().exists(f"{url}/runs/{run.name}/model.pkl"))
        store.kill()
        _, said = publishing.communicate(timeout=110)
    store.start()

    assert publishing.returncode == 75, said
    assert all(ONE_LINE.fullmatch(line) for line in said.decode().splitlines()), said.decode()
    assert not store.files().exists(f"{url}/latest.json")
    assert not store.files().exists(f"{url}/runs/{run.name}/manifest.json")
    assert project.step("evaluate", log, STORAGE_URL=url, **store.environment).returncode == 0
    assert is_verified(project.step("runs", "verify", f"{url}/latest.json", **store.environment))


@pytest.mark.slow
def test_refusal_is_a_wrong_setting_without_a_secret(
    project: Project, run_up_to: RunUpTo, store: ObjectStore, hasty: dict[str, str]
) -> None:
    """A refusal is exit 78 and one line with the URL; the keys appear nowhere."""
    log = run_up_to("evaluate")
    for fault, given in [*store.refused.items(), ("no bucket", store.environment)]:
        place = f"{store.scheme}://{'nobucket' if fault == 'no bucket' else 'bucket'}/refused"
        # The load step finds out too, before an hour of training.
        for step in (["data_loader"], ["evaluate", log]):
            done = project.step(*step, STORAGE_URL=place, **given, **hasty)
            assert done.returncode == 78, (fault, done.stderr)
            assert place in done.stderr.splitlines()[-1]
            assert all(ONE_LINE.fullmatch(line) for line in done.stderr.splitlines()), (fault, done.stderr)
            assert not re.search(SECRETS, done.stderr), fault
    logs = [path.read_text(encoding="utf-8") for path in project.root.glob("logs/*")]
    assert not re.search(SECRETS, "".join(logs))


@pytest.mark.parametrize("store", ["google"], indirect=True)
@pytest.mark.parametrize("case", ["unavailable", "busy"])
def test_google_that_is_busy(project: Project, store: FakeGoogle, url: str, case: str, hasty: dict[str, str]) -> None:
    """If a storage or the issuer of its tokens is unavailable, trying again may help."""
    given = store.through_proxy(case)
    if case == "busy":
        given["GOOGLE_APPLICATION_CREDENTIALS"] = store.key_file(case)
    done = project.step("data_loader", STORAGE_URL=url, **given, **hasty)

    assert done.returncode == 75, done.stderr
    assert f"{url}: the storage did not answer" in done.stderr
    assert all(ONE_LINE.fullmatch(line) for line in done.stderr.splitlines()), done.stderr


@pytest.mark.parametrize("store", ["azure", "google"], indirect=True)
def test_rights_to_objects_suffice(project: Project, run_up_to: RunUpTo, store: Any, url: str) -> None:
    """Whoever may list, read and write objects may publish, without the right to look up the bucket."""
    log = run_up_to("evaluate")
    done = project.step("evaluate", log, STORAGE_URL=url, **store.objects_alone)

    assert done.returncode == 0, done.stderr
    assert is_verified(project.step("runs", "verify", f"{url}/latest.json", **store.objects_alone))


def test_credentials_in_env_file(project: Project, store: ObjectStore, url: str) -> None:
    """The cloud's own variables may be set in .env."""
    lines = [f"{name}='{value}'\n" for name, value in (store.environment | {"STORAGE_URL": url}).items()]
    (project.root / ".env").write_text("".join(lines), encoding="utf-8")
    project.chain()

    assert is_verified(project.step("runs", "verify", f"{url}/latest.json"))


@pytest.mark.slow
def test_reader_always_finds_a_whole_run(project: Project, run_up_to: RunUpTo, store: ObjectStore, url: str) -> None:
    """A reader who follows latest.json while runs are published always finds a complete and consistent run."""
    first = run_up_to("evaluate")
    logs = [project.run_steps(STEPS[:3]) for _ in range(5)]
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

    assert [step.returncode for step in published] == [0] * 6
    assert len(set(found)) >= 5
    assert len(found) >= 50
    assert is_verified(project.step("runs", "verify", f"{url}/latest.json", **store.environment))


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

    assert latest_in(store, url)["run"] == project.runs()[1].name
    for run in project.runs():
        assert is_verified(project.step("runs", "verify", f"{url}/runs/{run.name}", **store.environment))


def test_one_of_two_creators_wins(project: Project, store: ObjectStore, url: str) -> None:
    """If two processes create an object at once, one succeeds and the other learns that the name is taken."""
    code = (
        "import threading\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "both = threading.Barrier(2)\n"
        "def create(content):\n"
        "    files, root = places.open_storage(sys.argv[1])\n"
        "    won = 0\n"
        "    for i in range(15):\n"
        "        both.wait(30)\n"
        "        try:\n"
        "            objects.send_bytes(files, content, f'{root}/{i}', create=True)\n"
        "        except OSError:\n"
        "            continue\n"
        "        assert objects.read(files, f'{root}/{i}') == content\n"
        "        won += 1\n"
        "    return won\n"
        "with ThreadPoolExecutor(2) as pool:\n"
        "    print(sum(pool.map(create, [b'a', b'b'])))\n"
    )
    assert run_in_storage(project, code, url, **store.environment) == "15"


@pytest.mark.slow
def test_large_object_is_not_replaced(project: Project, store: ObjectStore, url: str) -> None:
    """An object that is sent in parts is created, never replaced."""
    code = (
        "from fsspec.callbacks import NoOpCallback\n"
        "files, root = places.open_storage(sys.argv[1])\n"
        "try:\n"
        "    objects.send_file(files, Path(sys.argv[2]), f'{root}/large', NoOpCallback())\n"
        "    print('sent')\n"
        "except OSError:\n"
        "    print('taken')\n"
    )
    large = project.root / "large"
    large.write_bytes(bytes(70_000_000))
    given = store.environment
    assert run_in_storage(project, code, url, str(large), **given) == "sent"
    if isinstance(store, FakeGoogle):
        given = store.through_proxy("as_documented")
    assert run_in_storage(project, code, url, str(large), **given) == "taken"


def test_listing_is_never_an_old_one(project: Project, store: ObjectStore, url: str) -> None:
    """A process sees what others have published since it last looked."""
    code = (
        "import subprocess\n"
        "files, root = places.open_storage(sys.argv[1])\n"
        "def run(i):\n"
        "    return f'{root}/runs/2026_01_01_00_00_0{i}'\n"
        "objects.send_bytes(files, b'{}', f'{run(1)}/manifest.json', create=True)\n"
        "assert len(files.ls(f'{root}/runs')) == len(files.ls(run(1))) == 1\n"
        "if len(sys.argv) == 2:\n"
        "    other = 'from steplib.storage import objects, places; import sys\\n'\n"
        "    other += 'files, root = places.open_storage(sys.argv[1])\\n'\n"
        "    other += 'objects.send_bytes(files, b\"{}\", sys.argv[2], create=True)'\n"
        "    for path in (f'{run(2)}/manifest.json', f'{run(1)}/x'):\n"
        "        subprocess.run([sys.executable, '-c', other, sys.argv[1], path], check=True)\n"
        "print(len(files.ls(f'{root}/runs')), len(files.ls(run(1))), files.exists(f'{run(1)}/x'))\n"
    )
    assert run_in_storage(project, code, url, **store.environment) == "2 2 True"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(project: Project, store: ObjectStore, url: str) -> None:
    """Sending a file of 400 MB, and checking it, takes less than half of that."""
    code = (
        "import hashlib, re\n"
        "from fsspec.callbacks import NoOpCallback\n"
        "files, root = places.open_storage(sys.argv[1])\n"
        "local = Path(sys.argv[2])\n"
        "with local.open('rb') as file:\n"
        "    sha256 = hashlib.file_digest(file, 'sha256').hexdigest()\n"
        "artifact = {'sha256': sha256, 'bytes': local.stat().st_size}\n"
        "objects.put_artifact(files, local, f'{root}/large', artifact, NoOpCallback())\n"
        # Not ru_maxrss, in which the peak of the process that started this one counts too.
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024)\n"
    )
    large = project.root / "large"
    with large.open("wb") as file:
        file.truncate(400_000_000)
    assert int(run_in_storage(project, code, url, str(large), **store.environment)) < 200
    store.files().rm_file(f"{url}/large")


@pytest.mark.parametrize(
    ("scheme", "package", "lock"), [("s3", "s3fs", "s3"), ("GCS", "gcsfs", "gs"), ("az", "adlfs", "azure")]
)
def test_missing_package(project: Project, tmp_path: Path, scheme: str, package: str, lock: str) -> None:
    """The load step finds that a cloud's package is missing, and says what to install."""
    (tmp_path / f"{package}.py").write_text("raise ImportError", encoding="utf-8")
    done = project.step("data_loader", STORAGE_URL=f"{scheme}://bucket/x", PYTHONPATH=str(tmp_path))

    assert done.returncode == 78
    assert f"the package for {scheme.lower()}:// is not installed; install requirements-{lock}.txt" in done.stderr


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("acc.dfs.core.windows.net", "https://acc.blob.core.windows.net"),
        ("acc.blob.core.windows.net", "https://acc.blob.core.windows.net"),
        ("acc.dfs.core.chinacloudapi.cn", "https://acc.blob.core.chinacloudapi.cn"),
        ("acc.dfs.core.usgovcloudapi.net", "https://acc.blob.core.usgovcloudapi.net"),
    ],
)
@pytest.mark.parametrize("scheme", ["abfs", "abfss", "az"])
def test_account_of_any_azure_cloud(project: Project, scheme: str, host: str, address: str) -> None:
    """The account's host is the one that the URL names."""
    code = "files, root = places.open_storage(sys.argv[1])\nprint(files.account_url, root)\n"
    given = {"AZURE_STORAGE_ACCOUNT_NAME": "other", "AZURE_STORAGE_ACCOUNT_KEY": "Zq7="}
    assert run_in_storage(project, code, f"{scheme}://c@{host}/x/y", **given) == f"{address} c/x/y"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("abfs://c@acc/x", "expected a host like myaccount.dfs.core.windows.net after @, found acc; "),
        ("abfs://c@acc.z01.blob.storage.azure.net/x", "name a different host in AZURE_STORAGE_CONNECTION_STRING"),
        ("wasbs://c@acc.blob.core.windows.net/x", "found wasbs://; use a scheme that docs/storage.md lists"),
        ("abfs://c@mine.dfs.core.windows.net/x", "expected the account mine in AZURE_STORAGE_CONNECTION_STRING"),
        ("abfs://c@mine.dfs.core.chinacloudapi.cn/x", "expected the account mine in AZURE_STORAGE_CONNECTION_STRING"),
    ],
)
def test_wrong_azure_account(project: Project, address: str, message: str) -> None:
    """An account that the client would not use is refused."""
    connection = "AccountName=other;AccountKey=Zq7=;EndpointSuffix=core.windows.net"
    done = project.step("data_loader", STORAGE_URL=address, AZURE_STORAGE_CONNECTION_STRING=connection)

    assert done.returncode == 78
    assert message in done.stderr.splitlines()[-1]
    assert "Zq7" not in done.stderr
