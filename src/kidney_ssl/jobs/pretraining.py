"""The job of one pretraining."""

from pathlib import Path
from typing import Any

from kidney_ssl.jobs.study import Study, StudyJob
from kidney_ssl.schema import SPLITS

ENCODER, CURVES, METRICS = "encoder.safetensors", "curves.csv", "metrics.json"
PICTURES = "pictures"


class Pretraining(StudyJob):
    """A block of `pretrain.methods` with one of its seeds: encoder, curves, metrics, pictures of what the method does.

    The block's name is not in the key.

    Args:
        study: the study.
        name: of the block.
        seed: decides heads, order and draws, and which replicate of the initial weights it starts from.
    """

    kind = "pretrain"
    needs = (ENCODER, CURVES, METRICS)

    def __init__(self, study: Study, name: str, seed: int) -> None:
        self.block, self.seed = study.settings.pretrain.methods[name], seed
        modules = ("kidney_ssl.jobs.pretrain_files", f"kidney_ssl.methods.{self.block.method}")
        super().__init__(study, f"pretrain {name} {seed}", *modules)

    @property
    def files(self) -> dict[str, Path]:
        """All that any pretraining may read."""
        found = {
            "start": self.study.settings.weights_file(f"initial/{self.block.start}", self.seed),
            "regions": Path("data/normalized/regions.json"),
            "pool_images": Path("data/normalized_pool/pool_images.npy"),
            "pool_rows": Path("data/pool/pool.csv"),
        }
        for part in SPLITS:
            found[f"{part}_rows"] = Path(f"data/slices/{part}.csv")
        for part in ("train", "validation"):
            found[f"{part}_images"] = Path(f"data/normalized/{part}_images.npy")
            found[f"{part}_masks"] = Path(f"data/slices/{part}_masks.npy")
        return found

    @property
    def parameters(self) -> dict[str, Any]:
        """See `StudyJob.parameters`."""
        settings = self.study.settings
        return self.block.model_dump(mode="json", exclude={"start", "recipe", "seeds"}) | {
            "batch_norm_momentum": settings.finetune.batch_norm_momentum,
            "network": settings.network,
            "pool": settings.pretrain.pool,
            "thin": settings.pretrain.thin and settings.pretrain.thin.model_dump(exclude_none=True),
            "seed": self.seed,
            "evaluations": settings.pretrain.evaluations,
        }

    def train(self, folder: Path, checkpoint: Path) -> None:
        """See `Job.train`."""
        from kidney_ssl.jobs.pretrain_files import pretrain_files  # noqa: PLC0415 - torch

        context = self.context(self.seed, checkpoint)
        pretrain_files(self.files, self.parameters, folder, context, resident=self.study.settings.compute.resident)
