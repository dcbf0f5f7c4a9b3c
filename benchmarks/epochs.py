"""Whole epochs, against the bare step of the same network on tensors in memory, one thread.

An epoch is the loop as a study runs it: slices out of a memory map, views or holes made for the batch, loss, optimizer.
The bare step has the network's own inputs, recorded once, and does forward, backward and optimizer alone.
"""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.timing import ratio, row, side_by_side, spread
from kidney_ssl import methods
from kidney_ssl.engine.batches import Part, Slices
from kidney_ssl.engine.device import make_fabric
from kidney_ssl.engine.loop import TrainingContext, train
from kidney_ssl.finetune import Classification
from kidney_ssl.methods.base import Setting
from kidney_ssl.models.resnet import classifier
from kidney_ssl.pretext import Shown
from kidney_ssl.pretrain import PretextTask

SIZE, BATCH, STEPS, ROUNDS = 64, 16, 3, 7
REGIONS = {"left": (0.4, 0.7, 0.1, 0.4), "right": (0.4, 0.7, 0.6, 0.9)}
# Wide heads, second networks and masks within the network are no work of the loop.
WIDE = ("barlow_twins", "byol", "dino", "masked", "moco", "vicreg")
BARS = {"fine-tuning": 0.95, "rotation": 0.95}  # the others move more data: 0.85


def run() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure; rows of the table, and what stands behind them."""
    rows, details = [], {}
    fabric = make_fabric("cpu", "32", threads=1)
    drawn = np.random.default_rng(0).random((STEPS * BATCH, SIZE, SIZE))
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", drawn.astype(np.float16))
        images = np.load(Path(folder) / "images.npy", mmap_mode="r")
        masks = (4 * images).clip(0, 3).astype(np.uint8)  # float16 rounds up to 1
        part = Part(images, frame(len(images)))
        for name in ("fine-tuning", *(name for name in methods.METHODS if name not in WIDE)):
            read = masks if name != "fine-tuning" and methods.load(name).reads_masks else None
            slices = Slices(replace(part, masks=read), device=fabric.device, resident="never")
            task, network = make_task(name, slices)
            optimizer = partial(torch.optim.Adam, list(task.parameters()), lr=1e-4, fused=True)
            inputs = recorded_inputs(task, network, slices)
            epoch = partial(
                train,
                TrainingContext(fabric, name, 0, Path(folder) / "never.pt", 1e9),
                task,
                slices,
                optimizer(),
                epochs=1,
                batch_size=BATCH,
                after_epoch=lambda _: {},
            )
            seconds = side_by_side(
                {"epoch": epoch, "bare": partial(bare_steps, network, optimizer(), inputs)}, rounds=ROUNDS, label=name
            )
            what = f"{name} epoch, {STEPS} batches of {BATCH} slices of {SIZE} px"
            rows.append(row(what, "the bare network step", ratio(seconds, "epoch", "bare"), BARS.get(name, 0.85)))
            details[f"{name} epoch, seconds"] = spread(seconds)
    return rows, details


def frame(count: int) -> pd.DataFrame:
    """Slices of as many cases as there are in a batch."""
    case, number = np.divmod(np.arange(count), STEPS)
    return pd.DataFrame(
        {
            "case": [f"case_{one:05d}" for one in case],
            "slice": number,
            "position": (number + 0.5) / STEPS,
            "thickness_mm": 5.0,
            "label": number % 2,
        }
    )


def make_task(name: str, slices: Slices) -> tuple[nn.Module, nn.Module]:
    """What the loop trains, and the network in it."""
    if name == "fine-tuning":
        model = classifier("resnet18", 0)
        return Classification(model), model
    method = methods.load(name)
    built = method(Setting("resnet18", SIZE, REGIONS, 0), method.Parameters())
    return PretextTask(built, Shown(built, slices, STEPS)), getattr(built, "unet", built.encoder)


def recorded_inputs(task: Any, network: nn.Module, slices: Slices) -> list[Tensor]:
    """What the network is given in one step; several tensors if it is called several times."""
    inputs: list[Tensor] = []
    # A U-Net's encoder is given what the U-Net is given, and the oracle calls the U-Net's parts.
    first = getattr(network, "encoder", network)
    hook = first.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach().clone()))
    task.train()
    task.step(slices.batch(torch.arange(BATCH)), torch.Generator().manual_seed(0))
    hook.remove()
    return inputs


def bare_steps(network: nn.Module, optimizer: torch.optim.Optimizer, inputs: list[Tensor]) -> None:
    """As many steps as an epoch has."""
    network.train()
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        sum(network(one).float().square().mean() for one in inputs).backward()
        optimizer.step()
