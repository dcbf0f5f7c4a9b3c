"""MoCo: InfoNCE against a plain sum and lightly's, the queue, its cases, and batch norm in shuffled groups."""

import copy
import math

import pytest
import torch
from lightly.loss import NTXentLoss
from torch import nn
from torch.nn.functional import normalize

from kidney_ssl.methods.base import PretextBatch, Setting
from kidney_ssl.methods.moco import Method, MocoOptions

SETTING = Setting("resnet18", 64, {}, 0, 0.5)
QUEUE = 12


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build(**options):
    made = Method(SETTING, MocoOptions(**{"queue": QUEUE} | options))
    made.begin()
    return made


def batch_of(cases, side=64):
    count = len(cases)
    images = torch.rand(count, 1, side, side, generator=generator(count))
    rows, zeros = torch.arange(count), torch.zeros(count)
    neighbors = torch.full((count, 2), -1)
    return PretextBatch(images, rows, torch.tensor(cases), zeros, zeros, neighbors, images.__getitem__, 0, 1)


class Given(nn.Module):
    """A network that gives what it is told, a row for each image."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, images):
        return self.values.repeat(2, 1)[: len(images)]


def told(method, queries, keys):
    """The method with queries and keys that do not depend on images; one key for all, whatever the order."""
    method.encoder, method.head, method.keys = nn.Identity(), Given(queries), Given(keys)
    return method


def test_the_loss_is_the_papers_and_lightlys_with_a_memory_bank():
    queries = torch.randn(5, 128, generator=generator(1))
    key = torch.randn(1, 128, generator=generator(2)).expand(5, 128)
    method = told(build(temperature=0.3), queries, key)
    bank = NTXentLoss(temperature=0.3, memory_bank_size=(QUEUE, 128))
    bank(queries[:1].requires_grad_(), key[:1])  # makes the bank
    bank.memory_bank.bank.copy_(method.queue)
    unit, positive = (normalize(values, dim=1).double() for values in (queries, key))
    expected = []
    for q, k in zip(unit, positive, strict=True):
        own = math.exp(float(q @ k) / 0.3)
        expected.append(-math.log(own / (own + sum(math.exp(float(q @ n) / 0.3) for n in method.queue.double()))))
    with torch.autocast("cpu", torch.bfloat16):
        loss, metrics = method.step(batch_of([0, 1, 2, 3, 4]), generator())
    assert loss.item() == pytest.approx(sum(expected) / 5, rel=1e-5)
    assert loss.item() == pytest.approx(bank(queries, key).item(), rel=1e-5)
    assert 0 <= metrics["accuracy"] <= 1


def test_keys_join_the_queue_with_their_cases_and_the_oldest_leave():
    method, keys = build(), []
    for cases in ([5, 6, 7, 8], [1, 2, 3, 4], [5, 5, 6, 6], [9, 9, 9, 9]):
        before = method.queue.clone()
        method.step(batch_of(cases), generator())
        assert torch.equal(method.queue[4:], before[:-4])
        keys.insert(0, cases)
    assert method.cases.tolist() == [case for cases in keys[:3] for case in cases]
    assert torch.allclose(method.queue.norm(dim=1), torch.ones(QUEUE))


def test_a_key_in_the_queue_stands_at_the_place_of_its_slice():
    method = build().eval()  # no batch statistics: each slice by itself
    batch = batch_of([0, 1, 2, 3])
    drawn = generator(3)
    second = method.views(batch.images, drawn).chunk(2)[1]
    method.step(batch, generator(3))
    with torch.no_grad():
        expected = normalize(method.keys(second), dim=1)
    torch.testing.assert_close(method.queue[:4], expected)
    assert method.cases[:4].tolist() == [0, 1, 2, 3]


def test_slices_of_the_querys_case_in_the_queue_repel_nothing():
    queries = torch.randn(2, 128, generator=generator(1))
    keys = queries.clone()
    losses = {}
    for case in (0, 7):
        method = told(build(), queries, keys)
        method.queue.copy_(normalize(queries[:1], dim=1).expand(QUEUE, 128))  # the worst negatives
        method.cases.fill_(case)
        losses[case] = method.step(batch_of([0, 0]), generator())[0].item()
    assert losses[0] == 0  # no negative is left
    assert losses[7] > 1
    method.cases.fill_(0)
    assert (
        method.validate(batch_of([0, 0]), generator())["loss"] > 0
    ).all()  # numbers of cases there are another part's


def test_the_key_network_gets_no_gradient_and_follows_with_the_papers_momentum():
    method = build(momentum=0.9)
    before = copy.deepcopy(list(method.keys.parameters()))
    method.step(batch_of([0, 1]), generator())[0].backward()
    assert all(parameter.grad is None for parameter in method.keys.parameters())
    online = [*method.encoder.parameters(), *method.head.parameters()]
    with torch.no_grad():
        for parameter in online:
            parameter.add_(1)
    method.after_step(3, 10)
    for old, now, fast in zip(before, method.keys.parameters(), online, strict=True):
        torch.testing.assert_close(now, old + 0.1 * (fast - old))


def test_batch_norm_sees_groups_and_the_keys_of_a_group_are_shuffled():
    method, seen = build(groups=8), {"encoder": [], "keys": []}
    method.encoder.register_forward_pre_hook(lambda _, given: seen["encoder"].append(given[0].clone()))
    method.keys.register_forward_pre_hook(lambda _, given: seen["keys"].append(given[0].clone()))
    batch, drawn = batch_of(list(range(17))), generator(5)
    first, second = method.views(batch.images, drawn).chunk(2)
    method.train().step(batch, generator(5))
    assert [len(part) for part in seen["encoder"]] == [len(part) for part in seen["keys"]] == [9, 8]
    assert torch.equal(torch.cat(seen["encoder"]), first)
    keys = torch.cat(seen["keys"])
    assert not torch.equal(keys, second)
    assert sorted(keys.sum((1, 2, 3)).tolist()) == sorted(second.sum((1, 2, 3)).tolist())


def test_defaults_are_the_papers():
    options = MocoOptions()
    assert (options.temperature, options.momentum, options.queue, options.groups) == (0.2, 0.999, 65536, 8)
    assert build().exported is not build().keys
