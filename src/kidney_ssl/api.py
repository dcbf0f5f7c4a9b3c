"""The functions for a notebook: from a CT volume to slices, pretraining, fine-tuning and Grad-CAM.

Slices of one or more volumes are a `Part`: images (N, S, S) in [0, 1] and a table with a row each. A study with arms,
label budgets and intervals is `kidney-ssl run`; these are its parts, with fewer choices. Nothing is a medical device.

Example:
    >>> from kidney_ssl import api
    >>> volume, labels = api.phantom(3, size=48, slices=0.5)
    >>> part = api.standardise(volume, labels, case="case_3", size=32)
    >>> part.images.shape == (len(volume.array), 32, 32)
    True
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from kidney_ssl import explain as grad_cam
from kidney_ssl import finetune as finetuning
from kidney_ssl import methods
from kidney_ssl import pretrain as pretraining
from kidney_ssl.catalog import list_augmentations, list_methods
from kidney_ssl.data import body
from kidney_ssl.data import phantom as phantoms
from kidney_ssl.data import volume as volumes
from kidney_ssl.data.normalization import normalise
from kidney_ssl.data.selection import classify, slice_rows
from kidney_ssl.data.volume import Grid, Volume
from kidney_ssl.engine.batches import Part, Slices, ordered_batches, seeded
from kidney_ssl.engine.device import make_fabric
from kidney_ssl.engine.loop import TrainingContext
from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Picture, Pretext, Rectangle, Setting, read_options
from kidney_ssl.models import resnet, weights
from kidney_ssl.pretext import Shown
from kidney_ssl.schema import SMALL, TUMOR

__all__ = [
    "explain",
    "finetune",
    "join",
    "list_augmentations",
    "list_methods",
    "load_classifier",
    "load_encoder",
    "phantom",
    "predict",
    "pretrain",
    "read_volume",
    "standardise",
    "views",
]

WINDOW = (-150.0, 250.0)  # HU, as in studies/kits23.yaml
# Where kidneys lie in the body frame, as in studies/kits23.yaml.
KIDNEYS: Mapping[str, Rectangle] = {"left": (0.4, 0.8, 0.1, 0.45), "right": (0.4, 0.8, 0.55, 0.9)}
BATCH = 32  # slices that pass through a network together
MOMENTUM = 0.3  # of batch norm: few updates


def read_volume(path: str | Path, *, labels: bool = False) -> Volume:
    """Read a NIfTI volume: slices from the top, rows from the front, columns from the patient's right.

    Args:
        path: .nii or .nii.gz, with any order of axes.
        labels: whether it is a label volume (0 none, 1 kidney, 2 tumor, 3 cyst) and not imaging in HU.

    Returns:
        `array` (slices, H, W), int16 HU or uint8 labels; `grid` with the spacing in mm; `notes`.

    Raises:
        InputError: the file is missing, damaged or no such volume; one line that names it.

    Example:
        >>> read_volume("absent.nii.gz")
        Traceback (most recent call last):
        kidney_ssl.errors.InputError: absent.nii.gz: no such file
    """
    return volumes.read_volume(Path(path), np.uint8 if labels else np.int16)


def phantom(number: int = 0, *, size: int = 128, slices: float = 1.0, seed: int = 0) -> tuple[Volume, Volume]:
    """Make a synthetic CT of an abdomen with kidneys and a tumor; it says nothing about patients.

    Args:
        number: of the case; a case depends on it and on `seed` alone.
        size: side of a slice in pixels.
        slices: factor on the number of slices; 1 gives 14 to 112.
        seed: of all cases.

    Returns:
        Imaging (slices, H, W) int16 HU, and labels uint8: 0 none, 1 kidney, 2 tumor, 3 cyst.

    Example:
        >>> imaging, labels = phantom(3, size=48, slices=0.5)
        >>> imaging.array.dtype.name, labels.array.max() >= 2
        ('int16', np.True_)
    """
    imaging, labels, spacing = phantoms.make_case(number, size=size, slices=slices, seed=seed)
    thickness, row_mm, column_mm = spacing
    affine = np.array([[0, 0, -column_mm, 0], [0, -row_mm, 0, 0], [-thickness, 0, 0, 0], [0, 0, 0, 1.0]])
    grid = Grid((imaging.shape[0], imaging.shape[1], imaging.shape[2]), spacing, affine)
    return Volume(imaging.astype(np.int16), grid, ()), Volume(labels, grid, ())


def standardise(
    volume: Volume,
    labels: Volume | None = None,
    *,
    case: str = "case",
    size: int = 224,
    window: tuple[float, float] = WINDOW,
    min_tumor_px: int = 1,
    rows: Sequence[int] | None = None,
) -> Part:
    """Cut every slice to the body, resize it to one frame and scale it from HU to [0, 1].

    Args:
        volume: imaging in HU.
        labels: on the same grid, for classes and masks.
        case: name of the volume; slices of one case never come into two parts.
        size: side S of the frame in pixels; 512 in the study of KiTS23.
        window: low and high in HU.
        min_tumor_px: tumor pixels on the volume's grid from which a slice is of class tumor. Slices with fewer, but
            some, are of class small; leave them out for training.
        rows: slices to take, from 0 at the top; all by default.

    Returns:
        Images (N, S, S) float16, a table with case, slice, position, thickness_mm, class and label (1 for tumor; with
        no labels all are of class "" and label 0), and masks (N, S, S) uint8 if there are labels.

    Raises:
        InputError: imaging and labels have different shapes.

    Example:
        >>> part = standardise(*phantom(3, size=48, slices=0.5), size=32)
        >>> sorted(part.frame["class"].unique())
        ['background', 'kidney', 'tumor']
    """
    given = np.zeros(volume.array.shape, np.uint8) if labels is None else labels.array
    if given.shape != volume.array.shape:
        raise InputError(f"{case}: imaging is {volume.array.shape} but labels {given.shape}: their grids must agree")
    frame = body.Frame(size, body_hu=-300, opening_mm=6.0)
    spacing = volume.grid.spacing_mm
    taken = list(range(len(given)) if rows is None else rows)
    framed = [body.standardise(volume.array[row], given[row], spacing[1:], frame)[:2] for row in taken]
    images, masks = (np.stack(arrays) for arrays in zip(*framed, strict=True))
    areas = np.stack([np.bincount(one.ravel(), minlength=4) for one in given])
    table = slice_rows(case, areas, spacing, "other").iloc[taken].reset_index(drop=True)
    table["class"] = "" if labels is None else classify(table, min_tumor_px).replace("", SMALL)
    table["label"] = (table["class"] == TUMOR).astype(int)
    return Part(normalise(images, window, "window"), table, None if labels is None else masks)


def join(*parts: Part) -> Part:
    """Put the slices of several volumes into one part; masks only if all have them.

    Example:
        >>> one, other = (standardise(*phantom(n, size=48, slices=0.5), case=f"case_{n}", size=32) for n in (3, 4))
        >>> len(join(one, other).images) == len(one.images) + len(other.images)
        True
    """
    masks = [part.masks for part in parts if part.masks is not None]
    return Part(
        np.concatenate([part.images for part in parts]),
        pd.concat([part.frame for part in parts], ignore_index=True),
        np.concatenate(masks) if len(masks) == len(parts) else None,
    )


def views(
    method: str,
    part: Part,
    *,
    options: Mapping[str, Any] | None = None,
    network: str = "resnet18",
    regions: Mapping[str, Rectangle] = KIDNEYS,
    seed: int = 0,
) -> dict[str, Picture]:
    """Show what a pretext task gives its network and asks of it. The network is fresh: what it restores is noise.

    Args:
        method: one of `list_methods()`.
        part: the slices to show; with masks for a method that reads them.
        options: the method's own, see its file.
        network: see `kidney_ssl.models.resnet.classifier`.
        regions: rectangles around the organ in fractions of the side: top, bottom, left, right.
        seed: of weights and draws.

    Returns:
        Title -> picture: `images` (rows, columns, H, W) in [0, 1], a title for each column, and what to outline.

    Raises:
        InputError: no such method or option, or masks are missing.

    Example:
        >>> part = standardise(*phantom(3, size=48, slices=0.5), size=32)
        >>> views("rotation", part)["rotations"].images.shape[1]
        4
    """
    built = _built(method, part, options, Setting(network, part.images.shape[1], regions, seed)).eval()
    slices = Slices(part if built.reads_masks else replace(part, masks=None), device=torch.device("cpu"))
    with torch.inference_mode():
        given = Shown(built, slices, updates=1)(slices.batch(torch.arange(len(slices))))
        return dict(built.pictures(given, seeded(seed, "pictures")))


def pretrain(
    method: str,
    train: Part,
    validation: Part,
    out: str | Path,
    *,
    start: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    network: str = "resnet18",
    regions: Mapping[str, Rectangle] = KIDNEYS,
    epochs: int = 1,
    batch_size: int = 16,
    learning_rate: float = 5e-4,
    seed: int = 0,
    device: str = "auto",
) -> pd.DataFrame:
    """Pretrain an encoder with a pretext task, without labels, and write its weights.

    Args:
        method: one of `list_methods()`.
        train: slices to train on.
        validation: slices of other cases, for the task's metrics.
        out: the encoder's file, safetensors.
        start: file of the weights to start from; random ones by default.
        options: the method's own, see its file.
        network: see `kidney_ssl.models.resnet.classifier`.
        regions: as for `views`.
        epochs: passes over the training slices.
        batch_size: slices a step.
        learning_rate: of Adam.
        seed: of weights, order and draws: the same one gives the same file on one type of CPU.
        device: cpu, cuda, or auto.

    Returns:
        A row for each epoch: train_loss, and the task's metrics on validation slices beside a trivial predictor's.

    Raises:
        InputError: no such method or option, a case in both parts, too few slices, or weights that do not fit.

    Example:
        >>> one, other = (standardise(*phantom(n, size=48, slices=0.3), case=f"case_{n}", size=32) for n in (3, 4))
        >>> curves = pretrain("rotation", one, other, "encoder.safetensors", device="cpu")
        >>> bool(curves["validation_accuracy"].between(0, 1).all())
        True
    """
    built = _built(method, train, options, Setting(network, train.images.shape[1], regions, seed, MOMENTUM))
    recipe = pretraining.Recipe(
        epochs=epochs, min_updates=0, batch_size=batch_size, learning_rate=learning_rate, evaluations=epochs
    )
    with TemporaryDirectory() as folder:
        return pretraining.pretrain(
            built,
            train,
            {"train": train, "validation": validation},
            _start(start, network, seed, Path(folder)),
            Path(out),
            recipe=recipe,
            context=_context(f"pretrain {method}", seed, device, Path(folder)),
            forbidden={"validation": validation.frame},
        ).curves


def finetune(
    train: Part,
    validation: Part,
    test: Part,
    out: str | Path,
    *,
    encoder: str | Path | None = None,
    network: str = "resnet18",
    epochs: int = 5,
    batch_size: int = 16,
    learning_rates: Sequence[float] = (5e-4,),
    seed: int = 0,
    device: str = "auto",
) -> pd.DataFrame:
    """Train a classifier, tumor against the rest, from an encoder or from random weights.

    Args:
        train: labelled slices, of both classes.
        validation: slices of other cases, on which epoch and learning rate are chosen.
        test: slices of further cases, which choose nothing.
        out: folder for model.safetensors, curves.csv, predictions.csv and epochs.npy.
        encoder: file that `pretrain` wrote; random weights by default.
        network: as for `pretrain`, and the same.
        epochs: passes over the training slices.
        batch_size: slices a step.
        learning_rates: of Adam; the best on validation is kept.
        seed: of head and order.
        device: cpu, cuda, or auto.

    Returns:
        Predictions: part (validation or test), case, slice, class, label, probability.

    Raises:
        InputError: a case is in two parts, all training slices have one class, or the weights do not fit.

    Example:
        >>> parts = [standardise(*phantom(n, size=48, slices=0.3), case=f"case_{n}", size=32) for n in (3, 4, 5)]
        >>> predictions = finetune(*parts, "classifier", epochs=1, device="cpu")
        >>> list(predictions["part"].unique())
        ['validation', 'test']
    """
    recipe = finetuning.Recipe(
        network=network,
        epochs=epochs,
        batch_size=batch_size,
        learning_rates=list(learning_rates),
        min_updates=0,
        evaluations=epochs,
        batch_norm_momentum=MOMENTUM,
    )
    Path(out).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        context = _context("finetune", seed, device, Path(folder))
        parts = {"train": train, "validation": validation, "test": test}
        return finetuning.finetune(
            {name: Slices(part, device=context.fabric.device) for name, part in parts.items()},
            _start(encoder, network, seed, Path(folder)),
            Path(out),
            recipe=recipe,
            context=context,
        ).predictions


def load_encoder(path: str | Path, network: str = "resnet18") -> nn.Module:
    """Load an encoder that `pretrain` or a study wrote (models/pretrain/<name>/<seed>.safetensors).

    Returns:
        A module in evaluation mode: (B, 1, S, S) float32 in [0, 1] -> features (B, width), 512 wide for ResNet-18.

    Raises:
        InputError: the file is missing or damaged, or belongs to another network.

    Example:
        >>> import torch
        >>> from kidney_ssl.models.weights import random_weights, save_weights
        >>> save_weights(random_weights("resnet18", 0), "random.safetensors")
        >>> load_encoder("random.safetensors")(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 512])
    """
    model, _ = resnet.encoder(network, 0)
    weights.load_encoder(model, path)
    return model.eval()


def load_classifier(path: str | Path, network: str = "resnet18") -> nn.Module:
    """Load a classifier that `finetune` or a study wrote (model.safetensors); see `predict` and `explain`.

    Returns:
        A module in evaluation mode: (B, 1, S, S) float32 in [0, 1] -> (B, 1) logits.

    Raises:
        InputError: the file is missing or damaged, or belongs to another network.

    Example:
        >>> import torch
        >>> from kidney_ssl.models.resnet import classifier
        >>> from kidney_ssl.models.weights import save_weights
        >>> save_weights(classifier("resnet18", 0).state_dict(), "model.safetensors")
        >>> load_classifier("model.safetensors")(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 1])
    """
    model = resnet.classifier(network, 0)
    weights.load_classifier(model, path)
    return model.eval()


def predict(model: nn.Module, part: Part) -> np.ndarray:
    """Probability of a tumor in each slice, (N,) float32. Not a medical device.

    Example:
        >>> from kidney_ssl.models.resnet import classifier
        >>> part = standardise(*phantom(3, size=48, slices=0.5), size=32)
        >>> predict(classifier("resnet18", 0).eval(), part).shape == (len(part.images),)
        True
    """
    with torch.inference_mode():
        found = [torch.sigmoid(model(images)[:, 0].float()) for images in _batches(model, part)]
    return torch.cat(found).cpu().numpy()


def explain(model: nn.Module, part: Part, layer: str | None = None) -> np.ndarray:
    """Grad-CAM: where in each slice the evidence for a tumor comes from.

    Args:
        model: see `load_classifier`.
        part: the slices.
        layer: name of the network's layer whose maps are read, such as layer2; by default the last one.

    Returns:
        (N, S, S) float32, not negative, of the slices' size; all zero where nothing speaks for a tumor.

    Raises:
        InputError: the network has no such layer.

    Example:
        >>> from kidney_ssl.models.resnet import classifier
        >>> part = standardise(*phantom(3, size=48, slices=0.5), size=32)
        >>> explain(classifier("resnet18", 0), part, "layer2").shape == part.images.shape
        True
    """
    found = [grad_cam.grad_cam(model, images, layer) for images in _batches(model, part)]
    return grad_cam.to_frame(torch.cat(found), part.images.shape[1]).cpu().numpy()


def _built(method: str, part: Part, options: Mapping[str, Any] | None, setting: Setting) -> Pretext:
    kind = methods.load(method)
    if kind.reads_masks and part.masks is None:
        raise InputError(f"{method}: the method reads masks, and there are none: give labels too")
    try:
        given = read_options(kind, options or {}, f"{method}: options")
    except InputError as error:  # here they are no keys of a file
        raise InputError(str(error).removeprefix("params.yaml: ")) from None
    return kind(setting, given)


def _start(given: str | Path | None, network: str, seed: int, folder: Path) -> Path:
    if given is not None:
        return Path(given)
    weights.save_weights(weights.random_weights(network, seed), folder / "start.safetensors")
    return folder / "start.safetensors"


def _context(label: str, seed: int, device: str, folder: Path) -> TrainingContext:
    """Trains without a checkpoint: minutes, not days."""
    never = float("inf")
    return TrainingContext(make_fabric(device), label, seed, folder / "checkpoint.pt", checkpoint_seconds=never)


def _batches(model: nn.Module, part: Part) -> list[torch.Tensor]:
    """The slices (B, 1, S, S) float32 on the model's device."""
    device = next(model.parameters()).device
    images = torch.from_numpy(np.asarray(part.images, np.float32))[:, None]
    return [images[rows].to(device) for rows in ordered_batches(torch.arange(len(images)), BATCH)]
