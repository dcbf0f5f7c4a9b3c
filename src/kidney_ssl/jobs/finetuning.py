"""The job of one fine-tuning: an arm at a label budget with a seed."""

from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from kidney_ssl.data.arrays import load_rows
from kidney_ssl.data.budgets import budget_size
from kidney_ssl.jobs.base import is_done
from kidney_ssl.jobs.study import Study, StudyJob
from kidney_ssl.schema import SPLITS

MODEL, CURVES = "model.safetensors", "curves.csv"
FILES = ("cases.csv", CURVES, "epochs.npy", "natural.csv", "predictions.csv")
CASES = Path("data/index/cases.csv")


class Finetuning(StudyJob):
    """A run of an arm: what `kidney_ssl.finetune` writes, the cases of the budget, and the linear probe's predictions.

    The arm's name is not in the key: arms that do the same share their runs. Nor is it why a run has the learning rates
    that it has: a run of a small budget is what it would be with the rate that it takes given by hand.

    Args:
        study: the study.
        arm: name of the arm.
        percent: label budget.
        seed: of the run.
        weights: finds the file of the weights that the arm's runs of a seed start from, None while it is not there.
    """

    kind = "finetune"

    def __init__(
        self, study: Study, arm: str, percent: int, seed: int, weights: Callable[[int], Path | None] | None = None
    ) -> None:
        self.arm, self.block, self.percent, self.seed = arm, study.settings.arms[arm], percent, seed
        self.run = f"{percent}-{seed}"
        self._rates: list[float] | None = None
        self._weights = weights or (lambda seed: study.settings.weights_file(self.block.weights, seed))
        modules = ("kidney_ssl.jobs.finetune_files", f"kidney_ssl.augmentations.{self.block.augmentation}")
        super().__init__(study, f"finetune {arm} {self.run}", *modules)
        self.needs = (*FILES, MODEL) if self.keeps_model else FILES

    @property
    def keeps_model(self) -> bool:
        """Whether the store keeps the network: of all runs, or of the one that is explained (`finetune.keep`)."""
        settings = self.study.settings
        explained = (self.percent, self.seed) == (settings.explain.percent, settings.explain.seed)
        return settings.finetune.keep == "all" or explained

    def chooses(self, validation: int | None = None) -> bool:
        """Whether it chooses rate and epoch on its budget of validation patients, of so many or those of the study."""
        if self.percent == 100:
            return True
        count = self.study.validation_patients if validation is None else validation
        return budget_size(count, self.percent) >= self.study.settings.finetune.search_cases

    @property
    def rates(self) -> list[float] | None:
        """The learning rates that it trains with; None while they are not known.

        All of `finetune.learning_rates` where it chooses. Else the one that most of the arm's runs at 100 % chose, of
        equally many the first of the list; those runs must be in the store.
        """
        tried = self.study.settings.finetune.learning_rates
        if self._rates is None and (len(tried) == 1 or self.percent == 100):
            self._rates = tried
        if self._rates is None and CASES.exists():
            self._rates = tried if self.chooses() else self._of_whole_runs(tried)
        return self._rates

    @cached_property
    def _whole_runs(self) -> list["Finetuning"]:
        """The arm's runs at 100 %, made once: workers ask thousands of jobs for their keys."""
        return [Finetuning(self.study, self.arm, 100, seed, self._weights) for seed in self.study.settings.runs[100]]

    def _of_whole_runs(self, tried: list[float]) -> list[float] | None:
        store = self.study.store
        if not all(is_done(store, run) for run in self._whole_runs):
            return None
        chosen = [_chosen_rate(store.path(str(run.key())) / CURVES) for run in self._whole_runs]
        # The nearest, since a table's numbers are read to within a rounding.
        counts = Counter(min(tried, key=lambda rate: abs(rate - one)) for one in chosen)
        return [max(tried, key=lambda rate: counts[rate])]

    @property
    def files(self) -> dict[str, Path] | None:
        """See `StudyJob.files`."""
        start = self._weights(self.seed)
        if start is None or self.rates is None:
            return None
        found = {
            "start": start,
            "cases": CASES,
            "natural_images": Path("data/normalized_natural/natural_images.npy"),
            "natural_rows": Path("data/natural/natural.csv"),
            "regions": Path("data/normalized/regions.json"),
            "train_masks": Path("data/slices/train_masks.npy"),
        }
        for part in SPLITS:
            found[f"{part}_images"] = Path(f"data/normalized/{part}_images.npy")
            found[f"{part}_rows"] = Path(f"data/slices/{part}.csv")
        return found

    @property
    def parameters(self) -> dict[str, Any]:
        """See `StudyJob.parameters`."""
        settings = self.study.settings
        chosen = settings.finetune_of(self.arm) | {"learning_rates": self.rates}
        if not self.chooses():
            chosen["select"] = "last"
        return {
            # No name of a recipe: arms that do the same share their runs.
            "arm": self.block.model_dump(mode="json", exclude={"weights", "recipe"}),
            "finetune": {key: value for key, value in chosen.items() if key not in ("keep", "recipe", "search_cases")},
            "network": settings.network,
            "percent": self.percent,
            "seed": self.seed,
        }

    def train(self, folder: Path, checkpoint: Path) -> None:
        """See `Job.train`."""
        from kidney_ssl.jobs.finetune_files import Finetuner  # noqa: PLC0415 - torch

        self._rates = self.agree(self.rates)
        files, context, held = self.files, self.context(self.seed, checkpoint), self.study.held
        assert files is not None
        if "finetuner" not in held:
            resident = self.study.settings.compute.resident
            held["finetuner"] = Finetuner(files, context.fabric.device, resident=resident)
        held["finetuner"].run(files["start"], self.parameters, folder, context)
        if self.first and not self.keeps_model:
            (folder / MODEL).unlink()


def _chosen_rate(curves: Path) -> float:
    """The learning rate of the selected epoch."""
    rows = load_rows(curves)
    return float(rows.loc[rows["selected"] == 1, "learning_rate"].iloc[0])
