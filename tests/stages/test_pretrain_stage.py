"""The stage of a pretraining, on a study of a few drawn slices: which slices a method trains on, what it writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from kidney_ssl.models.weights import random_weights, save_weights
from stages.pretrain import main
from tests.training.toy_study import toy_part

ROOT = Path(__file__).parents[2]
POOL = 21  # slices


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A folder with 9 training and 6 validation slices and a pool; the oracle, identity and rotation."""
    for folder in ("slices", "normalized", "pool", "normalized_pool"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for name, count, first in (("train", 9, 0), ("validation", 6, 100), ("test", 5, 200), ("pool", POOL, 300)):
        part, tail = toy_part(count, first), "_pool" if name == "pool" else ""
        folder = "pool" if name == "pool" else "slices"
        part.frame.to_csv(tmp_path / f"data/{folder}/{name}.csv", index=False)
        np.save(tmp_path / f"data/normalized{tail}/{name}_images.npy", part.images)
        if name != "pool":
            np.save(tmp_path / f"data/slices/{name}_masks.npy", part.masks)
    regions = {"left": [0.0, 1.0, 0.0, 0.5], "right": [0.0, 1.0, 0.5, 1.0]}
    (tmp_path / "data/normalized/regions.json").write_text(json.dumps(regions))
    save_weights(random_weights("resnet18", 7), tmp_path / "models/initial/random.safetensors")
    settings = yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
    block = settings["pretrain"]["methods"]["rotation-0"] | {"batch_size": 4}
    methods = {f"{name}-0": block | {"method": name} for name in ("oracle", "identity", "rotation")}
    settings["pretrain"] |= {"pool": "all", "methods": methods}
    settings["arms"] = {"random": {"weights": "initial/random", "augmentation": "none"}}
    settings["analysis"] |= {"baseline": "random", "contrasts": []}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("name", "images", "control"), [("oracle", 9, True), ("identity", POOL, True)])
def test_a_method_that_reads_masks_trains_on_the_labelled_slices_whatever_the_pool(study, name, images, control):
    main(f"{name}-0")
    written = json.loads((study / f"metrics/pretrain/{name}-0.json").read_text())
    assert (written["images"], written["control"]) == (images, control)
    assert (study / f"models/pretrain/{name}-0.safetensors").exists()


def test_what_is_no_control_says_so(study):
    main("rotation-0")
    assert json.loads((study / "metrics/pretrain/rotation-0.json").read_text())["control"] is False
