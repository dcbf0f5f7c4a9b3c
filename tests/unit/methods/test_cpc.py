"""CPC: InfoNCE against plain loops, and a context that never sees what it predicts, in training mode."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import Setting, read_options
from kidney_ssl.methods.cpc import FIRST, CpcOptions, Method, accuracies, info_nce, layout
from kidney_ssl.models.resnet import batch_norms


def method(size=64, grid=5, **options):
    return Method(Setting("resnet18", size, {}, 0), CpcOptions(grid=grid, **options))


def noise(count, size=64, seed=0):
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed))


def dot(first, second):
    return sum(a * b for a, b in zip(first.tolist(), second.tolist(), strict=True))


@pytest.mark.parametrize(
    ("size", "grid", "side", "stride"),
    [(64, 7, 16, 8), (96, 7, 24, 12), (512, 7, 128, 64), (64, 5, 16, 12), (96, 5, 24, 18), (512, 5, 128, 96)],
)
def test_patches_are_a_quarter_of_the_slice_and_span_it(size, grid, side, stride):
    assert layout(size, grid) == (side, stride)
    assert side + (grid - 1) * stride == size


@given(size=st.integers(32, 1024), grid=st.sampled_from([5, 7]))
def test_a_patch_shares_pixels_with_the_next_row_and_none_with_the_second(size, grid):
    side, stride = layout(size, grid)
    assert stride < side <= 2 * stride
    assert FIRST == 2
    assert side + (grid - 1) * stride <= size


@pytest.mark.parametrize(("size", "grid"), [(64, 5), (64, 7), (47, 7)])
def test_the_grid_has_its_rows_and_columns_at_any_size(size, grid):
    images = torch.arange(2 * size**2, dtype=torch.float32).view(2, 1, size, size)
    model = method(size, grid)
    patches = model.patches(images)
    assert patches.shape == (2, grid, grid, 1, model.side, model.side)
    top, left = (grid - 1) * model.stride, 2 * model.stride
    assert torch.equal(patches[1, -1, 2, 0], images[1, 0, top : top + model.side, left : left + model.side])


def test_info_nce_equals_the_published_equation_in_plain_loops():
    generator = torch.Generator().manual_seed(0)
    predictions, candidates = torch.randn(6, 4, generator=generator), torch.randn(9, 4, generator=generator)
    positives = torch.tensor([0, 8, 3, 3, 5, 1])
    losses, logits = info_nce(predictions, candidates, positives)
    for number, prediction in enumerate(predictions):
        similar = [math.exp(dot(prediction, candidate)) for candidate in candidates]
        expected = -math.log(similar[int(positives[number])] / sum(similar))
        assert losses[number].item() == pytest.approx(expected, rel=1e-4)
    assert logits.shape == (6, 9)


def test_info_nce_is_the_logarithm_of_the_candidates_where_nothing_is_known():
    losses, _ = info_nce(torch.zeros(3, 4), torch.randn(11, 4), torch.tensor([0, 5, 10]))
    assert torch.allclose(losses, torch.full((3,), math.log(11)))


@pytest.mark.parametrize(("grid", "steps"), [(5, 4), (5, 2), (7, 3)])
def test_each_row_below_is_predicted_from_the_second_step_on_against_the_whole_batch(grid, steps):
    model = method(grid=grid, steps=steps)
    features = torch.randn(2, grid, grid, 512, generator=torch.Generator().manual_seed(0)) / 5
    with torch.no_grad():
        losses, logits, targets = model.compare(features)
        context, everything = model.context(features), features.reshape(-1, 512)
    for image in range(2):
        number = 0
        for step in range(2, steps + 1):
            for row in range(grid - step):
                for column in range(grid):
                    known = context[image, row, column]
                    weight, bias = (value.detach() for value in model.predictors[step - 2].parameters())
                    similar = everything @ (weight @ known + bias)
                    true = (image * grid + row + step) * grid + column
                    expected = -math.log(similar[true].exp() / similar.exp().sum())
                    assert losses[image, number].item() == pytest.approx(expected, rel=1e-3)
                    assert torch.allclose(logits[image, number].flatten(), similar, atol=1e-4)
                    assert int(targets[number]) == (row + step) * grid + column
                    number += 1
        assert number == losses.shape[1]


def leaked(model, size):
    """Greatest change of any context when all that it is to predict changes, in training mode.

    The rows that context r predicts begin at r + 2, whose uppermost pixels belong to no patch of its own.
    """
    model.train()
    images, other, found = noise(2, size), noise(2, size, seed=1) * 0.3, []
    with torch.no_grad():
        before = model.context(model.encode(images))
        for row in (0, 1, model.options.grid - FIRST - 1):
            changed = images.clone()
            start = (row + FIRST) * model.stride
            changed[:, :, start:] = other[:, :, start:]
            after = model.context(model.encode(changed))
            assert (before[:, row + FIRST :] - after[:, row + FIRST :]).abs().max() > 0.01  # the change can be seen
            found.append(float((before[:, : row + 1] - after[:, : row + 1]).abs().max()))
    return max(found)


@pytest.mark.parametrize(("grid", "size"), [(5, 32), (7, 32), (7, 70)])
@pytest.mark.parametrize("batch_norm", ["rows", "frozen"])
def test_the_context_never_sees_what_it_predicts(batch_norm, grid, size):
    assert leaked(method(size, grid, batch_norm=batch_norm), size) < 1e-6


@pytest.mark.parametrize("grid", [5, 7])
def test_the_leaky_context_sees_what_it_predicts(grid):
    assert leaked(method(32, grid, batch_norm="leaky"), 32) > 0.01


@pytest.mark.parametrize("batch_norm", ["rows", "frozen"])
def test_the_context_sees_its_own_row_to_the_last_pixel(batch_norm):
    model = method(32, 7, batch_norm=batch_norm).train()
    images = noise(2, 32)
    changed = images.clone()
    last = 2 * model.stride + model.side - 1  # of row 2; the first pixel of row 4 is the next
    assert last + 1 == 4 * model.stride
    changed[:, :, last] = 0
    with torch.no_grad():
        before, after = (model.context(model.encode(batch)) for batch in (images, changed))
    assert torch.equal(before[:, :2], after[:, :2])
    assert (before[:, 2] - after[:, 2]).abs().max() > 1e-3


def test_no_context_learns_from_the_pixels_below_it():
    model = method(32, batch_norm="rows").train()
    images = noise(2, 32).requires_grad_()
    model.context(model.encode(images))[:, 1].sum().backward()
    assert images.grad[:, :, 3 * model.stride :].abs().max() == 0
    assert images.grad[:, :, : model.stride + model.side].abs().sum() > 0


@pytest.mark.parametrize("training", [True, False])
def test_rows_are_normalised_with_their_own_statistics_and_running_ones_stay(training):
    model = method(32, batch_norm="rows").train(training)
    images = noise(3, 32)
    kept = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    with torch.no_grad():
        found = model.encode(images)
    assert all(torch.equal(kept[name], value) for name, value in model.encoder.state_dict().items())
    assert all(norm.training is training and norm.track_running_stats for norm in batch_norms(model.encoder))
    alone = method().encoder.train()
    for row in range(5):
        strip = images[:, :, row * 6 : row * 6 + 8]  # patches of 8 pixels, 6 apart
        cells = [strip[:, :, :, column * 6 : column * 6 + 8] for column in range(5)]
        with torch.no_grad():
            expected = alone(torch.cat(cells)).view(5, 3, 512).transpose(0, 1)
        assert torch.allclose(found[:, row], expected, atol=1e-4)


def test_frozen_statistics_stay_and_are_used_while_the_weights_learn():
    model = method(batch_norm="frozen").train()
    kept = {name: value.clone() for name, value in model.encoder.named_buffers()}
    loss, _ = model.step(noise(2), torch.Generator())
    loss.backward()
    assert all(torch.equal(kept[name], value) for name, value in model.encoder.named_buffers())
    assert all(norm.weight.grad.abs().sum() > 0 for norm in batch_norms(model.encoder))
    trained = model.encode(noise(2))
    assert torch.allclose(trained, model.eval().encode(noise(2)), atol=1e-6)
    assert model.training is False
    assert model.train().encoder.training


@pytest.mark.parametrize("shift", [0.0, -20.0])
def test_accuracies_keep_negatives_of_the_image_and_of_others_apart(shift):
    targets = torch.tensor([1, 2])
    logits = torch.zeros(2, 2, 2, 3)
    logits[0, 0, 0] = torch.tensor([0.0, 5.0, 1.0])  # best in its image, others are better
    logits[0, 0, 1] = torch.tensor([0.0, 0.0, 6.0])
    logits[0, 1, 0] = torch.tensor([9.0, 0.0, 5.0])  # its own image has a better one, the others have not
    logits[0, 1, 1] = torch.tensor([4.0, 4.0, 4.9])
    logits[1, 0, 1] = torch.tensor([1.0, 2.0, 0.0])  # best of all
    logits[1, 1, 1] = torch.tensor([1.0, 1.0, 2.0])
    logits[1, 1, 0] = torch.tensor([3.0, 0.0, 0.0])
    found = accuracies(logits + shift, targets)
    assert found["accuracy_within"].tolist() == [0.5, 1.0]
    assert found["accuracy_across"].tolist() == [0.5, 0.5]


def test_patches_that_are_all_alike_are_no_hit():
    found = accuracies(torch.ones(3, 4, 3, 5), torch.tensor([0, 1, 2, 3]))
    assert found["accuracy_within"].tolist() == found["accuracy_across"].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("count", [1, 3])
def test_chance_is_that_of_the_patches_in_the_batch(count):
    model = method().eval()
    with torch.no_grad():
        found = model.validate(noise(count), torch.Generator())
    assert {value.shape for value in found.values()} == {(count,)}
    assert found["loss_chance"][0].item() == pytest.approx(math.log(count * 25))
    assert found["accuracy_within_chance"][0].item() == pytest.approx(1 / 25)
    assert found["accuracy_across_chance"][0].item() == pytest.approx(1 / ((count - 1) * 25 + 1))


def test_steps_beyond_the_grid_are_refused_in_one_line():
    with pytest.raises(InputError, match=r"cpc.options: .*steps must be below grid \(5\), got 5"):
        read_options(Method, {"grid": 5, "steps": 5}, "pretrain.methods.cpc.options")
    with pytest.raises(InputError, match="steps"):
        read_options(Method, {"steps": 1}, "options")


def test_a_batch_should_hold_one_slice_of_a_case():
    assert Method.one_slice_per_case
