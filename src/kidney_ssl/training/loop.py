"""The training loop: one function for fine-tuning and for every pretext task."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from kidney_ssl.errors import InputError
from kidney_ssl.models import processes
from kidney_ssl.models.joint_norm import joint_norms
from kidney_ssl.training.batches import Batch, Slices, epoch_batches, seeded
from kidney_ssl.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOOK_EVERY = 50  # steps between looks at the losses: a look waits for the GPU
Deal = Callable[[int, int, torch.Generator], list[Tensor]]
History = dict[str, list[Tensor]]  # each figure of an epoch's steps so far


class Task(Protocol):
    """What is trained: a module that turns a batch into a loss. It knows no optimizer, precision, device or file."""

    def step(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss and figures of one batch, scalars both; all chance comes from `generator`, on the batch's device."""


class EpochEnd(Protocol):
    """What happens after each epoch: evaluation, and what is to be kept of it."""

    def __call__(self, epoch: int) -> dict[str, float]:
        """Figures of the epoch (from 1), for the curves; a scheduler may read them."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values that a resumed training needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""


def train(
    fabric: "Fabric",
    task: nn.Module,
    slices: Slices,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    label: str,
    after_epoch: EpochEnd,
    checkpoint: Checkpoint,
    scheduler: Any = None,
    deal: Deal = epoch_batches,
) -> list[dict[str, float]]:
    """Train a task, going on from its checkpoint if there is one; the result has the same bits either way.

    Several processes all call this. Each trains on its share of every batch, batch norm and contrast see the joined
    batch, and the step is that of the joined batch's mean loss; what is drawn differs from one process's, since each
    draws for its own slices. `after_epoch` runs in all of them, the first one's figures hold, and it alone keeps
    checkpoints.

    Args:
        fabric: device and precision, see `make_fabric`.
        task: a module that is also a `Task`; its weights change in place.
        slices: the training set.
        optimizer: over the task's parameters.
        epochs: passes over the training set.
        batch_size: slices of a batch.
        seed: decides the order of batches and what the task draws.
        label: the run's name (its arm, say) in messages and the progress bar.
        after_epoch: called after each epoch with the network as it stands; it sets and resets evaluation mode.
        checkpoint: where the training is kept while unfinished. The caller deletes it.
        deal: gives each epoch's batches from the number of slices, `batch_size` and a seeded generator; as many in
            every epoch.
        scheduler: any of torch's, stepped once an epoch; ReduceLROnPlateau reads `validation_loss`.

    Returns:
        One row an epoch: epoch, train_loss, train_<figure> for each of the task's, and `after_epoch`'s; means over
        slices.

    Raises:
        InputError: a loss is not finite, the line names run, epoch and step; or a batch has fewer slices than there
            are processes.
    """
    from tqdm import tqdm  # noqa: PLC0415 - only who trains shows a bar

    if fabric.device.type == "cuda":
        # Tensor cores are faster on channels-last memory; small convolutions on a CPU are slower, up to a third.
        task.to(memory_format=torch.channels_last)
    wrapped, optimizer = fabric.setup(task, optimizer)
    wrapped.mark_forward_method("step")
    generator = seeded(seed, "task", device=fabric.device)
    # All that a training is; `precision` holds the loss scale of float16 and is empty otherwise.
    members = {"task": task, "optimizer": optimizer, "precision": fabric.strategy.precision, "end": after_epoch}
    if scheduler is not None:
        members["scheduler"] = scheduler
    several, alone = processes.count() > 1, fabric.is_global_zero
    kept = fabric.broadcast(checkpoint.load() if alone else None)
    first, done, history, curves = _restore(kept, members, generator)
    dealt = deal(len(slices), batch_size, seeded(seed, "order", 0))
    _refuse_empty_shares(dealt, label)
    total, shown = len(dealt), None if alone else True
    bar = tqdm(total=epochs * total, initial=first * total + done, desc=label, unit="step", disable=shown)
    for epoch in range(first, epochs):
        batches = deal(len(slices), batch_size, seeded(seed, "order", epoch))
        task.train()
        for step in range(done, total):
            rows = processes.share(batches[step])
            if several:
                # Each process and step has draws of its own: nothing of another process goes into a checkpoint.
                generator = seeded(seed, "task", epoch, step, processes.rank(), device=fabric.device)
            optimizer.zero_grad(set_to_none=True)
            with joint_norms(task):
                with fabric.autocast():
                    loss, figures = wrapped.step(slices.batch(rows), generator)
                # The gradients' mean over processes is to be the gradient of the mean over all slices of the batch.
                fabric.backward(loss * (processes.count() * len(rows) / len(batches[step])) if several else loss)
            optimizer.step()
            for name, value in processes.joint_figures({"loss": loss, **figures}, len(rows)).items():
                history.setdefault(name, []).append(value)
            bar.update()
            if (step + 1) % LOOK_EVERY == 0 or step + 1 == total:
                _refuse_non_finite(history["loss"], label, epoch)
            if alone and checkpoint.due() and step + 1 < total:
                _refuse_non_finite(history["loss"], label, epoch)
                checkpoint.save(_state(members, generator, epoch=epoch, step=step + 1, history=history, curves=curves))
        means = _means(history, [len(rows) for rows in batches])
        curves.append(fabric.broadcast({"epoch": epoch + 1, **means, **after_epoch(epoch + 1)}))
        if scheduler is not None:
            plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
            scheduler.step(*([curves[-1]["validation_loss"]] if plateau else []))
        done, history = 0, {}
        if alone and checkpoint.due(epoch_over=epoch + 1 < epochs):
            checkpoint.save(_state(members, generator, epoch=epoch + 1, step=0, history=history, curves=curves))
    bar.close()
    return curves


def _state(
    members: Mapping[str, Any],
    generator: torch.Generator,
    *,
    epoch: int,
    step: int,
    history: History,
    curves: list[dict[str, float]],
) -> dict[str, Any]:
    """The training as it stands before step `step` of epoch `epoch`, both from 0, in a checkpoint's plain form."""
    return {
        "members": {name: member.state_dict() for name, member in members.items()},
        "generator": generator.get_state(),
        "epoch": epoch,
        "step": step,
        "history": history,
        "curves": curves,
    }


def _restore(
    state: dict[str, Any] | None, members: Mapping[str, Any], generator: torch.Generator
) -> tuple[int, int, History, list[dict[str, float]]]:
    """Epoch and step to go on with and what was noted so far; the start if there is no state."""
    if state is None:
        return 0, 0, {}, []
    for name, member in members.items():
        member.load_state_dict(state["members"][name])
    generator.set_state(state["generator"])
    return state["epoch"], state["step"], state["history"], state["curves"]


def _refuse_empty_shares(batches: list[Tensor], label: str) -> None:
    least = min(len(rows) for rows in batches)
    if least < processes.count():
        raise InputError(
            f"{label}: a batch of {least} slices is too small for {processes.count()} processes; "
            "raise batch_size or lower compute.devices and compute.nodes"
        )


def _refuse_non_finite(losses: list[Tensor], label: str, epoch: int) -> None:
    values = torch.stack([loss.cpu() for loss in losses[-LOOK_EVERY:]])
    bad = torch.nonzero(~values.isfinite())
    if len(bad):
        step = len(losses) - len(values) + int(bad[0]) + 1
        raise InputError(
            f"{label}: loss is {float(values[bad[0]])} at epoch {epoch + 1}, step {step}; "
            "lower the learning rate or set compute.precision to 32"
        )


def _means(history: History, sizes: list[int]) -> dict[str, float]:
    """Means over slices of an epoch's figures; a batch counts by its size."""
    weights = torch.tensor(sizes, dtype=torch.float64)
    return {
        f"train_{name}": float((torch.stack([value.cpu() for value in values]).double() * weights).sum()) / sum(sizes)
        for name, values in history.items()
    }
