"""The loop with a task of three weights: resume at every step, means, schedulers, losses that are not finite."""

import numpy as np
import pytest
import torch
from torch import nn

from kidney_ssl.errors import InputError
from kidney_ssl.training.batches import Slices
from kidney_ssl.training.checkpoint import Checkpoint
from kidney_ssl.training.device import make_fabric
from kidney_ssl.training.loop import train


class Noisy(nn.Module):
    """A task that draws in each step and has a batch norm, so that resume must restore both."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.weight = nn.Parameter(torch.ones(1))
        self.dtypes = set()

    def step(self, batch, generator):
        images = batch.images + torch.rand(batch.images.shape, generator=generator)
        loss = ((self.norm(images) * self.weight).mean((1, 2, 3)) - batch.labels).pow(2).mean()
        self.dtypes.add(torch.nn.functional.linear(self.weight, self.weight[None]).dtype)
        return loss, {"rows": batch.rows.float().mean()}


class Count:
    """Counts epochs; its validation loss never gets better."""

    def __init__(self):
        self.seen = 0

    def __call__(self, epoch):
        self.seen += 1
        return {"validation_loss": 1.0, "seen": float(self.seen)}

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class Interrupted(Checkpoint):
    """Dies right after its n-th checkpoint, as a kill would."""

    def __init__(self, path, after):
        super().__init__(path, seconds=0)
        self.after = after

    def save(self, state):
        super().save(state)
        self.after -= 1
        if self.after == 0:
            raise KeyboardInterrupt


def run(fabric, checkpoint, *, task=None, scheduler=None, epochs=3, images=None):
    task = Noisy() if task is None else task
    images = np.random.default_rng(0).random((10, 4, 4)).astype(np.float16) if images is None else images
    optimizer = torch.optim.Adam(task.parameters(), lr=0.1)
    curves = train(
        fabric,
        task,
        Slices(images, np.arange(10) % 2, device=fabric.device),
        optimizer,
        epochs=epochs,
        batch_size=4,
        seed=0,
        label="toy",
        after_epoch=Count(),
        checkpoint=checkpoint,
        scheduler=scheduler and scheduler(optimizer),
    )
    return curves, task.state_dict(), optimizer


def plateau(optimizer):
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5)


@pytest.mark.parametrize("after", range(1, 9))
def test_a_run_killed_at_any_step_ends_with_the_same_bits(fabric, tmp_path, after):
    expected, weights, optimizer = run(fabric, Checkpoint(tmp_path / "a.pt"), scheduler=plateau)
    with pytest.raises(KeyboardInterrupt):
        run(fabric, Interrupted(tmp_path / "b.pt", after), scheduler=plateau)
    curves, resumed, again = run(fabric, Checkpoint(tmp_path / "b.pt"), scheduler=plateau)
    assert curves == expected
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    assert optimizer.param_groups[0]["lr"] == again.param_groups[0]["lr"] == 0.025


def test_resuming_goes_on_instead_of_starting_anew(fabric, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(fabric, Interrupted(tmp_path / "b.pt", 7))
    task, steps = Noisy(), []
    task.norm.register_forward_hook(lambda *_: steps.append(1))
    run(fabric, Checkpoint(tmp_path / "b.pt"), task=task)
    assert len(steps) == 9 - 7


def test_a_task_figure_is_the_mean_over_slices(fabric, tmp_path):
    curves, _, _ = run(fabric, Checkpoint(tmp_path / "a.pt"))
    assert [row["epoch"] for row in curves] == [1, 2, 3]
    assert [row["train_rows"] for row in curves] == pytest.approx([4.5] * 3)  # 0..9 in batches of 4, 4 and 2
    assert len({row["train_loss"] for row in curves}) == 3


def test_a_step_runs_under_the_chosen_precision(tmp_path):
    task = Noisy()
    run(make_fabric("cpu", "bf16", 1), Checkpoint(tmp_path / "a.pt"), task=task, epochs=1)
    assert task.dtypes == {torch.bfloat16}


def test_an_ordinary_scheduler_steps_once_an_epoch(fabric, tmp_path):
    def halve(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    _, _, optimizer = run(fabric, Checkpoint(tmp_path / "a.pt"), scheduler=halve)
    assert optimizer.param_groups[0]["lr"] == 0.1 / 8


def test_a_loss_that_is_not_finite_names_run_epoch_and_step(fabric, tmp_path):
    class Breaks(Noisy):
        count = 0

        def step(self, batch, generator):
            loss, figures = super().step(batch, generator)
            self.count += 1
            return (loss * float("nan") if self.count == 5 else loss), figures

    with pytest.raises(InputError, match=r"^toy: loss is nan at epoch 2, step 2; lower the learning rate") as caught:
        run(fabric, Checkpoint(tmp_path / "a.pt"), task=Breaks())
    assert "\n" not in str(caught.value)


def test_no_checkpoint_holds_a_loss_that_is_not_finite(fabric, tmp_path):
    with pytest.raises(InputError, match="epoch 1, step 1"):
        run(fabric, Checkpoint(tmp_path / "a.pt", seconds=0), images=np.full((10, 4, 4), np.nan, np.float16))
    assert not (tmp_path / "a.pt").exists()
