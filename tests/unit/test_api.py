"""The functions for a notebook: their examples, and that they are the parts of a study."""

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kidney_ssl import api, catalog
from kidney_ssl.data.phantom import write_case
from kidney_ssl.data.volume import read_grid
from kidney_ssl.errors import InputError


@pytest.mark.parametrize("module", [api, catalog])
def test_the_examples_hold(module, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_every_public_function_has_an_example() -> None:
    assert all(">>> " in (getattr(api, name).__doc__ or "") for name in api.__all__)


def test_the_example_of_the_readme_runs(tmp_path: Path, monkeypatch) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    _, _, rest = readme.partition("```python\n")
    example, _, _ = rest.partition("```")
    monkeypatch.chdir(tmp_path)
    made: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), made)
    rows = made["predictions"]
    tested = rows[rows["part"] == "test"]
    assert set(tested["case"]) == {"case_5"}
    assert made["maps"].shape == (len(made["test"].images), 32, 32)
    assert tested["probability"].between(0, 1).all()


def test_a_phantom_is_the_one_that_a_study_writes(tmp_path: Path) -> None:
    write_case(tmp_path, 3, size=48, slices=0.5, seed=0)
    imaging, labels = api.phantom(3, size=48, slices=0.5)
    assert np.array_equal(api.read_volume(tmp_path / "imaging.nii.gz").array, imaging.array)
    assert np.array_equal(api.read_volume(tmp_path / "segmentation.nii.gz", labels=True).array, labels.array)
    grid = read_grid(tmp_path / "imaging.nii.gz")
    np.testing.assert_allclose(imaging.grid.spacing_mm, grid.spacing_mm, rtol=1e-6)
    np.testing.assert_allclose(imaging.grid.affine[:, :3], grid.affine[:, :3], rtol=1e-6)


def test_classes_go_by_the_tumor_pixels_of_each_slice() -> None:
    imaging, labels = api.phantom(3, size=48, slices=0.5)
    tumor = (labels.array == 2).sum((1, 2))
    least = int(np.median(tumor[tumor > 0]))
    part = api.standardise(imaging, labels, size=32, min_tumor_px=least)
    assert np.array_equal(part.frame["label"], tumor >= least)
    assert np.array_equal(part.frame["class"] == "small", (tumor > 0) & (tumor < least))
    chosen = api.standardise(imaging, labels, size=32, rows=[4, 1])
    assert np.array_equal(chosen.images, part.images[[4, 1]])
    assert list(chosen.frame["slice"]) == [4, 1]


def test_volumes_on_two_grids_are_refused() -> None:
    imaging, _ = api.phantom(3, size=48, slices=0.5)
    _, labels = api.phantom(4, size=32, slices=0.5)
    with pytest.raises(InputError, match="grids must agree"):
        api.standardise(imaging, labels)


def test_an_encoder_is_pretrained_fine_tuned_loaded_and_predicts_what_training_said(tmp_path: Path) -> None:
    parts = [api.standardise(*api.phantom(n, size=48, slices=0.3), case=f"case_{n}", size=32) for n in (3, 4, 5)]
    encoder = tmp_path / "encoder.safetensors"
    api.pretrain("rotation", parts[0], parts[1], encoder, device="cpu")
    with torch.inference_mode():
        assert api.load_encoder(encoder)(torch.zeros(2, 1, 32, 32)).shape == (2, 512)
    found = api.finetune(*parts, tmp_path / "run", encoder=encoder, epochs=1, device="cpu")
    model = api.load_classifier(tmp_path / "run/model.safetensors")
    tested = found[found["part"] == "test"]
    np.testing.assert_allclose(api.predict(model, parts[2]), tested["probability"], atol=1e-5)
    assert pd.read_csv(tmp_path / "run/predictions.csv").shape == found.shape
    maps = api.explain(model, parts[2], "layer1")
    assert maps.shape == parts[2].images.shape
    assert maps.min() >= 0
