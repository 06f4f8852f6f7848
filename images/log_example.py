"""Draw images/log_example.png: the log of a run of the embedded data, made now in a copy of the project.

Run `.venv/bin/python images/log_example.py`; needs Chromium on the PATH.
"""

import html
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = """<meta charset="utf-8"><style>
body {{ margin: 0; padding: 18px 22px; background: #0d1117; color: #e6edf3 }}
body {{ font: 14px/22px "DejaVu Sans Mono", monospace }}
div {{ white-space: pre }} .time {{ color: #8b949e }} .INFO {{ color: #3fb950 }} .WARNING {{ color: #d29922 }}
.ERROR {{ color: #f85149 }} .step {{ color: #79c0ff }}
</style>{lines}"""
LINE = re.compile(r"(\[.*?\])(\[(\w+)\])(\[\w+\]: \[\w+\]:)(.*)")


def main() -> None:
    """Run the pipeline, lay out its log as a page, take its picture."""
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(temporary) / "project"
        shutil.copytree(ROOT, project, ignore=shutil.ignore_patterns(".git", "results", "logs", ".venv", ".env"))
        environment = {"ETL_PYTHON": str(ROOT / ".venv" / "bin" / "python"), "PATH": os.defpath}
        subprocess.run(["sh", str(project / "run_pipeline.sh")], env=environment, check=True)
        log = next((project / "logs").glob("log_*")).read_text(encoding="utf-8").splitlines()
        page = Path(temporary) / "log.html"
        page.write_text(PAGE.format(lines="".join(map(marked, log))), encoding="utf-8")
        size = f"--window-size={60 + max(map(len, log)) * 843 // 100},{40 + len(log) * 22}"
        picture = f"--screenshot={ROOT / 'images' / 'log_example.png'}"
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking"]
        subprocess.run(["chromium", *flags, size, picture, page.as_uri()], check=True, timeout=60)


def marked(line: str) -> str:
    """Return a line of the log as HTML, its parts coloured."""
    parts = LINE.fullmatch(line)
    if not parts:
        return f"<div>{html.escape(line)}</div>"
    time, level, name, step, message = (html.escape(part) for part in parts.groups())
    return (
        f'<div><span class="time">{time}</span><span class="{name}">{level}</span>'
        f'<span class="step">{step}</span>{message}</div>'
    )


if __name__ == "__main__":
    main()
