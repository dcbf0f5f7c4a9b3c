"""DINO: the loss and the centre against lightly's, schedules, crops, and what the teacher is."""

import copy
import math

import pytest
import torch
from lightly.loss import DINOLoss
from torch import nn

from kidney_ssl.engine.device import make_fabric
from kidney_ssl.engine.optimization import Optimization, make_optimizer
from kidney_ssl.methods.base import PretextBatch, Setting
from kidney_ssl.methods.dino import DinoOptions, Method, cross_entropies
from kidney_ssl.models.momentum import cosine_momentum
from tests.unit.methods.stand_ins import Given

SETTING = Setting("resnet18", 64, {}, 0, 0.5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build(**options):
    made = Method(SETTING, DinoOptions(**{"prototypes": 7, "local_crops": 3} | options))
    made.begin()
    return made


def batch_of(count, update=0, updates=100):
    images = torch.rand(count, 1, 64, 64, generator=generator(count))
    rows, zeros = torch.arange(count), torch.zeros(count)
    return PretextBatch(
        images, rows, rows, zeros, zeros, torch.full((count, 2), -1), images.__getitem__, update, updates
    )


def test_losses_and_the_centre_are_those_of_lightly_over_two_steps():
    method, loss = build(), DINOLoss(7, teacher_temp=0.055, student_temp=0.1, center_momentum=0.9)
    for seed in (1, 2):
        said = torch.randn(2, 4, 7, generator=generator(seed))
        told = torch.randn(5, 4, 7, generator=generator(10 + seed))
        method.head, method.teacher = Given(told.flatten(0, 1)), Given(said.flatten(0, 1))
        expected = loss(list(said), list(told)).item()
        batch = batch_of(4, update=5)  # half of the rise from 0.04 to 0.07
        found, _ = method.step(batch, generator())
        assert found.item() == pytest.approx(expected, rel=1e-4)
        torch.testing.assert_close(method.centre, loss.center.flatten())


def test_a_crop_is_compared_with_all_others_and_never_with_itself():
    said, told = torch.randn(2, 1, 5, generator=generator(1)), torch.randn(4, 1, 5, generator=generator(2))
    total = 0.0
    for large in range(2):
        wanted = (said[large, 0] / 0.05).softmax(0)
        for crop in set(range(4)) - {large}:
            total -= float((wanted * (told[crop, 0] / 0.2).log_softmax(0)).sum())
    assert cross_entropies(said, told, 0.05, 0.2).item() == pytest.approx(total / 6, rel=1e-5)


@pytest.mark.parametrize(("update", "expected"), [(0, 0.04), (5, 0.055), (10, 0.07), (99, 0.07)])
def test_the_teachers_temperature_rises_and_stays(update, expected, monkeypatch):
    seen = []

    def noted(said, told, said_temperature, told_temperature):
        seen.append((said_temperature, told_temperature))
        return cross_entropies(said, told, said_temperature, told_temperature)

    monkeypatch.setattr("kidney_ssl.methods.dino.cross_entropies", noted)
    build().step(batch_of(2, update=update), generator())
    assert seen == [(pytest.approx(expected), 0.1)]


def test_prototypes_stay_as_they_are_in_the_first_updates():
    for update, still in ((0, True), (1, False)):
        method = build()
        method.step(batch_of(2, update=update), generator())[0].backward()
        assert method.head.prototypes.grad.any() != still
        assert method.encoder.conv1.weight.grad.any()


def test_no_weight_decay_moves_frozen_prototypes():
    method, fabric = build(), make_fabric("cpu", "32", 1)
    recipe = Optimization(optimizer="adam", weight_decay=0.1)
    optimizer = make_optimizer(method.parameter_groups(), 1e-2, recipe, fabric)
    before = method.head.prototypes.detach().clone()
    method.step(batch_of(2), generator())[0].backward()
    optimizer.step()
    assert torch.equal(method.head.prototypes, before)


def test_the_teacher_gets_no_gradient_follows_the_student_and_is_kept():
    method = build()
    assert method.exported is method.teacher[0] is not method.encoder
    before = copy.deepcopy(list(method.teacher.parameters()))
    method.step(batch_of(2), generator())[0].backward()
    assert all(parameter.grad is None for parameter in method.teacher.parameters())
    student = [*method.encoder.parameters(), *method.head.parameters()]
    with torch.no_grad():
        for parameter in student:
            parameter.add_(1)
    method.after_step(5, 10)
    share = 1 - cosine_momentum(0.996, 5, 10)
    for old, now, fast in zip(before, method.teacher.parameters(), student, strict=True):
        torch.testing.assert_close(now, old + share * (fast - old))


def test_small_crops_are_small_and_the_student_alone_sees_them():
    method, sizes = build(), {"encoder": [], "teacher": []}
    for name, module in (("encoder", method.encoder), ("teacher", method.teacher)):
        module.register_forward_pre_hook(lambda _, given, name=name: sizes[name].append(tuple(given[0].shape)))
    method.step(batch_of(4), generator())
    assert sizes == {"encoder": [(8, 1, 64, 64), (12, 1, 27, 27)], "teacher": [(8, 1, 64, 64)]}
    sizes["encoder"].clear()
    without = build(local_crops=0)
    assert without.crops(batch_of(2).images, generator())[1] is None
    assert without.step(batch_of(2), generator())[0].isfinite()


def test_the_head_gives_cosines_and_equal_outputs_have_the_loss_of_the_trivial_predictor():
    method = build()
    outputs = method.head(torch.randn(5, 512, generator=generator()))
    assert outputs.abs().max() <= 1 + 1e-6
    method.head, method.teacher = Given(torch.zeros(20, 7)), nn.Sequential(method.encoder, Given(torch.zeros(8, 7)))
    found = method.eval().validate(batch_of(4), generator())
    assert found["loss"].tolist() == pytest.approx([math.log(7)] * 4)
    assert found["loss_chance"].tolist() == pytest.approx([math.log(7)] * 4)


def test_defaults_are_the_papers():
    options = DinoOptions()
    assert (options.min_scale, options.local_crops, options.prototypes) == (0.4, 8, 65536)
    assert (options.local_min_scale, options.local_max_scale) == (0.05, 0.4)
    assert (options.student_temperature, options.first_temperature, options.temperature) == (0.1, 0.04, 0.07)
    assert (options.momentum, options.centre_momentum) == (0.996, 0.9)
    assert round(options.local_side * 224) == 96
