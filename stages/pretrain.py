"""Pretrain an encoder without labels; a control may read the masks."""

import json
import math
import shutil
from pathlib import Path

from kidney_ssl import params, pretext
from kidney_ssl.data.arrays import load_rows
from kidney_ssl.errors import InputError
from kidney_ssl.evaluation.probes import probe_accuracy
from kidney_ssl.jsonfile import write_json
from kidney_ssl.pretext.base import Setting, read_options
from kidney_ssl.report.pictures import write_picture
from kidney_ssl.training.batches import read_part
from kidney_ssl.training.device import cost, make_fabric
from kidney_ssl.training.pretrain import Plateau, pretrain
from stages import launcher, run


def main(name: str) -> None:
    """Write encoder, curves, pictures and figures of pretrain.methods.<name>."""
    settings = params.load()
    if name not in settings.pretrain.methods:
        raise InputError(f"pretrain.methods: no '{name}', there are {', '.join(settings.pretrain.methods)}")
    block, compute = settings.pretrain.methods[name], settings.compute
    launcher.hand_over(compute.devices * compute.nodes)
    fabric = make_fabric(compute.device, compute.precision, compute.threads, compute.devices, compute.nodes)
    method = pretext.load(block.method)
    parts = {
        part: read_part(
            f"data/normalized/{part}_images.npy",
            f"data/slices/{part}.csv",
            f"data/slices/{part}_masks.npy" if method.reads_masks else None,
        )
        for part in ("train", "validation")
    }
    pool = parts["train"]
    if settings.pretrain.pool == "all" and not method.reads_masks:  # the pool's slices have no masks
        pool = read_part("data/normalized_pool/pool_images.npy", "data/pool/pool.csv")
    options = read_options(method, block.options, f"pretrain.methods.{name}.options")
    regions = json.loads(Path("data/normalized/regions.json").read_text(encoding="utf-8"))
    setting = Setting(
        settings.network, pool.images.shape[1], regions, block.seed, settings.finetune.batch_norm_momentum
    )
    result = pretrain(
        method(setting, options),
        pool,
        parts,
        Path(f"models/initial/{block.start}.safetensors"),
        Path(f"models/pretrain/{name}.safetensors"),
        forbidden={part: load_rows(f"data/slices/{part}.csv") for part in ("validation", "test")},
        fabric=fabric,
        settings=block.model_dump()
        | {"network": settings.network, "regions": regions, "momentum": settings.finetune.batch_norm_momentum},
        plateau=Plateau(**block.plateau.model_dump()) if block.plateau else None,
        label=f"pretrain-{name}",
        checkpoints=Path("checkpoints"),
        checkpoint_seconds=60 * compute.checkpoint_minutes,
        probe=probe_accuracy,
        probe_every=settings.pretrain.probe_every,
        resident=compute.resident,
        **block.model_dump(include={"epochs", "min_updates", "batch_size", "learning_rate", "weight_decay", "seed"}),
    )
    if not fabric.is_global_zero:
        return
    curves = Path(f"metrics/pretrain/{name}.csv")
    curves.parent.mkdir(parents=True, exist_ok=True)
    result.curves.round(6).to_csv(curves, index=False, lineterminator="\n")
    last = {key: None if math.isnan(value) else round(value, 6) for key, value in result.curves.iloc[-1].items()}
    done = {"images": result.images, "updates": result.updates}
    said = {"control": method.control, "options": options.model_dump()}
    write_json(Path(f"metrics/pretrain/{name}.json"), last | done | said)
    pictures = Path(f"report/pretrain/{name}")
    shutil.rmtree(pictures, ignore_errors=True)
    for title, picture in result.pictures.items():
        outlined = None if picture.outlined is None else picture.outlined.cpu().numpy()
        write_picture(pictures / f"{title}.png", picture.images.float().cpu().numpy(), picture.columns, outlined)
    write_json(Path(f"logs/pretrain/{name}.json"), cost(fabric.device, result.seconds) | done)
    print(f"{name}: {result.updates} updates, {result.images / result.seconds:.0f} slices a second, {last}")


if __name__ == "__main__":
    run(main)
