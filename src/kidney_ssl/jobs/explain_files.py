"""Grad-CAM of a classifier, from files to files; the code whose version is part of its key in the store."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from kidney_ssl.augmentations.augmented import augmenting, epoch_metrics, operation_pictures
from kidney_ssl.data.arrays import load_array, load_rows
from kidney_ssl.engine.batches import Slices, read_part
from kidney_ssl.engine.device_array import DeviceArray
from kidney_ssl.explain import default_layer, grad_cam, to_frame
from kidney_ssl.jsonfile import write_json
from kidney_ssl.metrics.gallery import outcomes, same_slices, worst_errors
from kidney_ssl.metrics.saliency import correlation, measured, shares
from kidney_ssl.models.resnet import classifier, reestimate_batch_norm
from kidney_ssl.models.weights import load_classifier
from kidney_ssl.report.pictures import write_card, write_picture

BATCH = 32
PICTURED = 6  # training slices in the pictures of an augmentation


def explain_files(
    files: Mapping[str, Path], parameters: Mapping[str, Any], folder: Path, *, label: str, device: torch.device
) -> None:
    """Write pictures/ (cards of slices, maps.npy, pictures of the augmentation) and metrics.json.

    Args:
        files: by name: model, predictions, baseline (its predictions), regions, and arrays of the parts.
        parameters: arm (augmentation, options), explain, network and batch_size.
        folder: where they are written.
        label: the arm's name in messages.
        device: where the network runs.
    """
    wanted, network = parameters["explain"], parameters["network"]
    images, masks = load_array(files["test_images"]), load_array(files["test_masks"])
    own, baseline = (_predictions(files[name]) for name in ("predictions", "baseline"))
    model = classifier(network, 0).to(device)
    load_classifier(model, files["model"])

    def maps_of(model: torch.nn.Module, rows: np.ndarray) -> torch.Tensor:
        batches = np.array_split(rows, max(1, -(-len(rows) // BATCH)))
        return torch.cat([grad_cam(model, _batch(images, part, device), wanted["layer"]).cpu() for part in batches])

    rows = measured(len(own), wanted["slices"])
    random = classifier(network, wanted["seed"]).to(device)
    parts = np.array_split(rows, max(1, min(4, len(rows) // 2)))  # one value a channel has no variance
    reestimate_batch_norm(random, (_batch(images, part, device) for part in parts))
    found = {"": maps_of(model, rows), "randomised_": maps_of(random, rows)}
    chosen = {"same": same_slices(baseline, wanted["same"]), "error": worst_errors(own, wanted["errors"])}
    pictures = folder / "pictures"
    pictures.mkdir()
    np.save(pictures / "maps.npy", found[""].numpy().astype(np.float16))
    size = images.shape[-1]
    cards = []
    for kind, some in chosen.items():
        for row, activation in zip(some, to_frame(maps_of(model, some), size) if len(some) else (), strict=True):
            file = f"{kind}_{own['case'][row]}_{own['slice'][row]:04d}.webp"
            write_card(pictures / file, images[row].astype(np.float32), masks[row] == 2, activation.numpy())
            cards.append({"kind": kind, "file": file, "row": row})
    _write_cards(pictures / "cards.csv", pd.DataFrame(cards, columns=["kind", "file", "row"]), own, baseline)
    hu = load_array(files["test_hu"])[rows]
    metrics: dict[str, object] = {
        "augmentation": _augmentation(files, parameters, pictures, label, device),
        "layer": wanted["layer"] or default_layer(model),
        "map_height": found[""].shape[1],
        "map_width": found[""].shape[2],
        "correlation_randomised": correlation(found[""].numpy(), found["randomised_"].numpy()),
    }
    for prefix, maps in found.items():
        of_maps = shares(to_frame(maps, size).numpy(), masks[rows], hu)
        metrics |= {f"{prefix}{name}": value for name, value in of_maps.items()}
    write_json(folder / "metrics.json", metrics)


def _augmentation(
    files: Mapping[str, Path], parameters: Mapping[str, Any], pictures: Path, label: str, device: torch.device
) -> dict[str, float] | None:
    """Show each operation of the arm's augmentation, and measure an epoch of it; None without one."""
    seed = parameters["explain"]["seed"]
    part = read_part(files["train_images"], files["train_rows"])
    found = augmenting(
        parameters["arm"]["augmentation"],
        parameters["arm"]["options"],
        Slices(part, device=device, resident="never"),
        DeviceArray(load_array(files["train_masks"]), device, "never"),
        json.loads(files["regions"].read_text(encoding="utf-8")),
        key=f"{label}: options",
    )
    if found is None:
        return None
    for title, picture in operation_pictures(found, seed=seed, count=PICTURED).items():
        write_picture(pictures / "augmentation" / f"{title}.png", picture.images.cpu().numpy(), picture.columns)
    return epoch_metrics(found, seed=seed, batch_size=parameters["batch_size"])


def _batch(images: np.ndarray, rows: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(images[rows]).to(device).float().unsqueeze(1)


def _predictions(path: Path) -> pd.DataFrame:
    """Predictions on the test part, whose rows are those of the test arrays."""
    table = load_rows(path)
    return table[table["part"] == "test"].reset_index(drop=True)


def _write_cards(path: Path, cards: pd.DataFrame, own: pd.DataFrame, baseline: pd.DataFrame) -> None:
    rows = cards.pop("row").to_numpy(dtype=np.int64)
    shown = own.iloc[rows].reset_index(drop=True)
    cards = pd.concat([cards, shown[["case", "slice", "class", "label", "probability"]]], axis=1)
    cards = cards.assign(outcome=outcomes(own)[rows], baseline_outcome=outcomes(baseline)[rows])
    cards.to_csv(path, index=False, lineterminator="\n")
