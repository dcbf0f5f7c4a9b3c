"""A finished study of phantom cases in a folder, with an untrained network, and that network exported."""

import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kidney_ssl import config
from kidney_ssl.data import manifest
from kidney_ssl.data.body import Frame
from kidney_ssl.data.budgets import budget_order, in_budget
from kidney_ssl.data.normalization import normalise_store
from kidney_ssl.data.phantom import write_case
from kidney_ssl.data.reader import Reader
from kidney_ssl.data.selection import select, slice_rows
from kidney_ssl.data.slices import store_slices
from kidney_ssl.deploy.export import export
from kidney_ssl.engine.batches import Slices, ordered_batches, read_part
from kidney_ssl.jsonfile import write_json
from kidney_ssl.models.resnet import classifier, reestimate_batch_norm
from kidney_ssl.models.weights import save_weights
from tests.shallow_networks import shallow_networks  # noqa: F401 - a fixture

ROOT = Path(__file__).parents[3]
RUN = Path("models/finetune/random/100-0")
SIZE, CASES = 64, 8


@dataclass(frozen=True)
class Finished:
    """A study's folder, its parameters, the exported network, and the raw volumes by case."""

    folder: Path
    settings: config.Params
    network: Path
    raw: Path

    def predictions(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / RUN / "predictions.csv")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shallow_networks):  # noqa: F811 - the fixture
    folder = tmp_path_factory.mktemp("study")
    settings = config.load(ROOT / "studies" / "smoke.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _prepare(settings, folder / "raw")
        _train(settings)
        network = folder / "network"
        export(settings, "random", 100, 0, network)
    return Finished(folder, settings, network, folder / "raw")


def _prepare(settings: config.Params, raw: Path) -> None:
    """What the stages download, select, slice and normalize write."""
    for number in range(CASES):
        write_case(raw / f"case_{number:05d}", number, size=SIZE, slices=0.6, seed=0)
    rows = manifest.scan(raw, None, [], workers=1)
    manifest.write_manifest(Path("data/manifest.csv"), rows)
    reader = Reader(raw, manifest.by_case(Path("data/manifest.csv")))
    parts = Path("parts")
    parts.mkdir()
    tables = []
    for case in sorted(reader.files):
        areas, spacing_mm = reader.areas(case, parts)
        tables.append(slice_rows(case, areas, spacing_mm, "other"))
    shutil.rmtree(parts)
    index = pd.concat(tables)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few cases have too few negatives
        selection, cases, _ = select(index, min_tumor_px=8, folds=4, fold=0, validation=0.2, split_seed=0, draw_seed=0)
    Path("data/index").mkdir(parents=True)
    cases.to_csv("data/index/cases.csv", index=False)
    frame = Frame(settings.slice.image_size, settings.slice.body_hu, settings.slice.body_opening_mm)
    store_slices(
        selection.merge(index, on=["case", "slice"]), reader.volumes, Path("data/slices"), frame=frame, parts=parts,
        fingerprints=dict.fromkeys(reader.files, "a"), workers=1,
    )  # fmt: skip
    window = settings.normalize.window
    described = normalise_store(
        Path("data/slices"), Path("data/normalized"), others={}, fixed=window, mode=settings.normalize.range
    )
    write_json(Path("metrics/normalization.json"), described)
    write_json(Path("data/normalized/regions.json"), settings.normalize.regions.by_hand)


def _train(settings: config.Params) -> None:
    """A network with running statistics of the data, and its predictions as the engine makes them."""
    device = torch.device("cpu")
    data = {
        part: Slices(
            read_part(f"data/normalized/{part}_images.npy", f"data/slices/{part}.csv"), device=device, resident="never"
        )
        for part in ("train", "validation", "test")
    }
    model = classifier(settings.network, 3)
    everything = data["train"].batches(ordered_batches(torch.arange(len(data["train"])), 16))
    reestimate_batch_norm(model, [batch.images for batch in everything])
    model.eval()
    tables = []
    for part in ("validation", "test"):
        slices = data[part]
        batches = slices.batches(ordered_batches(torch.arange(len(slices)), 16))
        with torch.inference_mode():
            logits = torch.cat([model(batch.images)[:, 0].double() for batch in batches])
        table = slices.frame[["case", "slice", "class", "label"]].copy()
        table.insert(0, "part", part)
        tables.append(table.assign(probability=torch.sigmoid(logits).numpy()))
    RUN.mkdir(parents=True)
    save_weights(model.state_dict(), RUN / "model.safetensors")
    pd.concat(tables).to_csv(RUN / "predictions.csv", index=False)
    labelled = pd.concat([data[part].frame[["case", "label"]] for part in ("train", "validation")])
    order = budget_order(pd.read_csv("data/index/cases.csv"), labelled, 0)
    in_budget(order, 100).to_csv(RUN / "cases.csv", index=False)


@pytest.fixture(scope="module")
def test_case(finished):
    """Name of a test case and its volume."""
    rows = finished.predictions()
    case = str(rows.loc[rows["part"] == "test", "case"].mode()[0])
    return case, finished.raw / case / "imaging.nii.gz"


def noise(shape: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 300, shape).astype(np.int16)
