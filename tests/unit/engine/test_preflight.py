"""The look at a method before its training: each broken promise is one line; what holds is trained as without it."""

from collections import deque
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import dropout

from kidney_ssl.engine.batches import Slices
from kidney_ssl.engine.loop import TrainingContext
from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Options, ParameterGroup, Picture, Setting
from kidney_ssl.methods.rotation import Method as Rotation
from kidney_ssl.preflight import preflight, require_encoder
from kidney_ssl.pretext import Shown
from tests.random_state import global_random_state
from tests.unit.engine.toy_study import toy_part

SETTING = Setting("resnet18", 32, {"left": (0.0, 1.0, 0.0, 0.5), "right": (0.0, 1.0, 0.5, 1.0)}, 0, 0.5)


class NoEncoder(Rotation):
    def __init__(self, setting, options):
        super().__init__(setting, options)
        del self.encoder


class LossOfEach(Rotation):
    def step(self, images, generator):
        loss, metrics = super().step(images, generator)
        return loss.expand(len(images)), metrics


class LossAlone(Rotation):
    def step(self, images, generator):
        return super().step(images, generator)[0]


class NotANumber(Rotation):
    def step(self, images, generator):
        loss, metrics = super().step(images, generator)
        return loss * float("nan"), metrics


class NoGradient(Rotation):
    def step(self, images, generator):
        loss, metrics = super().step(images, generator)
        return loss.detach(), metrics


class Detached(Rotation):
    def step(self, images, generator):
        return self.head(self.encoder(images).detach()).mean(), {}


class Wrong(Rotation):
    def step(self, images, generator):
        return self.head(images).mean(), {}


class NoValidationLoss(Rotation):
    def validate(self, images, generator):
        return {"accuracy": super().validate(images, generator)["accuracy"]}


class MeanOfValidation(Rotation):
    def validate(self, images, generator):
        return {name: values.mean() for name, values in super().validate(images, generator).items()}


class NoNumberOfValidation(Rotation):
    def validate(self, images, generator):
        return super().validate(images, generator) | {"spread": torch.full((len(images),), float("nan"))}


class Learns(Rotation):
    def validate(self, images, generator):
        self.encoder.bn1.running_mean += 1
        return super().validate(images, generator)


class Columns(Rotation):
    def pictures(self, images, generator):
        return {"rotations": Picture(images, ("one", "two"))}


class Bright(Rotation):
    def pictures(self, images, generator):
        return {"rotations": Picture(images + 1, ("one",))}


class Hooked(Rotation):
    def step(self, images, generator):
        self.encoder.layer1.register_forward_hook(lambda *_: None)
        return super().step(images, generator)


class Dropped(Rotation):
    def step(self, images, generator):
        loss, metrics = super().step(images, generator)
        return dropout(loss.expand(8)).mean(), metrics


class Counting(Rotation):
    seen = 0

    def step(self, images, generator):
        self.seen += 1
        return super().step(images, generator)


class CountingByNumpy(Rotation):
    seen = np.int64(0)

    def step(self, images, generator):
        self.seen = self.seen + 1
        return super().step(images, generator)


class Queued(Rotation):
    def __init__(self, setting, options):
        super().__init__(setting, options)
        self.past = deque(maxlen=3)

    def step(self, images, generator):
        self.past.append(images.mean())
        return super().step(images, generator)


class Forgotten(Rotation):
    def __init__(self, setting, options):
        super().__init__(setting, options)
        self.register_buffer("centre", torch.zeros(1), persistent=False)

    def step(self, images, generator):
        self.centre += images.mean()
        return super().step(images, generator)


class HiddenTeacher(Rotation):
    def __init__(self, setting, options):
        super().__init__(setting, options)
        self.hidden = [nn.Linear(1, 1, bias=False)]  # in a list, so that it is no module of this one

    def after_step(self, update, updates):
        self.hidden[0].weight.add_(1)


class InAClosure(Rotation):
    def __init__(self, setting, options):
        super().__init__(setting, options)
        steps = []
        self.count = lambda: steps.append(0) or len(steps)

    def step(self, images, generator):
        loss, metrics = super().step(images, generator)
        return loss * self.count(), metrics


class NotTrained(Rotation):
    def parameter_groups(self):
        return [ParameterGroup(list(self.encoder.parameters()))]


class ExportsAnother(Rotation):
    @property
    def exported(self):
        return self.head


BROKEN = [
    (LossOfEach, r"step gives a `loss` of shape \(4,\), which must be a tensor of shape \(\): take its mean"),
    (LossAlone, r"step must return the loss and a dict of metrics"),
    (NotANumber, r"step gives a `loss` of nan, which must be finite"),
    (NoGradient, r"step gives a loss without gradient"),
    (Detached, r"no gradient of the loss reaches `encoder`"),
    (NoValidationLoss, r"validate must return a dict with a `loss`"),
    (MeanOfValidation, r"validate gives `loss` of shape \(\), which must be one value a slice, \(4,\)"),
    (NoNumberOfValidation, r"validate gives a `spread` that is not finite"),
    (Learns, r"`encoder.bn1.running_mean` is changed by validate or pictures"),
    (Columns, r"pictures: `rotations`: images of shape \(4, 1, 32, 32\) for 2 columns"),
    (Bright, r"pictures: `rotations`: values outside of \[0, 1\]"),
    (Hooked, r"a hook is left in the encoder \(layer1\)"),
    (Dropped, r"draws from a global generator \(dropout does too\)"),
    (Counting, r"`seen` changes in training and is in no state_dict"),
    (CountingByNumpy, r"`seen` changes in training and is in no state_dict"),
    (Queued, r"`past` changes in training and is in no state_dict"),
    (Forgotten, r"`centre` changes in training and is in no state_dict"),
    (HiddenTeacher, r"`hidden` changes in training and is in no state_dict"),
    (InAClosure, r"step gives another loss after its state_dict was restored"),
    (NotTrained, r"`head.weight` has a gradient and is in none of parameter_groups"),
    (ExportsAnother, r"`exported` differs from `encoder` in names or shapes \(conv1.weight\)"),
]


@pytest.fixture
def look(fabric, tmp_path):
    """Look at a method that is about to be trained."""

    def look(method):
        parts = [replace(toy_part(count, first), masks=None) for count, first in ((9, 0), (6, 100))]
        parts = [Slices(part, device=fabric.device) for part in parts]
        shown = [Shown(method, slices, 6) for slices in parts]
        preflight(method, *shown, torch.arange(8), TrainingContext(fabric, "toy", 0, tmp_path / "toy.pt"))

    return look


@pytest.mark.parametrize(("kind", "line"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_promise_is_named_in_one_line_with_the_file(look, kind, line):
    torch_state = torch.get_rng_state()
    with pytest.raises(InputError, match=rf"^toy: tests/unit/engine/test_preflight.py: {line}") as caught:
        look(kind(SETTING, Options()))
    torch.set_rng_state(torch_state)
    assert "\n" not in str(caught.value)


def test_what_fails_is_named_with_its_line(look):
    lines = Path(__file__).read_text().splitlines()
    number = 1 + next(at for at, text in enumerate(lines) if "self.head(images).mean()" in text)
    with pytest.raises(InputError, match=rf"test_preflight.py:{number}: step fails \(RuntimeError: mat1 and mat2"):
        look(Wrong(SETTING, Options()))


def test_a_method_without_encoder_is_refused():
    with pytest.raises(InputError, match=r"^toy: tests/unit/engine/test_preflight.py: has no `self.encoder`"):
        require_encoder(NoEncoder(SETTING, Options()), "toy")


def test_it_leaves_the_method_and_all_chance_as_they_were(look):
    method = Rotation(SETTING, Options())
    before, state = global_random_state(), {name: value.clone() for name, value in method.state_dict().items()}
    look(method)
    assert global_random_state() == before
    assert all(torch.equal(state[name], value) for name, value in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())
