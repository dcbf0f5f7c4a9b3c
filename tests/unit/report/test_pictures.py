"""Pictures: every image stands whole under its title, the same images give the same bytes."""

import numpy as np
import pytest
from PIL import Image

from kidney_ssl.report.pictures import GAP, OUTLINE, SIDE, TITLE, write_card, write_picture


def read(path):
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


@pytest.mark.parametrize(("height", "width", "zoom"), [(64, 64, 3), (32, 96, 2), (160, 160, 1), (512, 512, 1)])
def test_each_image_stands_whole_in_its_row_and_column(tmp_path, height, width, zoom):
    images = np.random.default_rng(0).random((2, 3, height, width)).astype(np.float32)
    write_picture(tmp_path / "new" / "folder" / "a.png", images, ["one", "two", "three"])
    found = read(tmp_path / "new" / "folder" / "a.png")
    assert max(height, width) * zoom >= SIDE
    assert found.shape == (2 * (height * zoom + GAP) + TITLE + GAP, 3 * (width * zoom + GAP) + GAP)
    for row in range(2):
        for column in range(3):
            top, left = TITLE + row * (height * zoom + GAP), GAP + column * (width * zoom + GAP)
            tile = found[top : top + height * zoom, left : left + width * zoom]
            expected = np.rint(images[row, column] * 255).repeat(zoom, 0).repeat(zoom, 1)
            assert np.array_equal(tile, expected)
            found = found.copy()
            found[top : top + height * zoom, left : left + width * zoom] = 255
    assert (found[TITLE:] == 255).all()


def test_a_title_stands_over_each_column(tmp_path):
    images = np.ones((1, 3, 64, 64))
    write_picture(tmp_path / "a.png", images, ["first", "", "third"])
    found = read(tmp_path / "a.png")[:TITLE]
    wide = 64 * 3 + GAP
    assert [int(found[:, GAP + k * wide : GAP + (k + 1) * wide].min()) < 128 for k in range(3)] == [True, False, True]


def test_grey_is_black_at_0_white_at_1_and_clipped_beyond(tmp_path):
    images = np.array([-0.5, 0.0, 0.5, 1.0, 1.5]).reshape(1, 5, 1, 1) * np.ones((1, 5, 160, 160))
    write_picture(tmp_path / "a.png", images, "abcde")
    line = read(tmp_path / "a.png")[TITLE + 80]
    assert [int(line[GAP + column * (160 + GAP) + 80]) for column in range(5)] == [0, 0, 128, 255, 255]


def test_the_same_images_give_the_same_bytes(tmp_path):
    images = np.random.default_rng(0).random((1, 2, 20, 20))
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name, images, ["left", "right"])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_an_outline_runs_around_its_place_and_hides_nothing_in_it(tmp_path):
    images, place = np.full((1, 2, 160, 160), 0.5), np.zeros((1, 160, 160), bool)
    place[0, 40:60, 70:90] = True
    write_picture(tmp_path / "a.png", images, ["a", "b"], place)
    with Image.open(tmp_path / "a.png") as image:
        found = np.asarray(image.convert("RGB"))
    for left in (GAP, GAP + 160 + GAP):
        tile = found[TITLE : TITLE + 160, left : left + 160]
        red = (tile == OUTLINE).all(2)
        assert not red[40:60, 70:90].any()
        assert red[39, 70:90].all()
        assert red[40:60, 90].all()
        assert not red[:30].any()


def test_a_card_has_the_slice_twice_the_outline_on_both_and_heat_where_the_map_is(tmp_path):
    image, tumor, activation = np.full((128, 128), 0.5), np.zeros((128, 128), bool), np.zeros((128, 128))
    tumor[20:40, 20:40] = True
    activation[80:100, 80:100] = 3.0
    for name in ("a.webp", "b.webp"):
        write_card(tmp_path / name, image, tumor, activation)
    assert (tmp_path / "a.webp").read_bytes() == (tmp_path / "b.webp").read_bytes()
    with Image.open(tmp_path / "a.webp") as card:
        found = np.asarray(card.convert("RGB")).astype(int)
    assert found.shape == (128, 128 + GAP + 128, 3)
    plain, covered = found[:, :128], found[:, -128:]
    for half in (plain, covered):
        edge = half[18:21, 25:35]
        assert (edge[..., 2].max(0) > edge[..., 0].min(0) + 80).all()  # cyan, which no map has
        assert half[28:32, 28:32].std() < 15  # nothing in the tumor is hidden
    assert np.ptp(plain[60:120, 60:120]) < 30
    assert abs(covered[90, 90] - covered[60, 60]).max() > 50


def test_a_map_of_zeros_leaves_the_slice_as_it_is(tmp_path):
    write_card(tmp_path / "a.webp", np.full((64, 64), 0.5), np.zeros((64, 64), bool), np.zeros((64, 64)))
    with Image.open(tmp_path / "a.webp") as card:
        assert np.ptp(np.asarray(card.convert("L")).astype(int)[:, -128:]) < 10
