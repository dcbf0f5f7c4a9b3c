"""What two processes compute together: `python -m tests.training.two_processes <job> <folder>`.

Each writes what it found to <folder>/<rank>.pt; `test_processes.py` compares.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import torch
from torch import nn

from kidney_ssl import pretext
from kidney_ssl.models.joint_norm import joint_norms
from kidney_ssl.models.processes import joint_figures, rank, share
from kidney_ssl.models.resnet import classifier
from kidney_ssl.pretext.base import Setting
from kidney_ssl.training.batches import Batch, Part, Slices
from kidney_ssl.training.checkpoint import Checkpoint
from kidney_ssl.training.device import make_fabric
from kidney_ssl.training.finetune import Classification, finetune
from kidney_ssl.training.loop import train
from kidney_ssl.training.pretrain import PretextTask
from tests.pretext.test_contract import build, given
from tests.training.toy_study import toy_part

SETTING = Setting("resnet18", 32, {"left": (0.2, 0.8, 0.0, 0.5), "right": (0.2, 0.8, 0.5, 1.0)}, seed=3)
# Gradients of ResNet-18 are of a size of three here, and rounding moves some by more than 1e-5 in one process too, as
# when its batch is put in another order. In float64 it is held to 1e-5, in float32 its relative error is.
TASKS = {
    "resnet18": torch.float64,
    "resnet18_float32": torch.float32,
    "classification": torch.float32,
    "simclr": torch.float32,
    "cpc": torch.float32,
}
SIZE = 9  # of the joined batch: one process has a slice more


def task(name):
    if name.startswith("resnet18"):
        return Classification(classifier("resnet18", 3, batch_norm_momentum=0.3)).to(TASKS[name])
    if name == "classification":
        return Classification(smooth(1))
    method = pretext.load(name)
    options = method.Parameters.model_validate({"grid": 5, "steps": 3} if name == "cpc" else {})
    made = PretextTask(method(SETTING, options))
    if name == "simclr":  # views that are not drawn: a slice, and its mirror image
        made.method.views = lambda images, _: torch.cat([images, images.flip(3)])
    made.method.encoder = smooth(512)
    return made


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
        loss, figures = wrapped.step(Batch(*(values[mine] for values in whole)), torch.Generator())
        fabric.backward(loss * (fabric.world_size * len(mine) / SIZE))
    return {
        "figures": joint_figures({"loss": loss, **figures}, len(mine)),
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

    def batch(self, index):
        self.seen.append(index.tolist())
        return super().batch(index)


def two_steps(fabric, name):
    """Losses of two steps of a method as it comes, and its parameters afterwards."""
    module = PretextTask(build(name))
    wrapped, optimizer = fabric.setup(module, torch.optim.SGD(module.parameters(), lr=1e-3))
    wrapped.mark_forward_method("step")
    images, losses = given(name)[:5], []  # an odd number: the shares differ in size
    mine = share(torch.arange(len(images)))
    for step in range(2):
        generator = torch.Generator().manual_seed(10 * step + fabric.global_rank)
        optimizer.zero_grad()
        with joint_norms(module):
            loss, _ = wrapped.step(Batch(images[mine], torch.zeros(len(mine)), mine), generator)
            fabric.backward(loss * (fabric.world_size * len(mine) / len(images)))
        optimizer.step()
        losses.append(float(joint_figures({"loss": loss}, len(mine))["loss"]))
    return {"losses": losses, "parameters": {key: value.detach() for key, value in module.named_parameters()}}


class Noisy(Classification):
    """Draws for each of its slices, and notes the streams that it drew from."""

    def __init__(self, model):
        super().__init__(model)
        self.streams = []

    def step(self, batch, generator):
        self.streams.append(generator.initial_seed())
        noise = torch.rand(batch.images.shape, generator=generator)
        return super().step(batch._replace(images=batch.images + noise), generator)


def unbroken_and_resumed(fabric, folder):
    """Weights after two epochs, and of a second training that goes on from the first one's second checkpoint."""
    part = toy_part(9, 0)
    slices = Slices(part.images, part.frame["label"].to_numpy(), device=fabric.device)
    found = []
    for name in ("unbroken.pt", "resumed.pt"):
        module, checkpoint = Noisy(smooth(1)), Checkpoint(folder / name, seconds=0)
        save, saved = checkpoint.save, []

        def save_and_copy(state, save=save, saved=saved, path=checkpoint.path):
            save(state)
            saved.append((state["epoch"], state["step"]))
            if path.name == "unbroken.pt" and len(saved) == 3:
                shutil.copyfile(path, folder / "resumed.pt")

        checkpoint.save = save_and_copy
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
        options = {"epochs": 2, "batch_size": 4, "seed": 0, "label": "noisy", "after_epoch": Noted()}
        curves = train(fabric, module, slices, optimizer, checkpoint=checkpoint, **options)
        found.append({"weights": module.state_dict(), "curves": curves, "saved": saved, "streams": module.streams})
    return found


def rows_of_two_epochs(fabric, folder):
    """Rows of each step of this process, the curves, and how often a checkpoint was written here."""
    part, module = toy_part(9, 0), task("classification")
    slices = Counting(part.images, part.frame["label"].to_numpy(), device=fabric.device)
    slices.seen = []
    checkpoint = Checkpoint(folder / "training.pt", seconds=0)
    written = []
    save = checkpoint.save
    checkpoint.save = lambda state: (written.append(state["epoch"]), save(state))
    curves = train(
        fabric,
        module,
        slices,
        torch.optim.SGD(module.parameters(), lr=0.5),
        epochs=2,
        batch_size=4,
        seed=0,
        label="rows",
        after_epoch=Noted(),
        checkpoint=checkpoint,
    )
    return {"rows": slices.seen, "curves": curves, "written": written}


def fine_tuning(fabric, folder, **changed):
    parts = {"train": toy_part(9, 0), "validation": toy_part(6, 100), "test": toy_part(5, 200)}
    natural = toy_part(5, 200)
    out = folder / f"out{fabric.global_rank}"  # a folder for each: the second must write nothing
    out.mkdir(exist_ok=True)
    options = {"epochs": 2, "batch_size": 4, "learning_rates": [1e-3], "weight_decay": 1e-5}
    options |= {"min_updates": 0, "evaluations": 2}
    return finetune(
        parts,
        folder / "start.safetensors",
        out,
        fabric=fabric,
        network="resnet18",
        batch_norm_momentum=0.3,
        seed=0,
        label="toy",
        checkpoints=folder / "checkpoints",
        natural=Part(natural.images, natural.frame),
        **(options | changed),
    )


def main(job, folder):
    fabric = make_fabric("cpu", "32", 1, devices=2)
    found = {"rank": fabric.global_rank, "world": fabric.world_size}
    if job == "steps":
        found |= {name: one_step(fabric, name) for name in TASKS}
        found["methods"] = {name: two_steps(fabric, name) for name in pretext.METHODS}
        found["resumed"] = unbroken_and_resumed(fabric, folder)
        found["rows"] = rows_of_two_epochs(fabric, folder)
        found["predictions"] = fine_tuning(fabric, folder).predictions["probability"].tolist()
        found["left"] = sorted(path.name for path in (folder / "checkpoints").iterdir()) if rank() == 0 else []
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
