"""Fine-tune an arm's classifier."""

import json
import re
from pathlib import Path

import pandas as pd

from kidney_ssl import params
from kidney_ssl.data.arrays import load_rows
from kidney_ssl.data.budgets import LABELLED, budget_order, in_budget, rows_of
from kidney_ssl.errors import InputError
from kidney_ssl.evaluation.probes import probe_probabilities
from kidney_ssl.jsonfile import write_json
from kidney_ssl.training.augmented import augmenting
from kidney_ssl.training.batches import read_part
from kidney_ssl.training.device import cost, make_fabric
from kidney_ssl.training.finetune import PARTS, finetune
from kidney_ssl.training.frozen import frozen_predictions
from stages import launcher, run


def main(arm: str, budget: str) -> None:
    """Write model, curves and predictions to models/finetune/<arm>-<budget>; `budget` is <percent>-<seed>."""
    settings = params.load()
    compute = settings.compute
    launcher.hand_over(compute.devices * compute.nodes)
    if arm not in settings.arms:
        raise InputError(f"arms: no arm '{arm}' in params.yaml, known: {', '.join(settings.arms)}")
    if not re.fullmatch(r"\d+-\d+", budget):
        raise InputError(f"'{budget}' is no label budget: give <percent>-<seed>, such as 100-0")
    percent, seed = map(int, budget.split("-"))
    name, out = f"{arm}-{budget}", Path(f"models/finetune/{arm}-{budget}")
    fabric = make_fabric(compute.device, compute.precision, compute.threads, compute.devices, compute.nodes)
    start = Path(f"models/arm/{arm}.safetensors")
    described = json.loads(start.with_suffix(".json").read_text(encoding="utf-8"))
    parts = {part: read_part(f"data/normalized/{part}_images.npy", f"data/slices/{part}.csv") for part in PARTS}
    labelled = pd.concat([parts[part].frame[["case", "label"]] for part in LABELLED])
    ranked = in_budget(budget_order(load_rows("data/index/cases.csv"), labelled, seed), percent)
    rows = {part: rows_of(parts[part].frame, ranked, part) for part in LABELLED}
    frozen = None
    # What is done to the training slices changes no encoder: an arm of the same weights without it has been probed.
    if described["augmentation"] == "none" and not described["extra_updates"]:
        frozen = frozen_predictions(
            parts,
            start,
            probe_probabilities,
            rows=rows["train"],
            network=settings.network,
            fabric=fabric,
            batch_size=settings.finetune.batch_size,
            resident=compute.resident,
        )
    result = finetune(
        parts,
        start,
        out,
        fabric=fabric,
        network=settings.network,
        seed=seed,
        label=f"finetune-{name}",
        checkpoints=Path("checkpoints"),
        checkpoint_seconds=60 * compute.checkpoint_minutes,
        resident=compute.resident,
        rows=rows,
        natural=read_part("data/normalized_natural/natural_images.npy", "data/natural/natural.csv"),
        extra_updates=described["extra_updates"],
        augment=augmenting(
            described,
            parts["train"],
            Path("data/slices/train_masks.npy"),
            json.loads(Path("data/normalized/regions.json").read_text(encoding="utf-8")),
            device=fabric.device,
            rows=rows["train"],
        ),
        **settings.finetune.model_dump(),
    )
    if not fabric.is_global_zero:
        return
    ranked.to_csv(out / "cases.csv", index=False)
    if frozen is not None:
        frozen.to_csv(out / "frozen.csv", index=False)
    done = {"images": result.images, "updates": result.updates}
    write_json(Path(f"logs/finetune/{name}.json"), cost(fabric.device, result.seconds) | done)
    print(f"{name}: epoch {result.epoch} of {result.epochs}, {result.images / result.seconds:.0f} slices a second")


if __name__ == "__main__":
    run(main)
