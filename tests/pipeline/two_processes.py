"""What two processes compute together: `python -m tests.pipeline.two_processes <job> <folder>`.

Each writes what it found to <folder>/<rank>.pt; `test_processes.py` compares.
"""

import copy
import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from kidney_ssl import methods, pretrain
from kidney_ssl.engine.batches import Batch, Slices
from kidney_ssl.engine.checkpoint import Checkpoint
from kidney_ssl.engine.device import make_fabric
from kidney_ssl.engine.loop import TrainingContext, train
from kidney_ssl.engine.processes import joint_means, joint_norms, rank, share
from kidney_ssl.finetune import Classification, Recipe, finetune
from kidney_ssl.methods.base import Options, PretextBatch, Setting
from kidney_ssl.models.resnet import classifier
from tests.shallow_networks import shallow
from tests.unit.engine.toy_study import toy_part
from tests.unit.methods.stand_ins import FORGETFUL, STAND_INS, Decorrelated
from tests.unit.methods.test_contract import given, images_of, narrow

SETTING = Setting("resnet18", 32, {"left": (0.2, 0.8, 0.0, 0.5), "right": (0.2, 0.8, 0.5, 1.0)}, seed=3)
# Gradients of ResNet-18 are of a size of three here, and rounding moves some by more than 1e-5 in one process too, as
# when its batch is put in another order. In float64 it is held to 1e-5, in float32 its relative error is.
TASKS = {
    "resnet18": torch.float64,
    "resnet18_float32": torch.float32,
    "efficientnet_lite0": torch.float64,  # timm's batch norms hold their activation
    "classification": torch.float32,
    "simclr": torch.float64,
    "masked": torch.float64,  # batch norm of visible places
    "cpc": torch.float32,  # its GRU gets its input in float32
}
KNOWN = [*methods.METHODS, *STAND_INS]
ALL = [*KNOWN, "decorrelated", *(f"forgetful {name}" for name in FORGETFUL)]
SIZE = 9  # of the joined batch: one process has a slice more


def task(name):
    if name.startswith(("resnet18", "efficientnet")):
        return Classification(classifier(name.partition("_f")[0], 3, batch_norm_momentum=0.3)).to(TASKS[name])
    if name == "classification":
        return Classification(smooth(1)).to(TASKS[name])
    method = methods.load(name)
    options = method.Parameters.model_validate({"grid": 5, "steps": 3} if name == "cpc" else {})
    made = pretrain.PretextTask(method(SETTING, options))
    if name == "simclr":  # views that are not drawn: a slice, and its mirror image
        made.method.views = lambda images, _: torch.cat([images, images.flip(3)])
    if name == "masked":  # patches that are not drawn: every second one
        made.method.draw = lambda count, _: (torch.arange(16) % 2 == 0).expand(count, 16)
        return made.to(TASKS[name])
    made.method.encoder = smooth(512)
    return made.to(TASKS[name])


def smooth(width):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        layers = (nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        return nn.Sequential(*layers, nn.Linear(32, width))


def batch(name):
    part = toy_part(SIZE, 0)
    labels = torch.tensor(part.frame["label"].tolist())
    return Batch(torch.from_numpy(part.images)[:, None].to(TASKS[name]), labels.float(), torch.arange(SIZE))


def one_step(fabric, name):
    """Gradients of a step, figures and running statistics after it, as the loop takes it."""
    module, whole = task(name), batch(name)
    wrapped = fabric.setup_module(module)
    wrapped.mark_forward_method("step")
    mine = share(torch.arange(SIZE))
    with joint_norms(module):
        loss, figures = wrapped.step(Batch(*(values[mine] for values in whole[:3])), torch.Generator())
        fabric.backward(loss * (fabric.world_size * len(mine) / SIZE))
    return {
        "figures": joint_means({"loss": loss, **figures}, len(mine) / SIZE),
        "gradients": {key: value.grad for key, value in module.named_parameters()},
        # Lightly's memory bank is not used and not even initialised.
        "buffers": {key: value for key, value in module.named_buffers() if "memory_bank" not in key},
        "state": list(module.state_dict()),
        "classes": {type(norm).__name__ for norm in module.modules() if "Norm" in type(norm).__name__},
    }


class Noted:
    """An end of an epoch that only notes that it was there."""

    def __call__(self, epoch):
        return {"rank": float(rank())}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Counting(Slices):
    """Notes which rows were trained on."""

    seen: list[list[int]]

    def batches(self, positions):
        self.seen += [one.tolist() for one in positions]
        return super().batches(positions)


def built(name):
    """A method of the registry, or one that stands in for a user's; of networks with one block in each layer."""
    with shallow():
        if name.startswith("forgetful "):
            return FORGETFUL[name.removeprefix("forgetful ")](SETTING, Options())
        return Decorrelated(SETTING, Options()) if name == "decorrelated" else narrow(name)


def shown(name):
    """Five slices as a method is shown them: an odd number, so that the shares differ in size."""
    return given(name if name in KNOWN else "queue", count=5)


def part_of(batch, rows):
    """Some rows of what a method is shown."""
    if not isinstance(batch, PretextBatch):
        return batch[rows]
    own = {field: getattr(batch, field)[rows] for field in ("images", "rows", "case", "position", "z_mm", "neighbors")}
    return batch._replace(**own)


def two_steps(fabric, name):
    """Losses of two steps of a method as it comes, and its state afterwards."""
    module = Alone(built(name))
    wrapped, optimizer = fabric.setup(module, torch.optim.SGD(module.parameters(), lr=1e-3))
    wrapped.mark_forward_method("step")
    batch, losses = shown(name), []
    count = len(images_of(batch))
    mine = share(torch.arange(count))
    for step in range(2):
        generator = torch.Generator().manual_seed(10 * step + fabric.global_rank)
        optimizer.zero_grad()
        with joint_norms(module):
            loss, _ = wrapped.step(part_of(batch, mine), generator)
            fabric.backward(loss * (fabric.world_size * len(mine) / count))
        optimizer.step()
        losses.append(float(joint_means({"loss": loss}, len(mine) / count)["loss"]))
    return {
        "losses": losses,
        "state": {key: value.detach() for key, value in module.state_dict().items() if "memory_bank" not in key},
    }


class Alone(nn.Module):
    """A method that is shown what is passed in."""

    def __init__(self, method):
        super().__init__()
        self.method = method

    def step(self, batch, generator):
        return self.method.step(batch, generator)


def coupling(fabric, name):
    """How far the loss of the joined batch ties the slices of one share to those of the other, relative to the loss.

    The mixed difference L(a, b) - L(a', b) - L(a, b') + L(a', b') of changing one share, the other, and both. It is
    zero for a mean of each slice's own loss. Batch norms, which the loop joins, are left out.
    """
    method = by_slice(built(name)).train()
    batch = shown(name)
    count = len(images_of(batch))
    halves = torch.tensor_split(torch.arange(count), 2)
    mine = share(torch.arange(count))
    losses = []
    with torch.no_grad():
        for changed in ([], [0], [1], [0, 1]):
            images = images_of(batch).clone()
            for half in changed:
                images[halves[half]] = images[halves[half]].flip(2)
            other = batch._replace(images=images) if isinstance(batch, PretextBatch) else images
            generator = torch.Generator().manual_seed(rank())
            loss, _ = copy.deepcopy(method).step(part_of(other, mine), generator)
            losses.append(float(joint_means({"loss": loss}, len(mine) / count)["loss"]))
    both, first, second, neither = losses
    return abs(both - first - second + neither) / max(map(abs, losses))


def by_slice(module):
    """The same with norms of each slice by itself in the place of batch norms."""
    for name, child in module.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            setattr(module, name, nn.GroupNorm(1, child.num_features))
        else:
            by_slice(child)
    return module


class Noisy(Classification):
    """Draws for each of its slices, and notes the streams that it drew from."""

    def __init__(self, model):
        super().__init__(model)
        self.streams = []

    def step(self, batch, generator):
        self.streams.append(generator.initial_seed())
        noise = torch.rand(batch.images.shape, generator=generator)
        return super().step(batch._replace(images=batch.images + noise), generator)


class Watched:
    """While a block runs, notes each checkpoint, and calls a function after the third one of a file."""

    def __init__(self, third=lambda path: None):
        self.saved, self.third = [], third

    def __enter__(self):
        self.save = Checkpoint.save

        def save(checkpoint, state):
            self.save(checkpoint, state)
            self.saved.append((state["epoch"], state["step"]))
            if len(self.saved) == 3:
                self.third(checkpoint.path)

        Checkpoint.save = save
        return self.saved

    def __exit__(self, *_):
        Checkpoint.save = self.save


def unbroken_and_resumed(fabric, folder):
    """Weights after two epochs, and of a second training that goes on from the first one's second checkpoint."""
    slices = Slices(replace(toy_part(9, 0), masks=None), device=fabric.device)
    found = []
    for name in ("unbroken.pt", "resumed.pt"):
        module = Noisy(smooth(1))
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
        context = TrainingContext(fabric, "noisy", 0, folder / name, checkpoint_seconds=0)
        with Watched(lambda path: shutil.copyfile(path, folder / "resumed.pt")) as saved:
            curves = train(context, module, slices, optimizer, epochs=2, batch_size=4, after_epoch=Noted()).curves
        found.append({"weights": module.state_dict(), "curves": curves, "saved": saved, "streams": module.streams})
    return found


def rows_of_two_epochs(fabric, folder):
    """Rows of each step of this process, the curves, and how often a checkpoint was written here."""
    module = task("classification")
    slices = Counting(replace(toy_part(9, 0), masks=None), device=fabric.device)
    slices.seen = []
    context = TrainingContext(fabric, "rows", 0, folder / "training.pt", checkpoint_seconds=0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    with Watched() as saved:
        found = train(context, module, slices, optimizer, epochs=2, batch_size=4, after_epoch=Noted())
    return {"rows": slices.seen, "curves": found.curves, "written": [epoch for epoch, _ in saved]}


def fine_tuning(fabric, folder, **changed):
    """24 training slices and 5 of evaluation: so that each epoch may be evaluated."""
    parts = {"train": toy_part(24, 0), "validation": toy_part(3, 100), "test": toy_part(2, 200)}
    parts["natural"] = parts["test"]
    out = folder / f"out{fabric.global_rank}"  # a folder for each: the second must write nothing
    out.mkdir(exist_ok=True)
    recipe = Recipe(
        network="resnet18",
        epochs=2,
        batch_size=4,
        learning_rates=[1e-3],
        weight_decay=1e-5,
        min_updates=0,
        evaluations=2,
        batch_norm_momentum=0.3,
    )
    return finetune(
        {name: Slices(replace(part, masks=None), device=fabric.device) for name, part in parts.items()},
        folder / "start.safetensors",
        out,
        recipe=replace(recipe, **changed),
        context=TrainingContext(fabric, "toy", 0, folder / "checkpoints" / "toy.pt"),
    )


def pretraining(fabric, folder, name):
    """Curves of a pretraining from files, preflight and pictures among it."""
    parts = {part: toy_part(count, first, size=64) for part, count, first in (("train", 9, 0), ("validation", 4, 100))}
    context = TrainingContext(fabric, name, 0, folder / "checkpoints" / f"{name}.pt")
    recipe = pretrain.Recipe(epochs=2, min_updates=0, batch_size=4, learning_rate=1e-3, evaluations=2)
    out = folder / f"{name}{fabric.global_rank}.safetensors"
    start = folder / "start.safetensors"
    found = pretrain.pretrain(
        narrow(name), parts["train"], parts, start, out, recipe=recipe, context=context, forbidden={}
    )
    return {"curves": found.curves.to_dict("list"), "written": out.exists()}


def main(job, folder):
    fabric = make_fabric("cpu", "32", 1, devices=2)
    found = {"rank": fabric.global_rank, "world": fabric.world_size}
    if job == "steps":
        found |= {name: one_step(fabric, name) for name in TASKS}
        found["methods"] = {name: two_steps(fabric, name) for name in ALL}
        found["coupling"] = {name: coupling(fabric, name) for name in ALL}
        found["pretrained"] = {name: pretraining(fabric, folder, name) for name in ("simclr", "teacher")}
        found["resumed"] = unbroken_and_resumed(fabric, folder)
        found["rows"] = rows_of_two_epochs(fabric, folder)
        found["predictions"] = fine_tuning(fabric, folder).predictions["probability"].tolist()
    if job == "endless":
        (folder / f"{fabric.global_rank}.pid").write_text(json.dumps(os.getpid()))
        fine_tuning(fabric, folder, epochs=100_000)
    if job == "rank":
        found["sum"] = float(fabric.all_reduce(torch.tensor(float(fabric.global_rank + 1)), reduce_op="sum"))
    torch.save(found, folder / f"{fabric.global_rank}.pt")


if __name__ == "__main__":
    started = time.monotonic()
    main(sys.argv[1], Path(sys.argv[2]))
    print(f"{time.monotonic() - started:.1f} s")
