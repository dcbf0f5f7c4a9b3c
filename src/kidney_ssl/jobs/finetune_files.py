"""Fine-tunings from files to files; the code that their keys in the store are made of."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from kidney_ssl.augmentations.augmented import augmenting
from kidney_ssl.data.arrays import load_array, load_rows
from kidney_ssl.data.budgets import budget_order, in_budget, rows_of
from kidney_ssl.encoder_probe import probe_predictions
from kidney_ssl.engine.batches import Slices, read_part
from kidney_ssl.engine.device import cost
from kidney_ssl.engine.device_array import DeviceArray
from kidney_ssl.engine.loop import TrainingContext
from kidney_ssl.finetune import Recipe, finetune
from kidney_ssl.jsonfile import write_json
from kidney_ssl.schema import LABELLED, SPLITS


class Finetuner:
    """Fine-tunes many runs on arrays that are loaded once.

    Args:
        files: by name: cases, regions, train_masks, and images and rows of the parts and the natural test set.
        device: where the arrays lie.
        resident: see `DeviceArray`.
    """

    def __init__(self, files: Mapping[str, Path], device: torch.device, *, resident: str) -> None:
        self.files, self.device, self.resident = files, device, resident
        self.data = {
            part: Slices(read_part(files[f"{part}_images"], files[f"{part}_rows"]), device=device, resident=resident)
            for part in (*SPLITS, "natural")
        }
        self.regions = json.loads(files["regions"].read_text(encoding="utf-8"))

    @cached_property
    def masks(self) -> DeviceArray:
        """Masks of the training part; loaded for the first arm that reads them."""
        return DeviceArray(load_array(self.files["train_masks"]), self.device, self.resident)

    def run(self, start: Path, parameters: Mapping[str, Any], folder: Path, context: TrainingContext) -> None:
        """Fine-tune one run and write what `finetune` writes, cases.csv, cost.json and, with clean slices, frozen.csv.

        Args:
            start: weights of the encoder.
            parameters: see `Finetuning.parameters`.
            folder: where they are written.
            context: see `TrainingContext`.
        """
        arm, network = parameters["arm"], parameters["network"]
        frames = {part: self.data[part].part.frame for part in LABELLED}
        labelled = pd.concat([frame[["case", "label"]] for frame in frames.values()])
        order = budget_order(load_rows(self.files["cases"]), labelled, parameters["seed"])
        ranked = in_budget(order, parameters["percent"])
        data = self.data | {
            part: self.data[part].subset(rows_of(frame, ranked, part)) for part, frame in frames.items()
        }
        recipe = Recipe(network=network, extra_updates=arm["extra_updates"], **parameters["finetune"])
        augment = augmenting(
            arm["augmentation"],
            arm["options"],
            data["train"],
            lambda rows: self.masks(rows),  # noqa: PLW0108 - loaded when an arm first asks for masks
            self.regions,
            key=f"{context.label}: options",
        )
        result = finetune(data, start, folder, recipe=recipe, context=context, augment=augment)
        probed = None
        # What is done to the training slices changes no encoder: an arm of the same weights without it is probed.
        if arm["augmentation"] == "none" and not arm["extra_updates"]:
            size = recipe.batch_size
            probed = probe_predictions(data, start, network=network, fabric=context.fabric, batch_size=size)
        if not context.fabric.is_global_zero:
            return
        ranked.to_csv(folder / "cases.csv", index=False)
        if probed is not None:
            probed.to_csv(folder / "frozen.csv", index=False)
        took = {"images": result.images, "updates": result.updates}
        write_json(folder / "cost.json", cost(self.device, result.seconds) | took)
