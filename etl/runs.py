"""List and verify runs, and decide by hand which one is in use.

list      prints tables of all runs on this disk, or in the storage URL, with the gate's verdicts; of the times (UTC) at
          which each was in use; and of the runs held back. It also writes them, and plots, to results/history.html.
verify    proves that a run's files match its manifest, that its model reproduces its predictions and metrics, and that
          the rule gives its verdict: it compares every sha256 and size, scores the held-out rows again, and compares
          the run again with the one that was in use. RUN is a stamp (2026_11_22_21_36_36), a run's folder, or a URL
          that ends with runs/<stamp> or latest.json.
promote   brings the run STAMP into use, whatever its verdict.
rollback  brings the run STAMP into use again; without STAMP, the run that was in use before.

Without URL, promote and rollback act where the run in use is defined: in STORAGE_URL if it is set, else on this disk.

Exits with 0: done; 65: a run differs from its record (the last line names the first difference); 64, 74, 75, 78:
as the steps.
"""

import logging
from argparse import Namespace, RawDescriptionHelpFormatter
from typing import Any

from steplib import process
from steplib.arguments import Parser
from steplib.errors import UsageError
from steplib.gate import verdicts
from steplib.publish import promotions, publishing
from steplib.runs import manifest, records, registry
from steplib.runs.folders import results
from steplib.runs.stores import Store, open_store
from steplib.settings import read_settings


def list_runs(arguments: Namespace) -> None:
    """Print the table and write the page."""
    from steplib.publish import history

    if arguments.url:
        runs, acts = publishing.read_runs(arguments.url)
        stamp = next((act["run"] for _, act in acts if act), None)
    else:
        runs, stamp = list(registry.all_runs().values()), registry.latest_stamp()
        with open_store(read_settings().storage_url) as store:
            acts = records.read_all(store)
    place = arguments.url or str(results())
    if not runs:
        raise UsageError(f"{place}: expected runs, found none; run the pipeline first")
    with open_store(arguments.url or "") as store:
        _prefer_second_verdicts(runs, acts, store)
    table, use = history.tabulate(runs, stamp), history.tabulate_use(acts, {run["run"] for run in runs})
    others = [each for each in (use, history.tabulate_held_back(runs, acts)) if not each.empty]
    print("\n\n".join(history.to_text(each) for each in (table, *others)))
    page = results() / "history.html"
    history.write_page(table, others, place, page)
    print(f"\nPage: {page}")


def _prefer_second_verdicts(runs: list[manifest.Record], acts: list[tuple[int, Any]], store: Store) -> None:
    """Put into the manifests the verdicts by which runs were held back after all."""
    promoted = {act["run"] for _, act in acts if act}
    for record in runs:
        verdict = verdicts.choose(None, record)
        if verdict and verdict.get("promotes") and record["run"] not in promoted:
            record["verdict"] = verdicts.choose(store.read(f"runs/{record['run']}/{verdicts.NAME}"), record)


def verify(arguments: Namespace) -> None:
    """Verify a run, printing each comparison."""
    from steplib.publish import proof

    proof.verify(arguments.run, read_settings())


def promote(arguments: Namespace) -> None:
    """Bring a run into use."""
    url, stamp = _place(arguments)
    if not stamp:
        raise UsageError("STAMP: expected the run to promote, found none; runs.py list shows them")
    promotions.promote(url, stamp, arguments.by, arguments.reason)
    _show(url, stamp)


def roll_back(arguments: Namespace) -> None:
    """Bring an older run into use."""
    url, stamp = _place(arguments)
    _show(url, promotions.roll_back(url, stamp, arguments.by, arguments.reason))


def _place(arguments: Namespace) -> tuple[str, str | None]:
    """Return the storage, or nothing for this disk, and the stamp; they may be in either order: only a URL has "://"."""
    urls = [text for text in arguments.place if "://" in text]
    stamps = [text for text in arguments.place if "://" not in text]
    if len(urls) > 1 or len(stamps) > 1:
        raise UsageError("expected at most one URL and one STAMP, found more; see --help")
    for stamp in stamps:
        if not manifest.STAMP.fullmatch(stamp):
            msg = f"STAMP: expected a run's stamp like 2026_11_22_21_36_36, found {stamp[:40]!r}"
            raise UsageError(f"{msg}; runs.py list shows them")
    # Read before anything is done, because it may be wrong.
    default = read_settings().storage_url
    if arguments.reason is not None and not arguments.reason.strip():
        raise UsageError("--reason: expected why, found nothing; write it for those who will ask")
    return urls[0] if urls else default, stamps[0] if stamps else None


def _show(url: str, stamp: str) -> None:
    """Point results/latest at the run, if its URL is where this disk's run in use is defined, and say what was done."""
    if url.rstrip("/") == read_settings().storage_url.rstrip("/"):
        with open_store(url) as store:
            promotions.show_latest(store, logging.getLogger())
    print(f"Run {stamp} is in use in {url or results()}.")
    if registry.latest_stamp() != stamp:
        print("It is not on this disk, or in use elsewhere: results/latest does not show it.")


def main(arguments: list[str]) -> None:
    """Run the command that the arguments name."""
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="list | verify | promote | rollback")
    command = commands.add_parser("list", help="show all runs")
    command.add_argument("url", nargs="?", metavar="URL", help="a storage, as in STORAGE_URL (default: this disk)")
    command.set_defaults(work=list_runs)
    command = commands.add_parser("verify", help="prove that a run's model gives its numbers")
    command.add_argument("run", metavar="RUN|URL", help="a stamp, a run's folder, or a URL of a published run")
    command.set_defaults(work=verify)
    for name, work, text in (
        ("promote", promote, "bring a run into use"),
        ("rollback", roll_back, "bring an older run into use again"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("place", nargs="*", metavar="[URL] [STAMP]", help="the storage, and the run's stamp")
        command.add_argument("--reason", required=work is promote, metavar="TEXT", help="why, for the record")
        command.add_argument("--by", metavar="NAME", help="who decided (default: LOGIN@HOST)")
        command.set_defaults(work=work)
    parsed = parser.parse_args(arguments)
    parsed.work(parsed)


if __name__ == "__main__":
    process.main_of_tool(main)
