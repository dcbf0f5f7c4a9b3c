"""The stage of a pretraining, on a study of a few drawn slices: which slices a method trains on, what it writes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kidney_ssl.models.weights import random_weights, save_weights
from kidney_ssl.yamlfile import dump_yaml, read_yaml
from stages.pretrain import main
from tests.pipeline.toy_data import POOL, write_toy_data
from tests.shallow_networks import shallow_networks  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A folder with the data of a toy; the oracle, identity and rotation."""
    write_toy_data(tmp_path)
    settings = read_yaml((ROOT / "studies/smoke.yaml").read_text())
    block = settings["pretrain"]["methods"]["rotation"] | {"batch_size": 4}
    methods = {name: block | {"method": name} for name in ("oracle", "identity", "rotation")}
    settings["pretrain"] |= {"pool": "all", "methods": methods}
    settings["arms"] = {"random": {"weights": "initial/random", "augmentation": "none"}}
    settings["analysis"] |= {"baseline": "random", "contrasts": []}
    (tmp_path / "params.yaml").write_text(dump_yaml(settings))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("name", "images", "control"), [("oracle", 9, True), ("identity", POOL, True)])
def test_a_method_that_reads_masks_trains_on_the_labelled_slices_whatever_the_pool(study, name, images, control):
    main(name)
    written = json.loads((study / f"metrics/pretrain/{name}.json").read_text())["0"]
    assert (written["images"], written["control"]) == (images, control)
    assert (study / f"models/pretrain/{name}/0.safetensors").exists()


@pytest.mark.parametrize("thin", [{"mm": 10}, {"dissimilarity": 0.05}])
def test_a_thinned_pool_trains_as_the_slices_that_it_keeps_and_says_what_it_removed(study, thin):
    files = (study / "data/normalized_pool/pool_images.npy", study / "data/pool/pool.csv")
    # Slices 5 mm apart, four a case, of which every second is a copy of the one before it: both measures remove it.
    images, rows = np.load(files[0]), pd.read_csv(files[1])
    images[1::2] = images[:-1:2]
    np.save(files[0], images)
    settings = read_yaml(Path("params.yaml").read_text())
    settings["pretrain"]["thin"] = thin
    Path("params.yaml").write_text(dump_yaml(settings))
    main("identity")
    found = json.loads((study / "metrics/pretrain/identity.json").read_text())["0"]
    encoder = (study / "models/pretrain/identity/0.safetensors").read_bytes()
    assert found.pop("thin") == thin | {"slices": 11, "of": POOL}
    assert (found["images"], found["updates"]) == (11, 3)  # batches of four
    main("oracle")  # which reads the labelled slices
    oracle = json.loads((study / "metrics/pretrain/oracle.json").read_text())["0"]
    assert (oracle["images"], "thin" in oracle) == (9, False)
    np.save(files[0], images[::2])
    rows[::2].to_csv(files[1], index=False)
    settings["pretrain"]["thin"] = None
    Path("params.yaml").write_text(dump_yaml(settings))
    main("identity")
    assert json.loads((study / "metrics/pretrain/identity.json").read_text())["0"] == found
    assert (study / "models/pretrain/identity/0.safetensors").read_bytes() == encoder


def test_what_is_no_control_says_so(study):
    main("rotation")
    assert json.loads((study / "metrics/pretrain/rotation.json").read_text())["0"]["control"] is False


def change(key: str, seeds: list[int]) -> None:
    content = read_yaml(Path("params.yaml").read_text())
    section, name = key.split(".")
    (content[section]["methods"] if section == "pretrain" else content[section])[name]["seeds"] = seeds
    Path("params.yaml").write_text(dump_yaml(content))


def stored() -> dict[str, Path]:
    entries = Path("checkpoints/store/runs").glob("*/entry.json")
    return {json.loads(path.read_text())["described"]["job"]: path.parent for path in entries}


def test_seeds_are_trained_and_kept_each_by_itself_and_collected_together(study):
    change("pretrain.identity", [0])
    main("identity")
    change("pretrain.identity", [0, 3])
    before = {path: path.stat().st_mtime_ns for path in stored().values()}
    main("identity")
    assert set(stored()) == {"pretrain identity 0", "pretrain identity 3"}
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())  # seed 3 alone was trained
    encoders = {path.name: path.read_bytes() for path in (study / "models/pretrain/identity").iterdir()}
    assert set(encoders) == {"0.safetensors", "3.safetensors"}
    assert len(set(encoders.values())) == 2
    curves = pd.read_csv("metrics/pretrain/identity.csv")
    metrics = json.loads(Path("metrics/pretrain/identity.json").read_text())
    assert list(curves.columns)[:2] == ["seed", "epoch"]
    assert curves["seed"].unique().tolist() == [0, 3]
    for seed, of_seed in curves.groupby("seed"):
        alone = pd.read_csv(stored()[f"pretrain identity {seed}"] / "curves.csv")
        pd.testing.assert_frame_equal(of_seed.drop(columns="seed").reset_index(drop=True), alone)
        assert metrics[str(seed)]["validation_loss"] == of_seed["validation_loss"].iloc[-1]
    first = stored()["pretrain identity 0"] / "pictures"
    shown = {path.name: path.read_bytes() for path in Path("report/pretrain/identity").iterdir()}
    assert shown
    assert shown == {path.name: path.read_bytes() for path in first.iterdir()}
    change("pretrain.identity", [3])
    main("identity")
    assert [path.name for path in (study / "models/pretrain/identity").iterdir()] == ["3.safetensors"]


def test_a_seed_starts_from_its_own_replicate_of_the_initial_weights(study):
    weights = {seed: random_weights("resnet18", seed) for seed in (7, 8)}
    for place, state in enumerate(weights.values()):
        save_weights(state, study / f"models/initial/random/{place}.safetensors")
    change("initialize.random", [0, 1])
    change("pretrain.rotation", [1])
    main("rotation")
    from_number_1 = (study / "models/pretrain/rotation/1.safetensors").read_bytes()
    # The same weights as the only ones.
    change("initialize.random", [0])
    save_weights(weights[8], study / "models/initial/random/0.safetensors")
    shutil.rmtree("checkpoints")
    main("rotation")
    assert (study / "models/pretrain/rotation/1.safetensors").read_bytes() == from_number_1
    save_weights(weights[7], study / "models/initial/random/0.safetensors")
    main("rotation")
    assert (study / "models/pretrain/rotation/1.safetensors").read_bytes() != from_number_1
