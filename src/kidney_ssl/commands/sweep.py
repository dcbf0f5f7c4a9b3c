"""`kidney-ssl sweep`: a worker beside others, here or on a cluster."""

import argparse

from kidney_ssl.commands.own_code import use_own_code


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `sweep`."""
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
    use_own_code(given.words)
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
