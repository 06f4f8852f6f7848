"""The documents agree with the code."""

import re

from conftest import ROOT
from steplib import errors, settings

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
SHELL = (ROOT / "run_pipeline.sh").read_text(encoding="utf-8")
DAG = (ROOT / "dags" / "my_pipeline_settings.py").read_text(encoding="utf-8")
DAG_DEFAULTS = DAG.partition("DEFAULTS = {")[2].partition("}")[0]
DAG_SETTINGS = dict(re.findall(r'^    "([A-Z_]+)": "?(.*?)"?,$', DAG_DEFAULTS, re.MULTILINE)) | {"ETL_PYTHON": ""}
NAMES = {*settings.DEFAULTS, *DAG_SETTINGS, "PIPELINE_RUN_ID"}


def test_every_setting_is_in_the_example_and_the_readme() -> None:
    """.env.example and the README name exactly the settings that the code reads, with their defaults."""
    in_example = dict(re.findall(r"^(?:# )?([A-Z_]{5,})=(.*)$", EXAMPLE, re.MULTILINE))
    in_readme = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", README, re.MULTILINE))

    assert set(in_example) == set(in_readme) == NAMES
    assert {name: settings.DEFAULTS.get(name, default) for name, default in DAG_SETTINGS.items()} == DAG_SETTINGS
    for name, default in (settings.DEFAULTS | DAG_SETTINGS).items():
        assert in_example[name] == default
        assert in_readme[name] == (f"`{default}`" if default else "none")
    assert "ETL_PYTHON" in SHELL
    assert "PIPELINE_RUN_ID" in SHELL


def test_every_exit_code_is_in_the_readme() -> None:
    """Every exit code has a row in the README."""
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PipelineError)
    ]

    assert {kind.exit_code for kind in kinds} <= rows
    assert {0, 64, 65, 70, 71, 74, 75, 78} <= rows


def test_every_path_of_the_readme_exists() -> None:
    """The tree and the links of the README name existing files."""
    tree = re.search(r"```text\n(dags/.*?)```", README, re.DOTALL)
    assert tree
    for line in tree[1].splitlines():
        if not line.startswith(" "):
            parent = ROOT / line.split()[0]
        assert (parent / line.split()[0] if line.startswith(" ") else parent).exists(), line
    for link in re.findall(r"\]\((?!http|#)(.*?)\)", README):
        assert (ROOT / link).exists(), link


def test_every_file_that_the_pipeline_writes_is_in_the_readme() -> None:
    """The README names every result."""
    for name in ("raw_data.csv", "clear_data.csv", "model.pkl", "evaluation.json", "predictions.csv", "manifest.json"):
        assert f"`{name}`" in README
