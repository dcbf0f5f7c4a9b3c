"""The job of Grad-CAM for an arm: not a training, but it needs torch and a GPU like one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kidney_ssl.jobs.finetuning import MODEL
from kidney_ssl.jobs.study import Study, StudyJob

METRICS, PICTURES = "metrics.json", "pictures"


class Explaining(StudyJob):
    """Grad-CAM of an arm's explained run, and what its augmentation does: pictures and their metrics.

    Args:
        study: the study.
        arm: name of the arm.
        run_folder: returns the folder of an arm's explained run; None while it does not exist.
    """

    kind = "explain"
    needs = (METRICS,)

    def __init__(self, study: Study, arm: str, run_folder: Callable[[str], Path | None] | None = None) -> None:
        self.arm, self._run_folder = arm, run_folder or study.explained_folder
        augmentation = f"kidney_ssl.augmentations.{study.settings.arms[arm].augmentation}"
        super().__init__(study, f"explain {arm}", "kidney_ssl.jobs.explain_files", augmentation)

    @property
    def files(self) -> dict[str, Path] | None:
        """See `StudyJob.files`."""
        own, baseline = (self._run_folder(arm) for arm in (self.arm, self.study.settings.analysis.baseline))
        if own is None or baseline is None:
            return None
        return {
            "baseline": baseline / "predictions.csv",
            "model": own / MODEL,
            "predictions": own / "predictions.csv",
            "regions": Path("data/normalized/regions.json"),
            "test_hu": Path("data/slices/test_images.npy"),
            "test_images": Path("data/normalized/test_images.npy"),
            "test_masks": Path("data/slices/test_masks.npy"),
            "train_images": Path("data/normalized/train_images.npy"),
            "train_masks": Path("data/slices/train_masks.npy"),
            "train_rows": Path("data/slices/train.csv"),
        }

    @property
    def parameters(self) -> dict[str, Any]:
        """See `StudyJob.parameters`."""
        settings = self.study.settings
        return {
            "arm": settings.arms[self.arm].model_dump(mode="json", exclude={"weights", "extra_updates", "recipe"}),
            "batch_size": settings.finetune.batch_size,
            "explain": settings.explain.model_dump(mode="json"),
            "network": settings.network,
        }

    def train(self, folder: Path, checkpoint: Path) -> None:
        """See `Job.train`; it is too short for a checkpoint."""
        from kidney_ssl.jobs.explain_files import explain_files  # noqa: PLC0415 - torch

        self.study.refuse_other_numerics()
        assert self.files is not None
        explain_files(self.files, self.parameters, folder, label=self.name, device=self.study.fabric.device)
