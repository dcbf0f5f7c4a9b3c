"""What is found in the masks: components, what may be covered, what may be pasted; draws that leave cases out."""

import numpy as np
import pytest
import torch

from kidney_ssl.augmentations.donors import ByCase, find_donors
from tests.unit.augmentations.toy_training import KIDNEY, REGIONS, TUMOR, Toy, generator

SIDE, ROOM = 13, [(20, 24), (30, 10)]
CPU = torch.device("cpu")


def find(masks, tumor_px, *, labels=None, cases=None, small_px=100, rows=None, regions=REGIONS):
    source = Toy(cases=1, positives=1, negatives=1)
    source.masks, source.tumor_px = np.array(masks), np.array(tumor_px)
    source.labels = (source.tumor_px > 0).astype(np.int64) if labels is None else np.array(labels)
    source.cases = np.array([f"case_{number:05}" for number in (range(len(masks)) if cases is None else cases)])
    return find_donors(source.training(rows, regions), side=SIDE, small_px=small_px, room=ROOM)


def mask(*boxes, label=TUMOR):
    made = np.zeros((64, 64), dtype=np.uint8)
    for top, bottom, left, right in boxes:
        made[top:bottom, left:right] = label
    return made


KIDNEYS = mask((20, 30, 10, 21), (24, 40, 40, 50), label=KIDNEY)


def test_a_box_of_each_component_with_a_rim_inside_the_frame_is_kept():
    one = mask((5, 10, 8, 12), (20, 24, 30, 40), (63, 64, 0, 3))
    touching = mask((5, 10, 8, 12), (10, 12, 12, 16))  # corner to corner: one component
    found = find([one, touching, KIDNEYS], [99, 99, 0])
    assert found.coverable.tolist() == [True, True, False]
    assert found.boxes[0].tolist() == [[4, 11, 7, 13], [19, 25, 29, 41], [62, 64, 0, 4]]
    assert found.boxes[1].tolist() == [[4, 13, 7, 17], [0] * 4, [0] * 4]
    assert not found.boxes[2].any()


@pytest.mark.parametrize(
    ("boxes", "tumor_px", "coverable"),
    [
        ([(5, 16, 5, 16)], 99, True),  # 11 pixels and a rim: 13
        ([(5, 17, 5, 16)], 99, False),  # one row too many
        ([(5, 16, 5, 17)], 99, False),
        ([(0, 12, 0, 12)], 99, True),  # no rim outside the frame
        ([(5, 16, 5, 16)], 100, False),  # not small on the native grid
        ([(5, 8, 5, 8), (30, 50, 30, 50)], 99, False),  # one of two does not fit
    ],
)
def test_a_tumor_is_coverable_if_small_and_each_component_fits_under_a_square(boxes, tumor_px, coverable):
    assert find([mask(*boxes), KIDNEYS], [tumor_px, 0]).coverable.tolist() == [coverable, False]


def test_the_largest_component_may_be_pasted_if_it_makes_a_positive_slice_alone_and_fits_a_region():
    masks = [
        mask((10, 20, 10, 20)),
        mask((10, 30, 10, 20), (40, 44, 40, 44)),  # 200 of 216 pixels in one
        mask((10, 20, 10, 20), (40, 49, 40, 51)),  # 99 of 199 pixels: 49.7 of 100 native ones, less than the least
        mask((0, 30, 0, 10)),  # fits the second region
        mask((0, 30, 0, 11)),  # neither
        KIDNEYS,
    ]
    found = find(masks, [60, 500, 100, 900, 900, 0])
    assert found.tumors.rows.tolist() == [0, 1, 3]
    assert found.tumors.values.tolist() == [[10, 20, 10, 20], [10, 30, 10, 20], [0, 30, 0, 10]]
    assert found.positives.tolist() == [0, 1, 2, 3, 4]
    assert found.negatives.tolist() == [5]


def test_kidneys_give_tissue_in_slices_without_tumor_if_they_are_as_large_as_the_least_tumor():
    small = mask((20, 30, 10, 20), (24, 30, 40, 50), label=KIDNEY)  # 100 and 60 pixels
    both = mask((20, 30, 10, 20), label=KIDNEY) + mask((50, 52, 50, 52))
    found = find([mask((5, 15, 5, 13)), KIDNEYS, small, both], [80, 0, 0, 0], labels=[1, 0, 0, 0])
    assert found.kidneys.rows.tolist() == [1, 1, 2]
    assert sorted(found.kidneys.values.tolist()) == [[24, 14], [24, 15], [31, 44]]


def test_rows_that_take_no_part_give_nothing():
    masks = [mask((5, 15, 5, 13)), mask((5, 15, 5, 13)), KIDNEYS, KIDNEYS]
    found = find(masks, [90, 90, 0, 0], rows=np.array([3, 1]))
    assert found.coverable.tolist() == [False, True, False, False]
    assert found.tumors.rows.tolist() == [1]
    assert found.kidneys.rows.tolist() == [3, 3]
    assert (found.positives.tolist(), found.negatives.tolist()) == ([1], [3])


def test_entries_of_other_cases_are_drawn_alike_often_and_of_the_two_never():
    cases = np.array([0, 1, 1, 2, 3, 3, 3, 4])
    rows = np.array([6, 1, 3, 4, 0, 2, 5])  # case 4 has no entry
    table = ByCase(rows, rows[:, None] * 10, cases, CPU)
    for one, other in ((0, 3), (3, 0), (1, 1), (2, 4), (4, 4)):
        entry, found = table.draw(torch.full((20_000,), one), torch.full((20_000,), other), generator())
        assert found.all()
        assert torch.equal(table.values[entry, 0], table.rows[entry] * 10)
        allowed = sorted(row for row in rows if cases[row] not in (one, other))
        values, counts = table.rows[entry].unique(return_counts=True)
        assert values.tolist() == allowed
        share = 1 / len(allowed)
        assert (counts - 20_000 * share).abs().max() < 4 * (20_000 * share * (1 - share)) ** 0.5


def test_where_no_other_case_has_an_entry_none_is_found():
    cases, one = np.array([0, 0, 1]), torch.tensor([0, 1, 1])
    assert ByCase(np.array([0, 1, 2]), np.zeros((3, 2), np.int64), cases, CPU).draw(
        one, torch.tensor([1, 1, 0]), generator()
    )[1].tolist() == [False, True, False]
    entry, found = ByCase(np.zeros(0, np.int64), np.zeros((0, 4), np.int64), cases, CPU).draw(one, one, generator())
    assert (entry.tolist(), found.tolist()) == ([0, 0, 0], [False, False, False])


def test_a_single_organ_gives_tissue_from_its_middle_and_not_from_halves():
    organ = mask((20, 40, 20, 50), label=KIDNEY)
    found = find([mask((10, 20, 10, 20)), organ], [100, 0], regions={"organ": (0.1, 0.9, 0.1, 0.9)})
    assert found.kidneys.values.tolist() == [[29, 34]]
    halves = find([mask((10, 20, 10, 20)), organ], [100, 0])
    assert halves.kidneys.values.tolist() == [[29, 25], [29, 40]]
