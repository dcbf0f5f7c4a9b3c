"""A pretraining from files to files; the code that its key in the store is made of."""

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np

from kidney_ssl import methods
from kidney_ssl.data.arrays import load_rows
from kidney_ssl.data.thinning import ChosenRows, kept_rows
from kidney_ssl.engine.batches import Part, read_part
from kidney_ssl.engine.device import cost
from kidney_ssl.engine.loop import TrainingContext
from kidney_ssl.jsonfile import write_json
from kidney_ssl.methods.base import Setting, read_options
from kidney_ssl.metrics.probes import probe_accuracy
from kidney_ssl.pretrain import Recipe, pretrain
from kidney_ssl.report.pictures import write_picture


def pretrain_files(
    files: Mapping[str, Path],
    parameters: Mapping[str, Any],
    folder: Path,
    context: TrainingContext,
    *,
    resident: str,
) -> None:
    """Pretrain and write encoder.safetensors, curves.csv, metrics.json, pictures/ and cost.json.

    Args:
        files: by name: start, regions, and images, rows and masks of the parts and the pool.
        parameters: method, options, seed, network, pool, thin, batch_norm_momentum and the recipe.
        folder: where they are written.
        context: where and as what.
        resident: see `DeviceArray`.
    """
    method = methods.load(parameters["method"])
    masks = {part: files[f"{part}_masks"] if method.reads_masks else None for part in ("train", "validation")}
    parts = {part: read_part(files[f"{part}_images"], files[f"{part}_rows"], masks[part]) for part in masks}
    pool, images, thinned = parts["train"], files["train_images"], {}
    if parameters["pool"] == "all" and not method.reads_masks:  # the pool's slices have no masks
        images = files["pool_images"]
        pool = read_part(images, files["pool_rows"])
    if (thin := parameters["thin"]) and not method.reads_masks:
        # The first process's, since another machine may round another way.
        rows = context.fabric.broadcast(kept_rows(pool.frame, thin, images))
        thinned = {"thin": thin | {"slices": len(rows), "of": len(pool.frame)}}
        chosen = cast(np.ndarray, ChosenRows(pool.images, rows))  # all that is read of it is rows
        pool = Part(chosen, pool.frame.iloc[rows].reset_index(drop=True))
    options = read_options(method, parameters["options"], f"{context.label}: options")
    setting = Setting(
        parameters["network"],
        pool.images.shape[1],
        json.loads(files["regions"].read_text(encoding="utf-8")),
        parameters["seed"],
        parameters["batch_norm_momentum"],
    )
    recipe = Recipe(**{field.name: parameters[field.name] for field in fields(Recipe)})
    result = pretrain(
        method(setting, options),
        pool,
        parts,
        files["start"],
        folder / "encoder.safetensors",
        recipe=recipe,
        context=context,
        forbidden={part: load_rows(files[f"{part}_rows"]) for part in ("validation", "test")},
        probe=probe_accuracy,
        resident=resident,
    )
    if not context.fabric.is_global_zero:
        return
    rates = result.curves["train_learning_rate"]  # of more than 6 digits
    curves = result.curves.round(6).assign(train_learning_rate=rates)
    curves.to_csv(folder / "curves.csv", index=False, lineterminator="\n")
    last = {key: None if math.isnan(value) else value for key, value in curves.iloc[-1].items()}
    done = {"images": result.slices, "updates": result.updates} | thinned
    write_json(folder / "metrics.json", last | done | {"control": method.control, "options": options.model_dump()})
    took = {"images": result.images, "updates": result.updates}
    write_json(folder / "cost.json", cost(context.fabric.device, result.seconds) | took)
    for title, picture in result.pictures.items():
        outlined = None if picture.outlined is None else picture.outlined.cpu().numpy()
        file = folder / "pictures" / f"{title}.png"
        try:
            write_picture(file, picture.images.float().cpu().numpy(), picture.columns, outlined)
        except Exception as error:  # noqa: BLE001 - a training is worth more than a picture that fails
            warnings.warn(f"{context.label}: pictures: {title}: left out ({error})", stacklevel=2)
