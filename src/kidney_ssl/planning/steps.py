"""Measure an optimizer step of the very training, on random slices.

A batch that would take longer than `LIMIT` seconds is measured with fewer slices, and in proportion.
"""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from kidney_ssl import augmentation, pretext
from kidney_ssl.augmentation.base import TrainingSet
from kidney_ssl.augmentation.base import read_options as read_augmentation_options
from kidney_ssl.evaluation.probes import probe_accuracy
from kidney_ssl.models.resnet import classifier
from kidney_ssl.planning.work import Step
from kidney_ssl.pretext.base import Rectangle, Setting, read_options
from kidney_ssl.training.augmented import Augmenting
from kidney_ssl.training.batches import Batch, seeded
from kidney_ssl.training.device import make_fabric
from kidney_ssl.training.finetune import Classification
from kidney_ssl.training.pretrain import CLEAN, PretextTask, features

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LIMIT = 5.0  # seconds that one measured step may take
STEPS, SPENT = 10, 2.0  # steps measured, or seconds spent on them
FEW = 4  # slices of the first steps
# Where kidneys lie in a frame, if the study has not found them yet.
REGIONS: dict[str, Rectangle] = {"left": (0.4, 0.75, 0.1, 0.45), "right": (0.4, 0.75, 0.55, 0.9)}


def measure_pretraining(
    block: Mapping[str, Any], *, network: str, size: int, momentum: float, compute: Mapping[str, Any]
) -> Step:
    """Measure a pretraining's step, its validation, its encoder and a fit of the probes.

    Args:
        block: method, batch_size, options and rates, as under `pretrain.methods`.
        network: the encoder.
        size: side S of the slices.
        momentum: of batch norm.
        compute: device, precision and threads.
    """
    fabric = make_fabric(compute["device"], compute["precision"], compute["threads"])
    kind = pretext.load(block["method"])
    options = read_options(kind, block["options"], f"pretrain.methods.{block['method']}.options")
    method = kind(Setting(network, size, REGIONS, 0, momentum), options)
    images, generator = _images(block["batch_size"], size, fabric), seeded(0, "plan", device=fabric.device)
    seen = torch.cat([images, (images * 4).floor()], 1) if kind.reads_masks else images
    empty = torch.zeros(0, device=fabric.device)
    update, measured = _update(
        fabric, PretextTask(method), lambda count: Batch(seen[:count], empty, empty), generator, block
    )
    method.eval()
    evaluated = _pass(fabric, lambda count: method.validate(seen[:count], generator), measured)
    encoded = _pass(fabric, lambda count: features(method.encoder, images[:count]), measured)
    width = features(method.encoder, images[:1]).shape[1]
    return Step(update, evaluated, encoded, _probe(width), measured, block["batch_size"])


def measure_finetuning(
    described: Mapping[str, Any],
    *,
    batch_size: int,
    weight_decay: float,
    network: str,
    size: int,
    compute: Mapping[str, Any],
) -> Step:
    """Measure a fine-tuning's step with an augmentation, and its evaluation.

    Args:
        described: augmentation and options of the arm.
        batch_size: slices of a batch.
        weight_decay: Adam's.
        network: the encoder.
        size: side S of the slices.
        compute: device, precision and threads.
    """
    fabric = make_fabric(compute["device"], compute["precision"], compute["threads"])
    model = classifier(network, 0)
    rates = {"batch_size": batch_size, "learning_rate": 1e-4, "weight_decay": weight_decay}
    images, generator = _images(batch_size, size, fabric), seeded(0, "plan", device=fabric.device)
    training = _training_set(size, fabric.device)
    rows = torch.arange(batch_size, device=fabric.device) % len(training.rows)
    labels = torch.from_numpy(training.labels).float().to(fabric.device)[rows]
    augment = None
    if described["augmentation"] != "none":
        kind = augmentation.load(described["augmentation"])
        options = read_augmentation_options(kind, described["options"], "arms.options")
        augment = Augmenting(kind(training, options), described, np.zeros(0), training)
    update, measured = _update(
        fabric,
        Classification(model, augment),
        lambda count: Batch(images[:count], labels[:count], rows[:count]),
        generator,
        rates,
    )
    model.eval()
    evaluated = _pass(fabric, lambda count: model(images[:count]), measured)
    probe = _probe(int(model.fc.in_features))  # type: ignore[arg-type, union-attr] # a Module's attribute to mypy
    return Step(update, evaluated, evaluated, probe, measured, batch_size)


def _update(
    fabric: "Fabric",
    task: nn.Module,
    batch: Callable[[int], Batch],
    generator: torch.Generator,
    rates: Mapping[str, Any],
) -> tuple[float, int]:
    """Seconds of a whole batch's update as `training.loop` makes it, and the slices that were measured."""
    if fabric.device.type == "cuda":
        task.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(
        task.parameters(), lr=rates["learning_rate"], weight_decay=rates["weight_decay"], fused=True
    )
    wrapped, optimizer = fabric.setup(task, optimizer)
    wrapped.mark_forward_method("step")
    task.train()

    def one(count: int) -> float:
        given = batch(count)
        started = _now(fabric)
        optimizer.zero_grad(set_to_none=True)
        with fabric.autocast():
            loss, _ = wrapped.step(given, generator)
        fabric.backward(loss)
        optimizer.step()
        return _now(fabric) - started

    whole = rates["batch_size"]
    few = min(FEW, whole)
    one(few)  # imports, buffers
    of_slice = one(few) / few
    if of_slice * whole > LIMIT:
        count = max(few, min(whole, int(LIMIT / of_slice)))
        return one(count) / count * whole, count
    one(whole)
    return _typical(lambda: one(whole)), whole


def _pass(fabric: "Fabric", compute: Callable[[int], object], count: int) -> float:
    """Seconds a slice of something without gradients."""

    def one() -> float:
        started = _now(fabric)
        with torch.inference_mode(), fabric.autocast():
            compute(count)
        return _now(fabric) - started

    one()
    return _typical(one) / count


def _typical(one: Callable[[], float]) -> float:
    """Median of a few runs."""
    found: list[float] = []
    while len(found) < STEPS and sum(found) < SPENT:
        found.append(one())
    return median(found)


def _probe(width: int) -> float:
    """Seconds of fitting the probes on as many slices as a pretraining takes."""
    generator = np.random.default_rng(0)
    labels = np.arange(CLEAN) % 2
    points = generator.normal(size=(CLEAN, width)).astype(np.float32) + labels[:, None] / 4
    started = time.perf_counter()
    probe_accuracy(points, labels, points[:FEW], labels[:FEW])
    return time.perf_counter() - started


def _now(fabric: "Fabric") -> float:
    if fabric.device.type == "cuda":
        torch.cuda.synchronize(fabric.device)
    return time.perf_counter()


def _images(count: int, size: int, fabric: "Fabric") -> Tensor:
    """Random slices (B, 1, S, S) float32 in [0, 1]."""
    return torch.rand((count, 1, size, size), generator=seeded(0, "images")).to(fabric.device)


def _training_set(size: int, device: torch.device) -> TrainingSet:
    """Slices of eight cases, half of them with a tumour in a kidney, for augmentations to look at."""
    count = 64
    masks = torch.zeros((count, 1, size, size), dtype=torch.uint8, device=device)
    for rectangle in REGIONS.values():
        top, bottom, left, right = (round(edge * size) for edge in rectangle)
        masks[:, :, top:bottom, left:right] = 1
    middle, side = round(0.5 * size), max(2, size // 12)
    masks[::2, :, middle : middle + side, round(0.2 * size) : round(0.2 * size) + side] = 2
    images = torch.rand((count, 1, size, size), generator=seeded(0, "training slices")).to(device)
    labels = (np.arange(count) + 1) % 2
    return TrainingSet(
        images=lambda rows: images[rows],
        masks=lambda rows: masks[rows],
        cases=np.array([f"case_{number % 8:05d}" for number in range(count)]),
        labels=labels,
        tumor_px=labels * side * side,
        rows=np.arange(count),
        image_size=size,
        regions=REGIONS,
        device=device,
    )
