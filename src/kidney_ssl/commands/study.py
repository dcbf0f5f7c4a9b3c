"""Commands on the study of the current folder: `run`, `plan`, `status`, `report`, `folds`, `clean`."""

import argparse
from pathlib import Path

from kidney_ssl.commands.own_code import become, become_stage, refuse_no_study, use_own_code
from kidney_ssl.errors import InputError

PAGE = Path("report/index.html")


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add them."""
    plan = commands.add_parser("plan", help="say what `run` would do: trainings, hours, disk; no result changes")
    _add_workers(plan)
    plan.add_argument("--rates", metavar="FILE", help="write what this machine takes to a file")
    plan.add_argument("--device-rates", metavar="FILE", help="plan for another machine, by its file of --rates")
    plan.set_defaults(run=_plan)
    run = commands.add_parser("run", help="run what is out of date in the study of params.yaml")
    _add_workers(run)
    run.set_defaults(run=lambda given: become_stage("stages", *_words(given.workers)))
    status = commands.add_parser("status", help="say what is out of date and what is stored, without training")
    status.set_defaults(run=lambda _: become_stage("stages.status"))
    report = commands.add_parser("report", help="print the path of the report")
    report.add_argument("--again", action="store_true", help="write it anew from the results first")
    report.set_defaults(run=_report)
    folds = commands.add_parser("folds", help="run the study once for each fold of data.folds, and metrics over them")
    _add_workers(folds)
    folds.add_argument("--study", metavar="NAME", default="", help="a file of studies/ (params.yaml)")
    folds.set_defaults(run=lambda given: become_stage("stages.folds", given.workers or "", given.study))
    clean = commands.add_parser("clean", help="empty the run store, checkpoints and logs; no data, no result, no cache")
    clean.set_defaults(run=_clean)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workers", nargs="?", metavar="WORKERS", help="trainings at a time (one a GPU, else a core)")


def _words(workers: str | None) -> list[str]:
    return [workers] if workers else []


def _plan(given: argparse.Namespace) -> None:
    named = {"RATES": given.rates, "DEVICE_RATES": given.device_rates}
    become_stage(
        "stages.plan", *_words(given.workers), environment={name: file for name, file in named.items() if file}
    )


def _report(given: argparse.Namespace) -> None:
    refuse_no_study()
    if given.again:
        become(["dvc", "repro", "--quiet", "--force", "--single-item", "report"])
    if not PAGE.exists():
        raise InputError(f"{PAGE}: not written yet: `kidney-ssl run`, or `kidney-ssl report --again` after one")
    print(PAGE)


def _clean(_: argparse.Namespace) -> None:
    use_own_code(["clean"])
    from kidney_ssl.jobs.clean import clean  # noqa: PLC0415 - other commands need none of it

    print(f"{clean() / 1e9:.2f} GB freed")
