"""The training loop: one function for fine-tuning and for every pretext task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from kidney_ssl.engine import processes
from kidney_ssl.engine.batches import Batch, Slices, epoch_batches, seeded
from kidney_ssl.engine.checkpoint import SECONDS, Checkpoint
from kidney_ssl.engine.device import memory_errors
from kidney_ssl.engine.optimization import Optimization, Schedule
from kidney_ssl.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOOK_EVERY = 50  # steps between checks of the losses: each check waits for the GPU
Deal = Callable[[int, int, torch.Generator], list[Tensor]]
AfterEpoch = Callable[[int], dict[str, float]]  # epoch (from 1) -> metrics for the curves; a schedule may read them
History = dict[str, list[Tensor]]  # each metric of an epoch's steps so far


@dataclass(frozen=True)
class TrainingContext:
    """Device, name, seed and checkpoint of a training."""

    fabric: "Fabric"  # device, precision and processes, see `make_fabric`
    label: str  # its name, in messages and on the progress bar
    seed: int  # determines the order of batches and all random draws
    # checkpoint of exactly this code, parameters and inputs; the caller deletes it. A run of several learning rates has
    # one for each rate beside it.
    checkpoint: Path
    checkpoint_seconds: float = SECONDS  # see `Checkpoint`
    compiled: bool = False  # whether networks run compiled, see `compile_networks`


class Task(Protocol):
    """A module that turns a batch into a loss, independent of optimizer, precision, device and files.

    If it has a method `after_step`, that is called after each optimizer step with the step's number, from 0.
    """

    def step(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss and metrics of one batch, all scalars; every random draw uses `generator`, on the batch's device."""


@dataclass(frozen=True)
class Trained:
    """Result of a training."""

    # one row per epoch: epoch; train_loss and train_<metric> of the task, means over slices; train_learning_rate of the
    # epoch's last update; and the metrics of `after_epoch`
    curves: list[dict[str, float]]
    images: int  # slices that this process and its peers trained on; after a resume not those of all epochs


def train(
    context: TrainingContext,
    task: nn.Module,
    slices: Slices,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    after_epoch: AfterEpoch,
    schedule: Schedule | None = None,
    clip: float | None = None,
    deal: Deal = epoch_batches,
) -> Trained:
    """Train a task, continuing from its checkpoint if there is one; the result has the same bits either way.

    If several processes train together, all call this. Each trains on its share of every batch; batch norm and
    contrastive losses see the joined batch, and each step uses the joined batch's mean loss. Random draws differ from
    those of a single process, since each process draws for its own slices. `after_epoch` runs in all processes; metrics
    and checkpoints are those of rank 0.

    Args:
        context: device, name, seed and checkpoint.
        task: a module that is also a `Task`; its weights change in place.
        slices: the training set.
        optimizer: over the task's parameters.
        epochs: passes over the training set.
        batch_size: slices of a batch.
        after_epoch: evaluates, setting evaluation mode itself; saved in checkpoints too if it has a `state_dict`.
        deal: returns an epoch's batches, given the number of slices, `batch_size` and a seeded generator; every epoch
            must have the same number of batches.
        schedule: of the optimizer's learning rate; None for a constant one.
        clip: largest global gradient norm; larger gradients are scaled down. None: no clipping.

    Raises:
        InputError: a loss is not finite (the message names run, epoch and step), a batch has fewer slices than there
            are processes, or memory is full.
    """
    from tqdm import tqdm  # noqa: PLC0415 - only trainings show a bar

    fabric, seed, label = context.fabric, context.seed, context.label
    checkpoint = Checkpoint(context.checkpoint, context.checkpoint_seconds)
    if fabric.device.type == "cuda":
        # Tensor cores are faster with channels-last memory; small convolutions on a CPU are up to a third slower.
        task.to(memory_format=torch.channels_last)
    schedule = schedule or Schedule(optimizer, Optimization(), 1)
    wrapped, optimizer = fabric.setup(task, optimizer)
    wrapped.mark_forward_method("step")
    after_step: Callable[[int], None] = getattr(task, "after_step", lambda update: None)
    generator = seeded(seed, "task", device=fabric.device)
    # The state of the training; `precision` holds the loss scale of float16 and is empty otherwise.
    members = {"task": task, "optimizer": optimizer, "precision": fabric.strategy.precision, "schedule": schedule}
    members |= {"after_epoch": after_epoch} if hasattr(after_epoch, "state_dict") else {}
    several, alone = processes.count() > 1, fabric.is_global_zero
    kept = fabric.broadcast(checkpoint.load() if alone else None)
    first, done, history, curves = _restore(kept, members, generator, fabric.device)
    dealt = deal(len(slices), batch_size, seeded(seed, "order", 0))
    _refuse_empty_shares(dealt, label)
    total, images = len(dealt), 0

    # `disable=None` shows it on a terminal.
    bar = tqdm(
        total=epochs * total, initial=first * total + done, desc=label, unit="step", disable=None if alone else True
    )
    with memory_errors(label), bar:
        for epoch in range(first, epochs):
            batches = deal(len(slices), batch_size, seeded(seed, "order", epoch))
            shares = [processes.share(rows) for rows in batches[done:]]
            task.train()
            # Nothing here waits for the device until the next check of the losses.
            for step, batch in enumerate(slices.batches(shares), done):
                if several:
                    # Each process and step has its own draws, so checkpoints need no state of other processes.
                    generator = seeded(seed, "task", epoch, step, processes.rank(), device=fabric.device)
                share, update = len(batch.rows) / len(batches[step]), epoch * total + step
                optimizer.zero_grad(set_to_none=True)
                with processes.joint_norms(task):
                    with fabric.autocast():
                        loss, metrics = wrapped.step(batch._replace(update=update), generator)
                    # So that the mean of the gradients over processes is the gradient of the mean loss over the whole
                    # batch.
                    fabric.backward(loss * (processes.count() * share) if several else loss)
                if clip is not None:
                    # With float16, gradients are infinite at times; those steps are skipped.
                    fabric.clip_gradients(wrapped, optimizer, max_norm=clip, error_if_nonfinite=False)
                rate = schedule.update(optimizer)
                after_step(update)
                for name, value in processes.joint_means({"loss": loss, **metrics}, share).items():
                    history.setdefault(name, []).append(value)
                images += len(batches[step])
                bar.update()
                if (step + 1) % LOOK_EVERY == 0 or step + 1 == total:
                    _refuse_non_finite(history["loss"], label, epoch)
                if alone and checkpoint.due() and step + 1 < total:
                    _refuse_non_finite(history["loss"], label, epoch)
                    checkpoint.save(_state(members, generator, epoch, step + 1, history=history, curves=curves))
            means = _means(history, [len(rows) for rows in batches]) | {"train_learning_rate": rate}
            curves.append(fabric.broadcast({"epoch": epoch + 1, **means, **after_epoch(epoch + 1)}))
            schedule.after_epoch(curves[-1])
            done, history = 0, {}
            if alone and checkpoint.due(epoch_over=epoch + 1 < epochs):
                checkpoint.save(_state(members, generator, epoch + 1, 0, history=history, curves=curves))
    return Trained(curves, images)


def _state(
    members: Mapping[str, Any], generator: torch.Generator, epoch: int, step: int, **kept: History | list[Any]
) -> dict[str, Any]:
    """State of the training before a step of an epoch, both from 0."""
    states = {name: member.state_dict() for name, member in members.items()}
    return {"members": states, "generator": generator.get_state(), "epoch": epoch, "step": step, **kept}


def _restore(
    state: dict[str, Any] | None, members: Mapping[str, Any], generator: torch.Generator, device: torch.device
) -> tuple[int, int, History, list[dict[str, float]]]:
    """Restore the state; return epoch and step to continue with, history and curves."""
    if state is None:
        return 0, 0, {}, []
    for name, member in members.items():
        member.load_state_dict(state["members"][name])
    generator.set_state(state["generator"])
    history = {name: [value.to(device) for value in values] for name, values in state["history"].items()}
    return state["epoch"], state["step"], history, state["curves"]


def _refuse_empty_shares(batches: list[Tensor], label: str) -> None:
    least = min(len(rows) for rows in batches)
    if least < processes.count():
        raise InputError(
            f"{label}: a batch of {least} slices is too small for {processes.count()} processes; "
            "raise batch_size or lower compute.devices and compute.nodes"
        )


def _refuse_non_finite(losses: list[Tensor], label: str, epoch: int) -> None:
    values = torch.stack(losses[-LOOK_EVERY:]).cpu()
    bad = torch.nonzero(~values.isfinite())
    if len(bad):
        step = len(losses) - len(values) + int(bad[0]) + 1
        raise InputError(
            f"{label}: loss is {float(values[bad[0]])} at epoch {epoch + 1}, step {step}; "
            "lower the learning rate or set compute.precision to 32"
        )


def _means(history: History, sizes: list[int]) -> dict[str, float]:
    """Means over slices of an epoch's metrics: batches are weighted by their size."""
    weights = torch.tensor(sizes, dtype=torch.float64)
    return {
        f"train_{name}": float((torch.stack(values).cpu().double() * weights).sum()) / sum(sizes)
        for name, values in history.items()
    }
