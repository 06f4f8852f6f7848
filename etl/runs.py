"""List, verify and roll back runs.

list      prints the table of all runs on this disk, or in the storage URL, and writes it with the metrics over time
          to results/history.html. For a storage, it also shows when which run was in use, with times in UTC.
verify    proves that a run's files match its manifest and that its model reproduces its predictions and metrics: it
          compares every sha256 and size, then scores the held-out rows again. RUN is a stamp (2026_11_22_21_36_36), a
          run's folder, or a URL that ends with runs/<stamp> or latest.json.
rollback  promotes the older run STAMP in the storage URL, until a run that started later is published for the first
          time.

Exits with 0: done; 65: a run differs from its record (the last line names the first difference); 64, 74, 75, 78:
as the steps.
"""

import re
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from typing import NoReturn

from steplib import step
from steplib.errors import UsageError
from steplib.publish import promotions, publishing
from steplib.publish.records import LATEST
from steplib.runs import manifest, registry
from steplib.runs.folders import results
from steplib.settings import read_settings


def list_runs(arguments: Namespace) -> None:
    """Print the table and write the page."""
    from steplib.publish import history

    if arguments.url:
        runs, acts = publishing.read_runs(arguments.url)
        stamp = next((act["run"] for _, act in acts if act), None)
    else:
        runs, acts, stamp = list(registry.all_runs().values()), [], registry.latest_stamp()
    place = arguments.url or str(results())
    if not runs:
        raise UsageError(f"{place}: expected runs, found none; run the pipeline first")
    table, use = history.tabulate(runs, stamp), history.tabulate_use(acts, {run["run"] for run in runs})
    print(history.to_text(table))
    if acts:
        print(f"\n{history.to_text(use)}")
    page = results() / "history.html"
    history.write_page(table, use, place, page)
    print(f"\nPage: {page}")


def verify(arguments: Namespace) -> None:
    """Verify a run, printing each comparison."""
    from steplib.publish import proof

    proof.verify(arguments.run, read_settings())


def roll_back(arguments: Namespace) -> None:
    """Bring an older run into use."""
    # In either order: only a URL has "://".
    url, stamp = sorted([arguments.url, arguments.stamp], key=lambda text: "://" not in text)
    if not manifest.STAMP.fullmatch(stamp):
        msg = f"STAMP: expected a run's stamp like 2026_11_22_21_36_36, found {stamp[:40]!r}"
        raise UsageError(f"{msg}; runs.py list shows them")
    promotions.roll_back(url, stamp)
    print(f"{url.rstrip('/')}/{LATEST} now names run {stamp}.")


class Parser(ArgumentParser):
    """A parser whose errors end like those of the steps."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError, without the arguments, which may hold a password."""
        message = re.sub("(unrecognized arguments|invalid choice): .*", r"\1", message)
        raise UsageError(f"{message}; see --help")


def main(arguments: list[str]) -> None:
    """Run the command that the arguments name."""
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="list | verify | rollback")
    command = commands.add_parser("list", help="show all runs")
    command.add_argument("url", nargs="?", metavar="URL", help="a storage, as in STORAGE_URL (default: this disk)")
    command.set_defaults(work=list_runs)
    command = commands.add_parser("verify", help="prove that a run's model gives its numbers")
    command.add_argument("run", metavar="RUN|URL", help="a stamp, a run's folder, or a URL of a published run")
    command.set_defaults(work=verify)
    command = commands.add_parser("rollback", help="use an older published run again")
    command.add_argument("url", metavar="URL", help="the storage, as in STORAGE_URL")
    command.add_argument("stamp", metavar="STAMP", help="the run to go back to")
    command.set_defaults(work=roll_back)
    parsed = parser.parse_args(arguments)
    parsed.work(parsed)


if __name__ == "__main__":
    step.main_of_tool(main)
