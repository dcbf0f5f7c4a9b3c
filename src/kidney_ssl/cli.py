"""The command `kidney-ssl`, run in a project's folder."""

import argparse
import os
import sys
from collections.abc import Sequence

from kidney_ssl.deploy.command import add_commands
from kidney_ssl.errors import InputError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a subcommand; bad input is reported in one line with exit code 1.

    Args:
        arguments: words of the command; those of the command line by default.
    """
    parser = argparse.ArgumentParser(prog="kidney-ssl", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_sweep(commands)
    add_commands(commands)
    clean = commands.add_parser("clean", help="empty the run store, checkpoints and logs; no data, no result, no cache")
    clean.set_defaults(run=_clean)
    given = parser.parse_args(arguments)
    os.environ["MPLBACKEND"] = "agg"  # a notebook's shell sets a backend that does not exist outside it
    try:
        given.run(given)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _add_sweep(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("sweep", help="train what the study of params.yaml lacks, without DVC")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("share", nargs="?", metavar="I/N", help="be a worker that begins with the I-th of N shares")
    what.add_argument("--submit", type=int, metavar="N", help="submit N workers to a cluster and wait for them")
    submission = parser.add_argument_group("options of --submit")
    submission.add_argument("--cluster", choices=("slurm", "local"), default="slurm")
    submission.add_argument("--partition", help="SLURM partition")
    submission.add_argument("--time", type=int, default=1440, metavar="MINUTES", help="limit of a worker (1440)")
    submission.add_argument("--gpus-per-task", type=int, default=1, metavar="G", help="GPUs of a worker (1)")
    submission.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="a parameter of submitit: slurm_account=ct"
    )
    submission.add_argument("--collect", action="store_true", help="run `dvc repro` afterwards")
    parser.set_defaults(run=_sweep)


def _sweep(given: argparse.Namespace) -> None:
    if given.share:
        from kidney_ssl.jobs.pool import end_with_parent  # noqa: PLC0415 - other commands need none of it
        from kidney_ssl.jobs.sweep import refuse_failed, sweep_share  # noqa: PLC0415 - as above

        end_with_parent()
        refuse_failed(sweep_share(given.share))
        return
    from kidney_ssl.jobs.cluster import Submission, submit_study  # noqa: PLC0415 - as above

    submission = Submission(
        workers=given.submit,
        cluster=given.cluster,
        partition=given.partition,
        minutes=given.time,
        gpus=given.gpus_per_task,
        options=given.option,
    )
    submit_study(submission, collect=given.collect)


def _clean(_: argparse.Namespace) -> None:
    from kidney_ssl.jobs.clean import clean  # noqa: PLC0415 - other commands need none of it

    print(f"{clean() / 1e9:.2f} GB freed")


if __name__ == "__main__":
    main()
