"""Rectangles are black, what is protected is as it was."""

import numpy as np
import pytest
import torch
from skimage.measure import label, regionprops

from kidney_ssl.augmentations.unsupervised import Method
from kidney_ssl.errors import InputError
from kidney_ssl.methods.base import pixels
from tests.unit.augmentations.toy_training import REGIONS, Toy, generator

COUNT = 256


@pytest.fixture(scope="module", params=[64, 96])
def toy(request):
    return Toy(size=request.param, cases=2, positives=2, negatives=2)


def run(toy, count=COUNT, **options):
    images, labels, rows = toy.batch(np.arange(count) % len(toy.labels))
    return images, Method(toy.training(), Method.Parameters(**options))(images, labels, rows, generator(1))


def inside(size):
    mask = torch.zeros(size, size, dtype=torch.bool)
    for name, region in REGIONS.items():
        top, bottom, left, right = pixels(region, size, name)
        mask[top:bottom, left:right] = True
    return mask


def test_the_regions_keep_every_bit_and_all_else_is_black_or_as_it_was(toy):
    images, found = run(toy)
    black = found.images == 0
    kept = inside(toy.size)
    assert torch.equal(found.images[..., kept], images[..., kept])
    assert torch.equal(found.images[~black], images[~black])
    assert torch.equal(black.sum((1, 2, 3)), found.marks["blacked"])
    middle = slice(toy.size // 8, -toy.size // 8)  # corners are seldom reached
    assert (black.any(0)[0] | kept)[middle, middle].all()
    for edge in (black[..., 0, :], black[..., -1, :], black[..., 0], black[..., -1]):
        assert edge.any()
    assert torch.equal(found.labels, torch.from_numpy(toy.labels).float().repeat(COUNT // len(toy.labels)))


def test_without_protection_regions_are_blacked_out_too(toy):
    _, found = run(toy, protect="nothing")
    assert (found.images == 0).any(0)[0][inside(toy.size)].all()


def test_a_rectangles_sides_are_drawn_by_themselves_from_nothing_to_half_the_images_side(toy):
    _, found = run(toy, 4000, rectangles=1, protect="nothing")
    sizes = []
    for mask in (found.images[:, 0] == 0).numpy():
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert mask.sum() == rows * columns  # one whole rectangle
        sizes.append((rows, columns))
    heights, widths = np.array(sizes).T
    half = toy.size // 2
    assert heights.max() == widths.max() == half
    seen = heights[heights > 0]
    assert set(seen) == set(range(1, half + 1))
    # Uniform over 0 .. half, those of width 0 left out.
    assert abs(seen.mean() - (half + 1) / 2) < 4 * half / np.sqrt(12 * len(seen))
    assert abs(np.corrcoef(heights[heights > 0], widths[heights > 0])[0, 1]) < 4 / np.sqrt(len(seen))
    assert abs((heights == 0).mean() - (1 - (half / (half + 1)) ** 2)) < 0.02
    assert torch.equal(found.marks["rectangles"], torch.from_numpy((heights > 0).astype(np.int64)))


def test_three_rectangles_are_drawn(toy):
    _, found = run(toy, 512, side=0.15, protect="nothing")
    components = [len(regionprops(label(mask, connectivity=1))) for mask in (found.images[:, 0] == 0).numpy()]
    assert max(components) == 3
    assert sum(number == 3 for number in components) > 256
    assert found.marks["rectangles"].max() == 3


def test_random_boxes_of_the_regions_sizes_are_protected_at_places_of_each_images_own(toy):
    images, labels, rows = toy.batch(np.arange(COUNT) % len(toy.labels))
    method = Method(toy.training(), Method.Parameters(protect="random"))
    kept = method.pictures(images, labels, rows, generator(2))["protected"].images[:, 1] > 0
    areas = [(b - t) * (r - left) for t, b, left, r in (pixels(box, toy.size, name) for name, box in REGIONS.items())]
    assert kept.sum((1, 2)).max() == sum(areas)  # where the two do not overlap
    assert kept.sum((1, 2)).min() >= max(areas)
    assert len(kept.unique(dim=0)) > COUNT * 0.9
    assert kept.any(0)[toy.size // 8 : -toy.size // 8, toy.size // 8 : -toy.size // 8].all()
    found = method(images, labels, rows, generator(2)).images == 0
    shown = method.pictures(images, labels, rows, generator(2))["whole"].images
    assert torch.equal(shown[:, 2] == 0, found[:, 0])
    assert not (found[:, 0] & kept).any()
    assert torch.equal((shown[:, 1] == 0) & ~kept, found[:, 0])


def test_a_region_without_pixels_is_refused(toy):
    with pytest.raises(InputError, match=r"region 'left' .* holds no pixel"):
        Method(toy.training(regions={**REGIONS, "left": (0.1, 0.1, 0.1, 0.2)}), Method.Parameters())


def test_of_a_single_organ_the_one_region_is_protected(toy):
    method = Method(toy.training(regions={"organ": (0.25, 0.75, 0.1, 0.7)}), Method.Parameters())
    images, labels, rows = toy.batch([0] * 64)
    black = method(images, labels, rows, generator()).images == 0
    within = np.zeros((toy.size, toy.size), bool)
    within[round(0.25 * toy.size) : round(0.75 * toy.size), round(0.1 * toy.size) : round(0.7 * toy.size)] = True
    assert not black[:, 0].numpy()[:, within].any()
    assert black.flatten(1).any(1).sum() > 50
