"""Patches against plain slicing, on slices whose pixels are their own coordinates."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kidney_ssl.methods.patches import air_share, cut, enlarged, frames, grid


def coordinates(count, size):
    """No two pixels of the batch are alike: image * size^2 + row * size + column."""
    return torch.arange(count * size**2, dtype=torch.float32).view(count, 1, size, size)


@given(count=st.integers(1, 3), size=st.integers(5, 24), side=st.integers(1, 5), seed=st.integers(0, 999))
def test_patches_hold_the_pixels_of_their_places(count, size, side, seed):
    images = coordinates(count, size)
    generator = torch.Generator().manual_seed(seed)
    top, left = (torch.randint(size - side + 1, (count, 4), generator=generator) for _ in range(2))
    patches = cut(images, top, left, side)
    assert patches.shape == (count, 4, 1, side, side)
    for image in range(count):
        for number, (row, column) in enumerate(zip(top[image].tolist(), left[image].tolist(), strict=True)):
            expected = images[image, :, row : row + side, column : column + side]
            assert torch.equal(patches[image, number], expected)


@pytest.mark.parametrize(("size", "side", "stride", "count"), [(64, 16, 8, 7), (96, 24, 18, 5), (50, 12, 7, 6)])
def test_the_grid_equals_slices_at_multiples_of_the_stride(size, side, stride, count):
    images = coordinates(2, size)
    patches = grid(images, side, stride)
    assert patches.shape == (2, count, count, 1, side, side)
    for row in range(count):
        for column in range(count):
            top, left = row * stride, column * stride
            assert torch.equal(patches[:, row, column], images[:, :, top : top + side, left : left + side])


def test_the_grid_equals_torchs_unfold():
    images = torch.rand(2, 1, 30, 30)
    columns = torch.nn.functional.unfold(images, kernel_size=8, stride=4)  # (B, 64, patches)
    assert torch.equal(grid(images, 8, 4).flatten(3).flatten(1, 2), columns.transpose(1, 2))


@given(size=st.integers(6, 20), side=st.integers(1, 6), seed=st.integers(0, 999))
def test_air_is_the_share_of_pixels_at_the_lower_end_of_the_window(size, side, seed):
    generator = torch.Generator().manual_seed(seed)
    images = (torch.rand(2, 1, size, size, generator=generator) - 0.5).clamp(min=0)
    top, left = (torch.randint(size - side + 1, (2, 5), generator=generator) for _ in range(2))
    found = air_share(images, top, left, side)
    expected = (cut(images, top, left, side).numpy() == 0).mean(axis=(2, 3, 4))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(("size", "width"), [(64, 1), (96, 1), (512, 4)])
def test_a_frame_surrounds_its_patch_and_leaves_it_free(size, width):
    drawn = frames(size, torch.tensor([10, 0]), torch.tensor([20, size - 8]), 8).numpy()
    ring = np.zeros((size, size), bool)
    ring[10 - width : 18 + width, 20 - width : 28 + width] = True
    ring[10:18, 20:28] = False
    np.testing.assert_array_equal(drawn[0], ring)
    corner = np.zeros((size, size), bool)
    corner[: 8 + width, size - 8 - width :] = True
    corner[:8, size - 8 :] = False
    np.testing.assert_array_equal(drawn[1], corner)


def test_enlarged_patches_repeat_their_pixels():
    patch = coordinates(1, 4)
    np.testing.assert_array_equal(enlarged(patch, 12)[0], np.kron(patch[0, 0].numpy(), np.ones((3, 3))))
