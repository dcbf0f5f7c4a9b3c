"""The oracle: its loss and its figures against plain sums, scikit-learn and KiTS23's rule for empty areas."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from kidney_ssl.methods.base import Setting
from kidney_ssl.methods.oracle import Method, areas, coarse_loss, overlap, segmentation_loss

REGIONS = {"left": (0.25, 0.75, 0.0, 0.5), "right": (0.25, 0.75, 0.5, 1.0)}


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def labels(*shape, seed=0, highest=3):
    return torch.randint(highest + 1, shape, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 2**31), size=st.integers(1, 6), spread=st.floats(0.1, 20), highest=st.integers(0, 3))
def test_the_loss_is_the_printed_formula_of_each_image(seed, size, spread, highest):
    logits, masks = spread * drawn(3, 4, size, size, seed=seed), labels(3, size, size, seed=seed, highest=highest)
    found = segmentation_loss(logits, masks)
    for z, y, value in zip(logits.double().numpy(), masks.numpy(), found.tolist(), strict=True):
        p = np.exp(z - z.max(0)) / np.exp(z - z.max(0)).sum(0)
        entropy = np.mean([-np.log(p[y[i, j], i, j]) for i in range(size) for j in range(size)])
        apart = [1 - (2 * p[c][y == c].sum() + 1) / (p[c].sum() + (y == c).sum() + 1) for c in (1, 2, 3)]
        assert value == pytest.approx(entropy + np.mean(apart), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("cells", [1, 2, 4])
def test_the_coarse_loss_asks_which_labels_lie_in_each_cell(cells):
    logits, masks = drawn(3, 3, cells, cells), labels(3, 8, 8, highest=3)
    masks[masks == 3] = torch.where(labels(3, 8, 8, seed=2)[masks == 3] == 0, 3, 0)  # a label that is not everywhere
    side, expected = 8 // cells, []
    for z, y in zip(logits.double().numpy(), masks.numpy(), strict=True):
        terms = []
        for c in (1, 2, 3):
            for i in range(cells):
                for j in range(cells):
                    there = (y[i * side : (i + 1) * side, j * side : (j + 1) * side] == c).any()
                    p = 1 / (1 + np.exp(-z[c - 1, i, j]))
                    terms.append(-np.log(p if there else 1 - p))
        expected.append(np.mean(terms))
    assert coarse_loss(logits, masks).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_last_map_of_the_encoder_learns_from_the_coarse_loss():
    method = Method(Setting("resnet18", 32, REGIONS, 0), Method.Parameters())
    masks = labels(2, 1, 32, 32).float()
    method.step(torch.cat([torch.rand(2, 1, 32, 32), masks], 1), torch.Generator())[0].backward()
    assert method.coarse.weight.grad.abs().max() > 0
    assert "coarse.weight" not in method.encoder.state_dict()


def test_a_right_and_certain_answer_costs_nothing_whatever_the_slice_holds():
    for highest in range(4):
        masks = labels(2, 8, 8, highest=highest)
        logits = 40 * torch.nn.functional.one_hot(masks, 4).movedim(3, 1).float()
        assert segmentation_loss(logits, masks).max() < 1e-4


def test_a_missed_tumor_costs_as_much_dice_as_a_missed_kidney():
    masks = torch.zeros(2, 16, 16, dtype=torch.long)
    masks[0, 2:4, 2:4] = 2
    masks[1, 2:14, 2:14] = 1
    nothing = torch.zeros(2, 4, 16, 16)
    nothing[:, 0] = 40
    entropy = torch.nn.functional.cross_entropy(nothing, masks, reduction="none").mean((1, 2))
    dice = segmentation_loss(nothing, masks) - entropy
    # A third each: one of three labels is missed, by hand 1 - 1 / (4 + 1) and 1 - 1 / (144 + 1).
    assert dice.tolist() == pytest.approx([4 / 5 / 3, 144 / 145 / 3], abs=1e-4)


def test_gradients_are_finite_for_certain_and_wrong_answers():
    logits = torch.full((1, 4, 4, 4), -100.0)
    logits[:, 3] = 100
    logits.requires_grad_()
    loss = segmentation_loss(logits, torch.zeros(1, 4, 4, dtype=torch.long)).sum()
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().max() > 0


@pytest.mark.parametrize("seed", range(3))
def test_overlap_is_scikit_learns_f1(seed):
    marked, truth = labels(5, 6, 6, seed=seed, highest=1).bool(), labels(5, 6, 6, seed=seed + 9, highest=1).bool()
    expected = [f1_score(t.flatten(), m.flatten()) for m, t in zip(marked, truth, strict=True)]
    assert overlap(marked, truth).tolist() == pytest.approx(expected)


def test_overlap_is_1_where_both_are_empty_and_0_where_one_is():
    empty, full = torch.zeros(1, 3, 3, dtype=torch.bool), torch.ones(1, 3, 3, dtype=torch.bool)
    assert [overlap(a, b).item() for a in (empty, full) for b in (empty, full)] == [1, 0, 0, 1]


def test_kidney_holds_its_masses_and_tumor_is_label_2_alone():
    found = areas(torch.tensor([[[0, 1, 2, 3]]]))
    assert {name: area.flatten().tolist() for name, area in found.items()} == {
        "kidney": [False, True, True, True],
        "tumor": [False, False, True, False],
    }


def test_trivial_answers_are_nothing_and_both_regions():
    method = Method(Setting("resnet18", 32, REGIONS, 0), Method.Parameters()).eval()
    masks = torch.zeros(3, 1, 32, 32)
    masks[0, :, 8:24] = 1  # both regions, wholly
    masks[1, :, 8:24, :16] = 2  # the left one
    with torch.inference_mode():
        found = method.validate(torch.cat([torch.rand(3, 1, 32, 32), masks], 1), torch.Generator())
    assert found["dice_kidney_regions"].tolist() == pytest.approx([1, 2 / 3, 0])
    assert found["dice_kidney_none"].tolist() == [0, 0, 1]
    assert found["dice_tumor_regions"].tolist() == pytest.approx([0, 2 / 3, 0])
    assert found["dice_tumor_none"].tolist() == [1, 0, 1]


def test_the_network_sees_the_slice_alone():
    method = Method(Setting("resnet18", 32, REGIONS, 0), Method.Parameters()).eval()
    images, masks = torch.rand(2, 1, 32, 32), labels(2, 1, 32, 32).float()
    with torch.inference_mode():
        shown = [
            method.pictures(torch.cat([images, given], 1), torch.Generator())["segmented"].images
            for given in (masks, 3 - masks)
        ]
    assert torch.equal(shown[0][:, 2], shown[1][:, 2])
    assert torch.equal(shown[0][:, 1], masks[:, 0] / 3)


def test_it_learns_a_bright_kidney_with_a_dark_tumor():
    masks = torch.zeros(8, 1, 32, 32)
    generator = torch.Generator().manual_seed(1)
    for row, (top, left) in enumerate(torch.randint(14, (8, 2), generator=generator).tolist()):
        masks[row, 0, top : top + 16, left : left + 16] = 1
        masks[row, 0, top + 4 : top + 12, left + 4 : left + 12] = 2
    images = torch.tensor([0.2, 0.9, 0.5])[masks.long()]
    given = torch.cat([images, masks], 1)
    method = Method(Setting("resnet18", 32, REGIONS, 0, 0.5), Method.Parameters())
    optimizer = torch.optim.Adam(method.parameters(), lr=2e-3)
    for _ in range(40):
        optimizer.zero_grad()
        method.train().step(given, generator)[0].backward()
        optimizer.step()
    with torch.inference_mode():
        found = method.eval().validate(given, generator)
    assert found["dice_kidney"].mean() > 0.9
    assert found["dice_tumor"].mean() > 0.8
