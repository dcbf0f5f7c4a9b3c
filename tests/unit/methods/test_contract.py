"""What every pretext method must hold, over the registry: a new file in the folder is tested here by being there.

The stand-ins are methods with state, which hold the contract too.
"""

import copy
import inspect
import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models

import kidney_ssl.methods
from kidney_ssl.errors import InputError
from kidney_ssl.methods import METHODS, SHARED, load
from kidney_ssl.methods.base import Options, Pretext, PretextBatch, Setting, read_options
from kidney_ssl.models.resnet import batch_norms
from tests.random_state import global_random_state
from tests.unit.methods.stand_ins import NARROW, STAND_INS

REGIONS = {"left": (0.375, 0.75, 0.125, 0.4375), "right": (0.375, 0.75, 0.5625, 0.875)}
BATCH = 8
FOLDER = Path(kidney_ssl.methods.__file__).parent
# Options under which a method draws something: by default all regions are exchanged, and there is nothing to draw.
DRAWING = {"inpaint_switch": {"probability": 0.5}}
registered = pytest.mark.parametrize("name", METHODS)
each = pytest.mark.parametrize("name", [*METHODS, *STAND_INS])
UPDATES = 10


def kind_of(name):
    return STAND_INS[name] if name in STAND_INS else load(name)


def build(name, *, side=64, seed=0, network="resnet18", **options):
    """A method as it is before its first step."""
    kind = kind_of(name)
    # Few steps are made here: the running statistics must follow at once.
    method = kind(Setting(network, side, REGIONS, seed, 0.5), read_options(kind, options, name))
    method.begin()
    return method


def narrow(name, **setting):
    """A method without the width of its default."""
    return build(name, **setting, **NARROW.get(name, {}))


@cache
def built(name):
    """One narrow method for all tests that leave it as it is."""
    return narrow(name)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def given(name, side=64, count=BATCH, update=0):
    """What a method is given: slices, their masks if it reads them, and their places if it reads those."""
    kind, (images, masks) = kind_of(name), slices(side)
    images = (torch.cat([images, masks], 1) if kind.reads_masks else images)[:count].clone()
    if not kind.reads_batch:
        return images
    rows = torch.arange(count)  # of two cases
    case, number = rows // 4, rows % 4
    neighbors = torch.stack([torch.where(number == 0, -1, rows - 1), torch.where(number == 3, -1, rows + 1)], 1)
    read = partial(torch.index_select, slices(side)[0], 0)
    return PretextBatch(images, rows, case, number / 4, number * 5.0, neighbors, read, update, UPDATES)


def images_of(batch):
    return batch.images if isinstance(batch, PretextBatch) else batch


@cache
def slices(side=64):
    """Bodies of varied grey before black air, with a brighter kidney in each region, one with tumor, one with cyst."""
    coarse = torch.rand(BATCH, 1, 8, 8, generator=generator(0))
    images = 0.2 + 0.4 * torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    masks = torch.zeros_like(images)
    y, x = torch.meshgrid(*[(torch.arange(side) + 0.5) / side] * 2, indexing="ij")
    for mass, (top, bottom, left, right) in zip((2, 3), REGIONS.values(), strict=True):
        away = ((2 * y - top - bottom) / (bottom - top)) ** 2 + ((2 * x - left - right) / (right - left)) ** 2
        images[:, :, away < 0.6] += 0.3
        masks[:, :, away < 0.6] = 1
        masks[:, :, away < 0.1] = mass
    images[:, :, torch.hypot((y - 0.5) / 0.46, (x - 0.5) / 0.48) > 1] = 0
    return images.clamp(0, 1), masks


def test_the_registry_is_the_folder():
    assert set(METHODS) | set(SHARED) >= {path.stem for path in FOLDER.glob("*.py")}
    assert list(METHODS) == sorted(set(METHODS) - set(SHARED))
    assert all((FOLDER / f"{name}.py").is_file() for name in METHODS)


@registered
def test_a_file_holds_one_method_with_options_of_its_own(name):
    method = load(name)
    assert method.__module__ == f"kidney_ssl.methods.{name}"
    assert issubclass(method, Pretext)
    assert not inspect.isabstract(method)
    assert issubclass(method.Parameters, Options)
    assert inspect.getdoc(method)
    assert method.control or not method.reads_masks  # what sees masks is supervised, and no contender


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=f"unknown pretext method 'nothing', known: {', '.join(METHODS)}"):
        load("nothing")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("class Methods: pass", "holds no class `Method`; give the pretext method this name"),
        ("Method = 3", "holds no class `Method`"),
        (
            "from kidney_ssl.methods.base import Pretext\nclass Method(Pretext):\n    def step(self): pass",
            "`Method` lacks __init__, pictures, validate; write what is missing",
        ),
        ("class Method: pass", "`Method` is no Pretext; derive it from kidney_ssl.methods.base.Pretext"),
    ],
)
def test_a_file_without_a_whole_method_is_refused_in_one_line(tmp_path, monkeypatch, text, line):
    (tmp_path / "written.py").write_text(text)
    monkeypatch.setattr(kidney_ssl.methods, "__path__", [str(tmp_path)])
    monkeypatch.setattr(kidney_ssl.methods, "METHODS", ("written",))
    monkeypatch.delitem(sys.modules, "kidney_ssl.methods.written", raising=False)
    with pytest.raises(InputError, match=rf"written(\.py)?: {line}"):
        load("written")


@registered
def test_options_have_defaults_and_an_unknown_one_is_refused_in_one_line(name):
    method, key = load(name), f"pretrain.methods.{name}-0.options"
    assert read_options(method, {}, key) == method.Parameters()
    assert read_options(method, method.Parameters().model_dump(), key) == method.Parameters()
    with pytest.raises(InputError, match=rf"^params.yaml: {key}.no_such_option: ") as caught:
        read_options(method, {"no_such_option": 1}, key)
    assert "\n" not in str(caught.value)


@each
def test_the_encoders_state_has_torchvisions_names_without_head(name):
    expected = {name: tuple(tensor.shape) for name, tensor in models.resnet18().state_dict().items()}
    expected["conv1.weight"] = (64, 1, 7, 7)
    found = {name: tuple(tensor.shape) for name, tensor in built(name).encoder.state_dict().items()}
    assert found == {name: shape for name, shape in expected.items() if not name.startswith("fc.")}


@each
def test_the_settings_seed_decides_all_weights(name):
    before = global_random_state()
    methods = [narrow(name, seed=seed) for seed in (3, 3, 4)]
    first, same, other = (method.state_dict() for method in methods)
    assert global_random_state() == before
    assert all(torch.equal(first[key], same[key]) for key in first)
    drawn = [key for key, tensor in methods[0].named_parameters() if tensor.ndim > 1]  # a buffer may begin with zeros
    assert all(not torch.equal(first[key], other[key]) for key in drawn)
    assert any(not key.startswith("encoder.") for key in drawn)  # the method's own part


@pytest.mark.parametrize(
    ("side", "precision", "network", "count"),
    [
        (64, "32", "resnet18", BATCH),
        (96, "bf16", "resnet18", 2),  # few slices: many CPUs emulate bf16
        (64, "32", "resnet50", 2),
    ],
)
@each
def test_a_step_gives_a_finite_loss_whose_gradient_reaches_the_first_convolution(name, side, precision, network, count):
    wide = (side, network) == (64, "resnet18")  # once by default
    method = (build if wide else narrow)(name, side=side, network=network).train()
    batch = given(name, side, count)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss, figures = method.step(batch, generator(0))
    loss.backward()
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    for figure in figures.values():
        assert figure.detach().shape == ()
        assert figure.isfinite()
    gradient = method.encoder.conv1.weight.grad
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0
    assert torch.equal(images_of(batch), images_of(given(name, side, count)))  # what comes in is left as it is


@each
def test_the_generator_decides_what_is_drawn_and_nothing_global_is(name):
    built = build(name, **NARROW.get(name, {}), **DRAWING.get(name, {}))
    before = global_random_state()
    losses, ends = {}, {}
    for run, seed in (("first", 1), ("same", 1), ("other", 2)):
        drawn, method = generator(seed), copy.deepcopy(built).train()  # a step may change a method's state
        losses[run] = method.step(given(name), drawn)[0].item()
        ends[run] = drawn.get_state()
    assert global_random_state() == before
    assert losses["first"] == losses["same"]
    assert torch.equal(ends["first"], ends["same"])
    drew = not torch.equal(ends["first"], generator(1).get_state())
    assert (losses["first"] != losses["other"]) == drew


@each
def test_a_few_steps_lower_the_loss(name):
    method = copy.deepcopy(built(name))
    groups = method.parameter_groups()
    optimizer = torch.optim.Adam([{"params": list(group.parameters), "lr": 1e-3 * group.rate} for group in groups])
    # A queue that fills with the one batch that there is would repel it from itself.
    norms = {id(buffer) for norm in batch_norms(method) for buffer in norm.buffers()}
    kept = {buffer: buffer.clone() for buffer in method.buffers() if id(buffer) not in norms}

    losses = []
    for update in range(8):
        optimizer.zero_grad()
        loss, _ = method.train().step(given(name, update=update), generator(1))  # the same draw each time
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            method.after_step(update, UPDATES)
            for buffer, values in kept.items():
                buffer.copy_(values)
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


@each
def test_validation_gives_figures_of_each_image_beside_a_trivial_predictors(name):
    method = built(name).eval()
    before, state = global_random_state(), {key: tensor.clone() for key, tensor in method.state_dict().items()}
    with torch.inference_mode():
        figures, same = (method.validate(given(name), generator(0)) for _ in range(2))
        few = method.validate(given(name, count=3), generator(0))  # the last batch is shorter
        with torch.autocast("cpu", torch.bfloat16):
            coarse = method.validate(given(name), generator(0))
    assert global_random_state() == before
    assert all(torch.equal(state[key], tensor) for key, tensor in method.state_dict().items())
    assert "loss" in figures
    for measured, count in ((figures, BATCH), (few, 3), (coarse, BATCH)):
        assert set(measured) == set(figures)
        for figure, values in measured.items():
            assert values.shape == (count,), figure
            assert values.isfinite().all(), figure
            assert values.is_floating_point(), figure
    assert all(torch.equal(figures[key], same[key]) for key in figures)
    trivial = [key for key in figures if any(key.startswith(f"{other}_") for other in figures)]
    assert trivial, f"no trivial predictor beside {', '.join(figures)}"


@each
@pytest.mark.parametrize("side", [64, 96])
def test_pictures_are_grids_with_a_title_over_each_column(name, side):
    method = narrow(name, side=side).eval()
    before = global_random_state()
    with torch.inference_mode():
        pictures, same = (method.pictures(given(name, side, 4), generator(0)) for _ in range(2))
    assert global_random_state() == before
    assert pictures
    for title, picture in pictures.items():
        assert Path(f"{title}.png").name == f"{title}.png"  # a file's name
        assert picture.images.ndim == 4, title
        assert picture.images.shape[1] == len(picture.columns) > 0, title
        assert 0 <= picture.images.min() < picture.images.max() <= 1, title
        assert torch.equal(picture.images, same[title].images), title
