"""Fine-tune an arm's classifier."""

import json
from pathlib import Path

from kidney_ssl import params
from kidney_ssl.errors import InputError
from kidney_ssl.jsonfile import write_json
from kidney_ssl.training.augmented import augmenting
from kidney_ssl.training.batches import read_part
from kidney_ssl.training.device import cost, make_fabric
from kidney_ssl.training.finetune import PARTS, finetune
from stages import run


def main(arm: str, percent: str, seed: str) -> None:
    """Write model, curves and predictions to models/finetune/<arm>-<percent>-<seed>."""
    settings = params.load()
    if arm not in settings.arms:
        raise InputError(f"arms: no arm '{arm}' in params.yaml, known: {', '.join(settings.arms)}")
    name, compute = f"{arm}-{percent}-{seed}", settings.compute
    parts = {part: read_part(f"data/normalized/{part}_images.npy", f"data/slices/{part}.csv") for part in PARTS}
    fabric = make_fabric(compute.device, compute.precision, compute.threads)
    result = finetune(
        parts,
        Path(f"models/arm/{arm}.safetensors"),
        Path(f"models/finetune/{name}"),
        fabric=fabric,
        network=settings.network,
        seed=int(seed),
        label=f"finetune-{name}",
        checkpoints=Path("checkpoints"),
        resident=compute.resident,
        augment=augmenting(
            json.loads(Path(f"models/arm/{arm}.json").read_text(encoding="utf-8")),
            parts["train"],
            Path("data/slices/train_masks.npy"),
            json.loads(Path("data/normalized/regions.json").read_text(encoding="utf-8")),
            device=fabric.device,
        ),
        **settings.finetune.model_dump(),
    )
    done = {"images": result.images, "updates": result.updates}
    write_json(Path(f"logs/finetune/{name}.json"), cost(fabric.device, result.seconds) | done)
    print(f"{name}: epoch {result.epoch} of {result.epochs}, {result.images / result.seconds:.0f} slices a second")


if __name__ == "__main__":
    run(main)
