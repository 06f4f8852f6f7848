"""The gate: the rule, which run goes into use, acts by hand, and the proof of verdicts."""

import csv
import json
import random
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import STEPS, Project, garbled, is_verified, wdbc_rows
from scipy.stats import binomtest, permutation_test
from steplib.gate import pairs, rule
from steplib.gate.pairs import Stored

PLACES = pytest.mark.parametrize("storage", [False, True], ids=["disk", "storage"])


def place(project: Project, *, storage: bool) -> dict[str, str]:
    """Return the setting of a storage, or none."""
    return {"STORAGE_URL": f"file://{project.root}/store"} if storage else {}


def run_of(log: str) -> str:
    """Return the stamp in a log's name."""
    return log[-23:-4]


def verdict_of(project: Project, log: str) -> dict[str, Any]:
    """Return the verdict in a run's manifest."""
    path = project.root / "results" / "runs" / run_of(log) / "manifest.json"
    return dict(json.loads(path.read_bytes())["verdict"])


def in_use(project: Project, settings: dict[str, str]) -> str:
    """Return the run in use, and check that results/latest shows it."""
    root = project.root / ("store" if settings else "results/promotions")
    stamp = str(json.loads((root / "latest.json").read_bytes())["run"])
    assert (project.root / "results" / "latest").resolve().name == stamp
    return stamp


def acts(project: Project, settings: dict[str, str]) -> list[dict[str, Any]]:
    """Return the records, the oldest first."""
    folder = project.root / ("store" if settings else "results") / "promotions"
    return [
        json.loads((folder / f"{n}.json").read_bytes()) for n in range(1, 1 + len(list(folder.glob("[0-9]*.json"))))
    ]


def write_data(project: Project, rows: list[str]) -> str:
    """Write a source and return its name."""
    (project.root / "source.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return "source.csv"


def flipped(rows: list[str], share: float) -> list[str]:
    """Return rows in which a share of the M are called B."""
    rng = random.Random(0)
    return [row.replace(",M,", ",B,", 1) if rng.random() < share else row for row in rows]


def make_pairs(n: int, seed: int, worse: float = 0.0, changed: int = 0) -> rule.Pairs:
    """Return pairs of a champion and a challenger whose probabilities have more noise."""
    rng = np.random.default_rng(seed)
    is_m = rng.random(n) < 0.4
    before = np.clip(is_m * 0.7 + 0.15 + rng.normal(0, 0.2, n), 0, 1)
    now = np.clip(before + rng.normal(0, worse, n), 0, 1) if worse else before.copy()
    return rule.Pairs(is_m, before, now, before > 0.5, now > 0.5, changed)


def reference(found: rule.Pairs) -> dict[str, tuple[float, float, float]]:
    """Return champion, challenger and p of each measure by the formulas of the rule."""
    y, old, new = found.is_m.astype(float), found.before, found.now
    d = (new - y) ** 2 - (old - y) ** 2
    brier = ((old - y) ** 2).mean(), ((new - y) ** 2).mean()
    test = permutation_test(
        (d,), np.mean, permutation_type="samples", alternative="greater", n_resamples=9999, rng=0, batch=100
    )
    result = {"brier": (*brier, test.pvalue if brier[1] - brier[0] > 0.05 * brier[0] else 1.0)}
    for name, rows, margin in (("accuracy", y >= 0, 0.005), ("recall", y == 1, 0.01)):
        was, now = ((called == found.is_m)[rows] for called in (found.called_before, found.called_now))
        b, c = int((was & ~now).sum()), int((now & ~was).sum())
        p = binomtest(b, b + c, 0.5, alternative="greater").pvalue if was.mean() - now.mean() > margin else 1.0
        result[name] = was.mean(), now.mean(), p
    return result


@pytest.mark.parametrize("worse", [0.0, 0.05, 0.15, 0.4])
def test_rule_is_that_of_its_formulas(worse: float) -> None:
    """Each measure and each p are those that scipy gives for the formulas; Holm's first step decides."""
    found = make_pairs(400, 1, worse)
    verdict, expected = rule.judge(found, has_same_features=True), reference(found)

    for name, values in expected.items():
        assert tuple(verdict[name].values()) == pytest.approx(values, rel=1e-12)
    assert verdict["outcome"] == ("worse" if min(p for *_, p in expected.values()) < 0.05 / 3 else "not worse")


@pytest.mark.parametrize(
    ("n", "changed", "same", "outcome"),
    [
        (99, 0, True, "cannot tell"),
        (400, 0, False, "cannot tell"),
        (400, 300, False, "cannot tell"),
        (400, 4, True, "worse"),
        (400, 5, True, "suspect"),
        (100, 1, True, "worse"),
        (100, 2, True, "suspect"),
    ],
)
def test_order_of_outcomes(n: int, changed: int, same: bool, outcome: str) -> None:  # noqa: FBT001 - a parameter
    """Where several outcomes apply, `cannot tell` is before `suspect`, and that before `worse`."""
    assert rule.judge(make_pairs(n, 2, 0.6, changed), has_same_features=same)["outcome"] == outcome


def test_many_pairs_need_no_permutation() -> None:
    """Beyond 5,000 pairs, the normal limit gives nearly the p of the permutation."""
    many = make_pairs(6_000, 5, 0.105)
    d = (many.now - many.is_m) ** 2 - (many.before - many.is_m) ** 2
    permuted = permutation_test(
        (d[:5000],), np.mean, permutation_type="samples", alternative="greater", n_resamples=9999, rng=0, batch=100
    ).pvalue
    few = rule.judge(rule.Pairs(*(column[:5000] for column in many[:-1]), 0), has_same_features=True)  # type: ignore[arg-type]

    assert few["brier"]["p"] in {1.0, permuted}
    assert rule._sign_flips(d - d.mean()) == pytest.approx(0.5, abs=0.01)
    assert rule._sign_flips(d) < 1e-4


def write_run(folder: Path, rows: list[tuple[str, int, float]], validated: int) -> Stored:
    """Write the predictions of a run; the first `validated` rows are out of fold."""
    folder.mkdir()
    parts = {"cross_validation.csv": rows[:validated], "predictions.csv": rows[validated:]}
    for name, part in parts.items():
        if part or name == "predictions.csv":
            columns = (
                ["id", "y_true", "fold", "probability"] if name[0] == "c" else ["id", "y_true", "y_pred", "probability"]
            )
            with (folder / name).open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows([key, y, int(p > 0.5), p] for key, y, p in part)
    with (folder / "clear_data.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "target", "a"], *([key, y, 1] for key, y, _ in reversed(rows))])
    return Stored(folder, 0.5)


def test_rows_of_one_id_are_paired_in_file_order(tmp_path: Path) -> None:
    """The k-th row of an id is paired with the k-th, a surplus row is not; the order is that of clear_data.csv."""
    old = write_run(tmp_path / "old", [("a", 0, 0.1), ("a", 1, 0.2), ("b", 1, 0.9), ("c", 0, 0.3)], 2)
    new = write_run(tmp_path / "new", [("a", 0, 0.6), ("d", 1, 0.5), ("b", 0, 0.8), ("b", 1, 0.7)], 2)
    found = pairs.pair(old, new)

    # clear_data.csv lists the rows backwards, so that b comes first; its first row there is paired with the first.
    assert found.before.tolist() == [0.9, 0.1]
    assert found.now.tolist() == [0.8, 0.6]
    assert (found.is_m.tolist(), found.changed) == ([False, False], 1)
    assert found.called_now.tolist() == [True, True]


@pytest.mark.parametrize("at_once", [8_000_000, 6_000])
def test_large_files_are_compared_by_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """Without cross-validation, the common test rows of smallest hash decide, however many are in memory at once."""
    from steplib.table.schema import is_test

    ids = [key for key in (f"p{i}" for i in range(20_000)) if is_test(key)]
    monkeypatch.setattr(pairs, "MOST_HELD_OUT", 500)
    monkeypatch.setattr(pairs, "BYTES_AT_ONCE", at_once)
    monkeypatch.setattr(pairs, "MOST_PERMUTED", 10)
    old = write_run(tmp_path / "old", [(key, 0, 0.1) for key in ids[100:]], 0)
    new = write_run(tmp_path / "new", [(key, 1, i / 10_000) for i, key in enumerate(ids[:-100])], 0)
    found = pairs.pair(old, new)

    smallest = sorted(ids[100:-100], key=pairs._hash)[:500]
    assert found.now.tolist() == [ids.index(key) / 10_000 for key in smallest]


@PLACES
def test_only_a_run_that_is_not_worse_goes_into_use(project: Project, storage: bool) -> None:  # noqa: FBT001 - a parameter
    """The first run and one that is not worse go into use; all others are kept, published and reported."""
    settings, rows = place(project, storage=storage), wdbc_rows()
    first = project.chain(DATA_URL=write_data(project, rows[:500]), **settings)
    good = project.chain(DATA_URL=write_data(project, rows), **settings)
    held = {
        "suspect": project.chain(DATA_URL=write_data(project, flipped(rows, 0.2)), **settings),
        "worse": project.chain(DATA_URL=write_data(project, garbled(rows)), **settings),
        "cannot tell": project.chain(DATA_URL=write_data(project, rows[:60]), **settings),
    }

    assert [verdict_of(project, log)["outcome"] for log in (first, good)] == ["first", "not worse"]
    assert in_use(project, settings) == run_of(good)
    assert [(act["run"], act["act"]) for act in acts(project, settings)] == [
        (run_of(first), "gate"),
        (run_of(good), "gate"),
    ]
    for outcome, log in held.items():
        verdict = verdict_of(project, log)
        assert (verdict["outcome"], verdict["promotes"], verdict["against"]) == (outcome, False, run_of(good))
        said = Path(log).read_text(encoding="utf-8")
        assert said.count(f"[WARNING][evaluate]: [EVALUATE]: verdict: {outcome}: ") == 1
        assert not storage or (project.root / "store" / "runs" / run_of(log) / "manifest.json").is_file()
        assert is_verified(project.step("runs", "verify", run_of(log)))
    listed = project.step("runs", "list", *settings.values()).stdout
    assert [line.split()[0] for line in listed.split("\n\n")[2].splitlines()[1:]] == [
        run_of(log) for log in reversed(held.values())
    ]
    page = (project.root / "results" / "runs" / run_of(held["worse"]) / "report.html").read_text(encoding="utf-8")
    assert page.index("The gate: worse") < page.index("How good it is")


def test_gate_that_is_off(project: Project) -> None:
    """With GATE=off a worse run is judged, recorded, and goes into use, with that as the reason."""
    rows = wdbc_rows()
    project.chain(DATA_URL=write_data(project, rows))
    log = project.chain(DATA_URL=write_data(project, garbled(rows)), GATE="off")
    verdict = verdict_of(project, log)

    assert (verdict["outcome"], verdict["promotes"]) == ("worse", True)
    assert in_use(project, {}) == run_of(log)
    assert acts(project, {})[-1]["reason"].startswith("GATE=off; the rule says worse: compared with run ")
    assert is_verified(project.step("runs", "verify", run_of(log)))
    assert project.step("data_loader", GATE="yes").returncode == 78


@PLACES
def test_acts_by_hand(project: Project, storage: bool) -> None:  # noqa: FBT001 - a parameter
    """A person promotes a run that is held back, and goes back one promotion at a time; each act is recorded."""
    settings, rows = place(project, storage=storage), wdbc_rows()
    logs = [project.chain(DATA_URL=write_data(project, rows[:n]), **settings) for n in (500, 540, 569)]
    bad = run_of(project.chain(DATA_URL=write_data(project, garbled(rows)), **settings))
    a, b, c = (run_of(log) for log in logs)

    def act(*arguments: str) -> str:
        done = project.step("runs", *arguments, **settings)
        assert done.returncode == 0, done.stderr
        return in_use(project, settings)

    assert act("promote", bad, "--reason", "checked by hand", "--by", "Ana") == bad
    assert [act("rollback") for _ in range(3)] == [c, b, a]
    nothing = project.step("runs", "rollback", **settings)
    assert (nothing.returncode, len(nothing.stderr.splitlines())) == (64, 1)
    assert act("rollback", c, "--reason", "again") == c
    found = acts(project, settings)
    assert [(each["run"], each["act"]) for each in found[3:]] == [
        (bad, "promote"),
        *((run, "rollback") for run in (c, b, a, c)),
    ]
    assert (found[3]["by"], found[3]["reason"], found[3]["verdict"]["outcome"]) == ("Ana", "checked by hand", "worse")
    for wrong in (["promote", bad], ["promote", "--reason", "x"], ["promote", "2020_01_01_00_00_00", "--reason", "x"]):
        assert project.step("runs", *wrong, **settings).returncode == 64
    assert run_of(project.chain(DATA_URL=write_data(project, rows), **settings)) == in_use(project, settings)


@PLACES
def test_repeated_evaluation_promotes_nothing_twice(project: Project, storage: bool) -> None:  # noqa: FBT001 - a parameter
    """Repeating a run that was promoted, rolled back or held back changes nothing."""
    settings, rows = place(project, storage=storage), wdbc_rows()
    logs = [project.chain(DATA_URL=write_data(project, rows[:n]), **settings) for n in (500, 569)]
    logs.append(project.chain(DATA_URL=write_data(project, garbled(rows)), **settings))
    assert project.step("runs", "rollback", **settings).returncode == 0
    before = acts(project, settings)
    for log in logs:
        assert project.step("evaluate", log, **settings).returncode == 0

    assert acts(project, settings) == before
    assert in_use(project, settings) == run_of(logs[0])


def test_champion_that_cannot_be_read(project: Project) -> None:
    """Without the files of the run in use, the verdict is `cannot tell`; a promotion by hand ends that."""
    first = project.chain()
    (project.runs()[0] / "predictions.csv").write_text("id\n", encoding="utf-8")
    second = project.chain()

    assert verdict_of(project, second)["outcome"] == "cannot tell"
    assert in_use(project, {}) == run_of(first)
    assert "has a predictions.csv that is missing or has changed" in Path(second).read_text(encoding="utf-8")
    assert project.step("runs", "promote", run_of(second), "--reason", "the old one is damaged").returncode == 0
    assert verdict_of(project, project.chain())["outcome"] == "not worse"


def test_storage_out_of_reach_ends_nothing(project: Project) -> None:
    """If the storage with the run in use does not answer, evaluate ends with 75, and the run is not finished."""
    url = "s3://bucket/x"
    settings = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    log = project.run_steps(STEPS[:-1])
    done = project.step("evaluate", log, STORAGE_URL=url, **settings)
    record = json.loads((project.runs()[0] / "manifest.json").read_bytes())

    assert done.returncode == 75, done.stderr
    assert (record["steps"]["evaluate"]["outcome"], "verdict" in record) == ("failed", False)
    assert project.step("evaluate", log).returncode == 0


@PLACES
def test_two_gates_at_once(project: Project, storage: bool) -> None:  # noqa: FBT001 - a parameter
    """Of runs that are judged at once, each that goes into use was judged against the one before it."""
    settings, rows = place(project, storage=storage), wdbc_rows()
    project.chain(DATA_URL=write_data(project, rows), **settings)
    logs = [project.run_steps(STEPS[:-1], DATA_URL="source.csv", **settings) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda log: project.step("evaluate", log, **settings), logs))

    assert [end.returncode for end in ends] == [0] * 4, "".join(end.stderr for end in ends)
    found = acts(project, settings)
    assert all(one["verdict"]["against"] == before["run"] for before, one in pairwise(found))
    assert all(one["verdict"]["record"] == before["number"] for before, one in pairwise(found))
    promoted, root = {act["run"] for act in found}, project.root / ("store" if storage else "results")
    for log in logs:
        second = root / "runs" / run_of(log) / "verdict.json"
        assert (run_of(log) in promoted) != second.is_file()
        assert not second.is_file() or "it started before run" in json.loads(second.read_bytes())["reason"]
        assert is_verified(project.step("runs", "verify", run_of(log)))
    assert in_use(project, settings) == found[-1]["run"]


@pytest.mark.slow
@PLACES
def test_kill_between_verdict_and_promotion(project: Project, storage: bool) -> None:  # noqa: FBT001 - a parameter
    """After a kill -9 at any moment, the run in use is the old or the new one, whole; a repetition completes it."""
    settings = place(project, storage=storage)
    old = run_of(project.chain(**settings))
    script = str(project.root / "etl" / "evaluate.py")
    delays = random.Random(1)
    for _ in range(8):
        log = project.run_steps(STEPS[:-1], **settings)
        with subprocess.Popen(
            [sys.executable, script, log], env=project.environment(**settings), stdout=-3, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr
            for line in process.stderr:
                if b"]: verdict:" in line:
                    break
            delay = delays.random() * 1.3
            subprocess.run(["sleep", str(delay)], check=True)
            process.kill()
        found = acts(project, settings)
        assert found[-1]["run"] in {old, run_of(log)}
        assert is_verified(project.step("runs", "verify", found[-1]["run"]))
        assert project.step("evaluate", log, **settings).returncode == 0
        assert in_use(project, settings) == acts(project, settings)[-1]["run"] == run_of(log)
        old = run_of(log)


@pytest.mark.parametrize(
    "forged",
    [
        {"outcome": "not worse", "promotes": True},
        {"outcome": "first", "against": None, "record": 0, "promotes": True},
        {"brier": {"champion": 0.5, "challenger": 0.02, "p": 1.0}},
        {"changed_diagnoses": 0, "outcome": "worse"},
        {"against": "2020_01_01_00_00_00"},
        {"promotes": True},
    ],
    ids=str,
)
def test_forged_verdict_is_found(project: Project, forged: dict[str, Any]) -> None:
    """A verdict that the rule does not give from the files of both runs is a difference."""
    rows = wdbc_rows()
    project.chain(DATA_URL=write_data(project, rows))
    log = project.chain(DATA_URL=write_data(project, flipped(rows, 0.2)))
    path = project.root / "results" / "runs" / run_of(log) / "manifest.json"
    record = json.loads(path.read_bytes())
    assert record["verdict"]["outcome"] == "suspect"
    path.write_text(json.dumps(record | {"verdict": record["verdict"] | forged}), encoding="utf-8")
    done = project.step("runs", "verify", run_of(log))

    assert done.returncode == 65, done.stdout
    assert done.stderr.startswith("runs.py: verdict, made again: expected what was written, found ")


def test_verdict_against_a_run_that_was_removed(project: Project) -> None:
    """If the other run is gone, verify says so, and that is no failure."""
    project.chain()
    log = project.chain()
    subprocess.run(["rm", "-r", project.runs()[0]], check=True)
    done = project.step("runs", "verify", run_of(log))

    assert done.returncode == 0, done.stderr
    assert "verdict, made again              left out: run " in done.stdout


def test_shell_ends_with_the_verdict(project: Project) -> None:
    """run_pipeline.sh ends with the verdict; for a run that is held back, with why and the command that promotes it."""
    rows = wdbc_rows()
    good = project.pipeline(DATA_URL=write_data(project, rows)).stdout.splitlines()
    bad = project.pipeline(DATA_URL=write_data(project, garbled(rows))).stdout.splitlines()

    assert good[-1] == "Verdict: first: no run is in use yet"
    stamp = project.runs()[-1].name
    assert bad[-1].startswith("Held back: worse: compared with run ")
    command = shlex.join([sys.executable, f"{project.root}/etl/runs.py", "promote", stamp])
    assert bad[-1].endswith(f'; to use it all the same: {command} --reason "..."')


def test_pruning_spares_the_run_in_use_and_the_one_before(project: Project) -> None:
    """KEEP_RUNS removes neither, however many runs are held back meanwhile."""
    rows = wdbc_rows()
    kept = [run_of(project.chain(DATA_URL=write_data(project, rows[:n]), KEEP_RUNS="1")) for n in (500, 569)]
    for _ in range(3):
        last = project.chain(DATA_URL=write_data(project, garbled(rows)), KEEP_RUNS="1")

    assert [run.name for run in project.runs()] == [*kept, run_of(last)]
    assert project.step("runs", "rollback").returncode == 0
    assert in_use(project, {}) == kept[0]
