"""The documents agree with the code."""

import re
from pathlib import Path

import pytest
from conftest import ARTIFACTS, ROOT, STEPS
from steplib import errors, settings
from steplib.runs import manifest

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DEFAULTS = settings.DEFAULTS | {"PIPELINE_RUN_ID": ""}


def table_of_settings(text: str) -> dict[str, str]:
    """Return the defaults in a table of settings."""
    return dict(re.findall(r"^\| `([A-Z_]+)` \| (.*?) \|", text, re.MULTILINE))


def test_every_setting_is_documented() -> None:
    """.env.example and docs/settings.md name exactly the settings that the code reads, with their defaults."""
    in_example = dict(re.findall(r"^(?:# )?([A-Z_]{4,})=(.*)$", EXAMPLE, re.MULTILINE))
    in_page = table_of_settings((ROOT / "docs" / "settings.md").read_text(encoding="utf-8"))

    assert in_example == DEFAULTS
    assert in_page == {name: f"`{default}`" if default else "none" for name, default in DEFAULTS.items()}
    assert table_of_settings(README).items() <= in_page.items()


def test_every_exit_code_is_in_the_readme() -> None:
    """Every exit code has a row in the README."""
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PipelineError)
    ]

    assert {kind.exit_code for kind in kinds} <= rows
    assert {0, 64, 65, 70, 71, 74, 75, 78} <= rows


def test_tree_of_the_readme_is_that_of_the_project() -> None:
    """The tree in the README names existing files."""
    tree = re.search(r"```text\n(dags/.*?)```", README, re.DOTALL)
    assert tree
    for line in tree[1].splitlines():
        names = re.split("  +", line.strip())[0].split()
        if not line.startswith(" "):
            parent = ROOT / names[0]
        folder = parent if line.startswith(" ") else ROOT
        for name in names:
            assert list(folder.glob(name)), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_in_a_page_exists(page: Path) -> None:
    """Links and code files that a page names exist."""
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http|#)(.*?)(?:#.*?)?\)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(r"[` ]((?:bin|dags|etl|tests|benchmarks|images)/[\w./-]+\.\w+)[` ]", text):
        assert (ROOT / path).exists(), path


def test_every_result_is_in_the_readme() -> None:
    """The README names every file that the pipeline writes."""
    for name in (*ARTIFACTS, "manifest.json"):
        assert f"`{name}`" in README


def test_steps_have_one_order() -> None:
    """The DAGs and run_pipeline.sh, which write the steps out, follow the manifest's order."""
    assert manifest.STEPS == STEPS
    for path in ("dags/my_pipeline.py", "dags/my_pipeline_python.py"):
        assert " >> ".join(STEPS) in (ROOT / path).read_text(encoding="utf-8")
    shell = (ROOT / "run_pipeline.sh").read_text(encoding="utf-8")
    assert re.findall(r"run_step (data_loader)|for step in ([a-z_ ]+);", shell) == [
        (STEPS[0], ""),
        ("", " ".join(STEPS[1:])),
    ]
