"""Run a share of a study's missing trainings without DVC: `python -m stages.sweep [I/N]`.

The same as `kidney-ssl sweep I/N`. Any number of these run side by side, here or on other machines that share the
folders. `dvc repro` then collects the results.
"""

from kidney_ssl.jobs.sweep import refuse_failed, sweep_share


def main(share: str = "1/1") -> None:
    """Train what is missing, first the I-th of N shares, then what is left of the others."""
    refuse_failed(sweep_share(share))


if __name__ == "__main__":
    from stages.run import run

    run(main)
