"""Optimizers and schedules: closed formulas, torch's own schedulers, and which parameters decay."""

import math
import warnings
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from lightly.utils.lars import LARS
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from kidney_ssl import config
from kidney_ssl.engine.optimization import MOMENTUM, Optimization, Schedule, make_optimizer, parameter_groups, whole
from kidney_ssl.models.resnet import classifier

MODERN = Optimization(optimizer="adamw", weight_decay=0.05, decay_norms=False, schedule="cosine", warmup=0.1, clip=1.0)


def sgd(rate=0.1):
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=rate)


def rates(recipe, updates, per_epoch=10, losses=()):
    """The rate of each update."""
    optimizer, found = sgd(), []
    schedule = Schedule(optimizer, recipe, updates)
    for update in range(updates):
        found.append(schedule.update(optimizer))
        if (update + 1) % per_epoch == 0:
            epoch = update // per_epoch
            schedule.after_epoch({"validation_loss": losses[epoch]} if losses and losses[epoch] is not None else {})
    return found


def formula(recipe, updates):
    warm, found = min(round(recipe.warmup * updates), updates - 1), []
    for update in range(updates):
        if update < warm:
            share = (update + 1) / (warm + 1)
        elif recipe.schedule == "cosine":
            share = (1 + math.cos(math.pi * (update - warm) / (updates - warm))) / 2
        else:
            share = 1.0
        found.append(0.1 * share)
    return found


@pytest.mark.parametrize("schedule", ["constant", "cosine", "plateau"])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.3, 0.99])
@pytest.mark.parametrize("updates", [1, 2, 7, 140])
def test_rates_are_the_closed_formula(schedule, warmup, updates):
    recipe = Optimization(schedule=schedule, warmup=warmup, plateau={"factor": 0.1, "patience": 5})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = rates(recipe, updates)
    assert found == pytest.approx(formula(recipe, updates), rel=1e-9)
    assert min(found) > 0  # no update is for nothing


def test_cosine_is_torchs_and_ends_at_0():
    optimizer, expected = sgd(), []
    torchs = CosineAnnealingLR(optimizer, 50)
    for _ in range(50):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torchs.step()
    assert rates(Optimization(schedule="cosine"), 50) == expected
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_plateau_is_torchs_on_hand_made_losses():
    losses = [1.0, 0.5, 0.6, 0.55, 0.7, 0.4, 0.41, 0.42, 0.43, 0.44]
    settings = {"factor": 0.5, "patience": 1}
    optimizer, expected = sgd(), []
    torchs = ReduceLROnPlateau(optimizer, **settings)
    for loss in losses:
        expected.append(optimizer.param_groups[0]["lr"])
        torchs.step(loss)
    found = rates(Optimization(schedule="plateau", plateau=settings), 10, per_epoch=1, losses=losses)
    assert found == expected
    assert sorted(set(found), reverse=True) == [0.1, 0.05, 0.025]


def test_an_epoch_without_validation_is_no_epoch_of_a_plateau():
    recipe = Optimization(schedule="plateau", plateau={"factor": 0.5, "patience": 0})
    assert rates(recipe, 5, per_epoch=1, losses=[1.0, None, None, 0.9, None]) == [0.1] * 5
    assert rates(recipe, 5, per_epoch=1, losses=[1.0, None, 1.0, None, 0.9]) == [0.1, 0.1, 0.1, 0.05, 0.05]


@pytest.mark.parametrize("recipe", [MODERN, Optimization(warmup=0.1), Optimization(schedule="cosine")])
@pytest.mark.parametrize("cut", [1, 3, 4, 5, 17, 39])
def test_a_schedule_goes_on_to_the_bit(recipe, cut):
    expected = rates(recipe, 40)
    first = sgd()
    schedule = Schedule(first, recipe, 40)
    for _ in range(cut):
        schedule.update(first)
    second, found = sgd(), []
    again = Schedule(second, recipe, 40)
    second.load_state_dict(first.state_dict())
    again.load_state_dict(schedule.state_dict())
    for _ in range(cut, 40):
        found.append(again.update(second))
    assert found == expected[cut:]


def test_norms_and_biases_of_a_resnet_do_not_decay():
    model = classifier("resnet18", 0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, rest = parameter_groups(whole(model), 0.1, MODERN)
    norms = {name for name in names.values() if ".bn" in name or name.startswith("bn") or "downsample.1" in name}
    assert {names[id(one)] for one in rest["params"]} == norms | {"fc.bias"}
    assert {names[id(one)] for one in decayed["params"]} == {
        name for name in names.values() if "conv" in name or "downsample.0" in name or name == "fc.weight"
    }
    assert len(decayed["params"]) + len(rest["params"]) == len(names) == 38  # of one block a layer
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.05, 0.0)


def test_with_decaying_norms_there_is_one_group_in_the_order_of_the_parameters():
    model = classifier("resnet18", 0)
    (group,) = parameter_groups(whole(model), 0.1, Optimization())
    assert all(one is other for one, other in zip(group["params"], model.parameters(), strict=True))


def test_weights_without_a_gradient_are_left_out():
    model = nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    assert [len(group["params"]) for group in parameter_groups(whole(model), 0.1, MODERN)] == [1]


def test_groups_have_their_share_of_rate_and_decay_and_the_schedule_keeps_their_ratio(fabric):
    model = nn.Linear(3, 2)
    optimizer = make_optimizer([([model.weight], 0.5, 2.0), ([model.bias], 1.0, 1.0)], 0.1, MODERN, fabric)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    schedule = Schedule(optimizer, MODERN, 30)
    for _ in range(29):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == pytest.approx(second / 2)
        schedule.update(optimizer)


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("lars", LARS)])
def test_an_optimizer_updates_as_the_one_of_its_library(fabric, name, kind):
    def trained(make):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        optimizer = make(model)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).pow(2).sum().backward()
            optimizer.step()
        return torch.cat([one.detach().flatten() for one in model.parameters()])

    recipe = replace(MODERN, optimizer=name)
    own = {"momentum": MOMENTUM} if name == "lars" else {}

    def by_hand(model):
        groups = [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}]
        return kind(groups, lr=0.1, weight_decay=0.05, **own)

    found = trained(lambda model: make_optimizer(whole(model), 0.1, recipe, fabric))
    assert torch.allclose(found, trained(by_hand), rtol=1e-6)
    plain = trained(lambda model: make_optimizer(whole(model), 0.1, replace(recipe, weight_decay=0.0), fabric))
    assert not torch.allclose(found, plain, rtol=1e-4)


def test_the_thesis_recipe_is_fused_adam_with_l2(fabric):
    optimizer = make_optimizer(whole(nn.Linear(2, 1)), 0.1, Optimization(weight_decay=0.5), fabric)
    assert type(optimizer) is torch.optim.Adam
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"], group["fused"]) == (0.1, 0.5, True)


def test_gradients_that_float16_scales_are_clipped_by_an_optimizer_that_leaves_unscaling_to_others():
    scaling = SimpleNamespace(strategy=SimpleNamespace(precision=SimpleNamespace(scaler=object())))
    optimizer = make_optimizer(whole(nn.Linear(2, 1)), 0.1, MODERN, scaling)
    assert not optimizer.param_groups[0]["fused"]
    assert make_optimizer(whole(nn.Linear(2, 1)), 0.1, replace(MODERN, clip=None), scaling).param_groups[0]["fused"]


def test_params_yaml_says_all_of_a_recipe_and_every_optimizer_and_schedule_can_be_made(fabric):
    keys = config.Optimization.model_fields
    assert set(keys) == {field.name for field in fields(Optimization)}
    for name in get_args(keys["optimizer"].annotation):
        make_optimizer(whole(nn.Linear(2, 1)), 0.1, Optimization(optimizer=name), fabric)
    rest = {schedule: tuple(rates(Optimization(schedule=schedule), 20)) for schedule in ("constant", "cosine")}
    assert {"plateau", *rest} == set(get_args(keys["schedule"].annotation))
    assert len(set(rest.values())) == 2
