"""The loop with a task of three weights: resume at every step, means, schedules, clipping, losses not finite."""

import math
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from kidney_ssl.engine.batches import Slices, seeded
from kidney_ssl.engine.checkpoint import Checkpoint
from kidney_ssl.engine.device import make_fabric
from kidney_ssl.engine.loop import TrainingContext, train
from kidney_ssl.engine.optimization import Optimization, Schedule
from kidney_ssl.errors import InputError
from tests.unit.engine.toy_study import part_of


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


@pytest.fixture
def interrupted(fabric, tmp_path, monkeypatch):
    """A training that dies right after its n-th checkpoint, as a kill would."""

    def train_and_die(after, **options):
        save, saved = Checkpoint.save, []

        def killed(self, state):
            save(self, state)
            saved.append(state)
            if len(saved) == after:
                raise KeyboardInterrupt

        monkeypatch.setattr(Checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(fabric, tmp_path / "b.pt", seconds=0, **options)
        monkeypatch.setattr(Checkpoint, "save", save)

    return train_and_die


CONSTANT = Optimization()


def run(fabric, checkpoint, *, seconds=30.0, task=None, recipe=CONSTANT, epochs=3, images=None, resident="always"):
    task = Noisy() if task is None else task
    images = np.random.default_rng(0).random((10, 4, 4)).astype(np.float16) if images is None else images
    optimizer = torch.optim.Adam(task.parameters(), lr=0.1)
    found = train(
        TrainingContext(fabric, "toy", 0, checkpoint, seconds),
        task,
        Slices(part_of(images, np.arange(10) % 2), device=fabric.device, resident=resident),
        optimizer,
        epochs=epochs,
        batch_size=4,
        after_epoch=Count(),
        schedule=Schedule(optimizer, recipe, 3 * epochs),
        clip=recipe.clip,
    )
    return found, task.state_dict(), optimizer


# Of 9 updates: the rate rises for 4, and after the second checkpoint it stands in the middle of that.
SCHEDULES = {
    "plateau": Optimization(schedule="plateau", plateau={"factor": 0.5, "patience": 0}),
    "warm-up": Optimization(warmup=0.4),
    "warm-up and cosine": Optimization(schedule="cosine", warmup=0.4, clip=0.01),
    "warm-up and plateau": Optimization(schedule="plateau", warmup=0.4, plateau={"factor": 0.5, "patience": 0}),
}


@pytest.mark.parametrize("recipe", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("after", range(1, 9))
def test_a_run_killed_at_any_step_ends_with_the_same_bits(fabric, tmp_path, interrupted, after, recipe):
    expected, weights, optimizer = run(fabric, tmp_path / "a.pt", recipe=recipe)
    interrupted(after, recipe=recipe)
    found, resumed, again = run(fabric, tmp_path / "b.pt", recipe=recipe)
    assert found.curves == expected.curves
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    assert optimizer.param_groups[0]["lr"] == again.param_groups[0]["lr"]


def test_a_resumed_run_counts_the_slices_that_it_trained_on_itself(fabric, tmp_path, interrupted):
    interrupted(7)
    task, sizes = Noisy(), []
    task.norm.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    found, _, _ = run(fabric, tmp_path / "b.pt", task=task)
    assert sizes == [4, 2]  # 3 steps an epoch: the last two of the third one
    assert found.images == 6
    assert run(fabric, tmp_path / "a.pt")[0].images == 30


@pytest.mark.parametrize("seconds", [0, 30.0])
def test_slices_in_memory_and_mapped_ones_give_the_same_bits(fabric, tmp_path, seconds):
    held, mapped = (
        run(fabric, tmp_path / f"{resident}.pt", resident=resident, seconds=seconds) for resident in ("always", "never")
    )
    assert held[0] == mapped[0]
    assert all(torch.equal(value, mapped[1][name]) for name, value in held[1].items())


def test_a_task_figure_is_the_mean_over_slices(fabric, tmp_path):
    curves = run(fabric, tmp_path / "a.pt")[0].curves
    assert [row["epoch"] for row in curves] == [1, 2, 3]
    assert [row["train_rows"] for row in curves] == pytest.approx([4.5] * 3)  # 0..9 in batches of 4, 4 and 2
    assert len({row["train_loss"] for row in curves}) == 3


def test_a_step_runs_under_the_chosen_precision(tmp_path):
    task = Noisy()
    run(make_fabric("cpu", "bf16", 1), tmp_path / "a.pt", task=task, epochs=1)
    assert task.dtypes == {torch.bfloat16}


def test_the_curves_have_the_rate_of_each_epochs_last_update(fabric, tmp_path):
    found = {name: run(fabric, tmp_path / f"{name}.pt", recipe=one)[0].curves for name, one in SCHEDULES.items()}
    rates = {name: [row["train_learning_rate"] for row in curves] for name, curves in found.items()}
    assert rates["plateau"] == pytest.approx([0.1, 0.1, 0.05])  # the first epoch is the best, the second no better
    assert rates["warm-up"] == pytest.approx([0.06, 0.1, 0.1])  # updates 2, 5 and 8, from 0
    cosine = [0.1 * (1 + math.cos(math.pi * step / 5)) / 2 for step in (1, 4)]
    assert rates["warm-up and cosine"] == pytest.approx([0.06, *cosine])
    assert rates["warm-up and plateau"] == pytest.approx([0.06, 0.1, 0.05])


@pytest.mark.parametrize(("clip", "expected"), [(None, 100.0), (1e9, 100.0), (0.5, 0.5)])
def test_gradients_are_scaled_down_to_the_largest_norm(fabric, tmp_path, clip, expected):
    class Steep(Noisy):
        def step(self, batch, generator):
            return self.norm.weight.sum() * 60 + self.weight.sum() * 80 + batch.images.sum() * 0, {}

    task = Steep()
    run(fabric, tmp_path / "a.pt", task=task, epochs=1, recipe=Optimization(clip=clip))
    gradients = torch.cat([one.grad.flatten() for one in task.parameters() if one.grad is not None])
    assert gradients.norm().item() == pytest.approx(expected)
    assert gradients[0] / gradients[1] == pytest.approx(4 / 3)  # weight, then norm: the direction stays


def test_a_loss_that_is_not_finite_names_run_epoch_and_step(fabric, tmp_path):
    class Breaks(Noisy):
        count = 0

        def step(self, batch, generator):
            loss, figures = super().step(batch, generator)
            self.count += 1
            return (loss * float("nan") if self.count == 5 else loss), figures

    with pytest.raises(InputError, match=r"^toy: loss is nan at epoch 2, step 2; lower the learning rate") as caught:
        run(fabric, tmp_path / "a.pt", task=Breaks())
    assert "\n" not in str(caught.value)


def test_no_checkpoint_holds_a_loss_that_is_not_finite(fabric, tmp_path):
    with pytest.raises(InputError, match="epoch 1, step 1"):
        run(fabric, tmp_path / "a.pt", seconds=0, images=np.full((10, 4, 4), np.nan, np.float16))
    assert not (tmp_path / "a.pt").exists()


class OneWay:
    """A device that takes data and gives none back: whatever would wait for a GPU fails on it."""

    device = torch.device("meta")
    is_global_zero = True
    strategy = SimpleNamespace(precision=None)
    autocast = staticmethod(nullcontext)

    @staticmethod
    def setup(task, optimizer):
        task.mark_forward_method = lambda _: None
        return task, optimizer

    @staticmethod
    def broadcast(value):
        return value

    @staticmethod
    def backward(loss):
        loss.backward()


class Uploads(TorchDispatchMode):
    """Counts copies from the host to the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        if "_to_copy" in str(function):
            self.count += (arguments[0].device.type, str(options.get("device"))) == ("cpu", "meta")
        return function(*arguments, **options)


@pytest.mark.parametrize("masks", [None, np.zeros((10, 4, 4), np.uint8)])
def test_no_step_of_an_epoch_waits_for_the_device_and_all_batches_go_there_at_once(tmp_path, monkeypatch, masks):
    def seeded_on_the_host(*key, device="cpu"):
        return seeded(*key)

    monkeypatch.setattr("kidney_ssl.engine.loop.seeded", seeded_on_the_host)
    task, steps = nn.Conv2d(1, 1, 1, device="meta"), []

    def step(batch, generator):
        steps.append((batch.rows.device.type, batch.masks is not None))
        return task(batch.images).mean() + batch.labels.mean(), {"rows": batch.rows.float().mean()}

    task.step = step
    part = replace(part_of(np.zeros((10, 4, 4), np.float16), np.arange(10) % 2), masks=masks)
    slices = Slices(part, device=OneWay.device, resident="always")
    with Uploads() as uploads, pytest.raises(NotImplementedError, match="no data"):  # the look at the losses
        train(
            TrainingContext(OneWay(), "toy", 0, tmp_path / "a.pt"),
            task,
            slices,
            torch.optim.SGD(task.parameters(), lr=0.1),
            epochs=1,
            batch_size=4,
            after_epoch=Count(),
        )
    assert steps == [("meta", masks is not None)] * 3
    assert uploads.count == 1
