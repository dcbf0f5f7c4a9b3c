"""Clinical endpoints on a made-up study: grade depends on the tumor's area and on nothing in the images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from kidney_ssl import clinical_tasks
from kidney_ssl.cli import main
from kidney_ssl.clinical_tasks import LEAST, SHAPE, case_features, judge, too_few, tumor_cases
from kidney_ssl.engine.batches import Part, Slices
from kidney_ssl.errors import InputError
from kidney_ssl.files import sha256
from kidney_ssl.metrics import shortcut
from kidney_ssl.models.resnet import classifier
from kidney_ssl.models.weights import load_encoder, random_weights, save_weights
from kidney_ssl.yamlfile import dump_yaml, read_yaml
from tests.shallow_networks import shallow
from tests.unit.data.hub import LABELS, LABELS_COMMIT, running
from tests.unit.engine.toy_study import forget_but_the_last_batch

ROOT = Path(__file__).parents[3]
RESULTS = Path("metrics/clinical.json")
# Part -> cases of grade 1-2, of grade 3-4, with a grade that is not known, and how many of them are benign.
DESIGN = {"train": (30, 25, 5, 12), "test": (18, 14, 8, 3)}


def made_part(name, generator):
    """Slices of noise with areas, and entries of kits23.json: large tumors have a high grade, mostly."""
    low, high, unknown, benign = DESIGN[name]
    count = low + high + unknown
    cases = [f"case_{number + (0 if name == 'train' else 500):05d}" for number in range(count)]
    largest = generator.lognormal(6, 1, count)
    order = np.argsort(np.log(largest) + generator.normal(0, 0.4, count))
    grades = [None] * count
    for place, number in enumerate(order):
        kind = "12" if place < low else "34" if place < low + high else ("na", None)
        grades[number] = kind[place % 2]
    entries = [
        {"case_id": case, "malignant": number >= benign, "tumor_isup_grade": grade, "bmi": 30.0}
        for number, (case, grade) in enumerate(zip(cases, grades, strict=True))
    ]
    frame = pd.DataFrame({"case": np.repeat(cases, 3), "slice": np.tile([3, 4, 9], count)})
    frame["class"], frame["label"] = np.tile(["tumor", "tumor", "kidney"], count), np.tile([1, 1, 0], count)
    # The largest area is now in the first, now in the second tumor slice.
    shares = np.array([[0.5, 1.0, 0], [1.0, 0.5, 0]])[np.arange(count) % 2]
    frame["tumor_mm2"] = (largest[:, None] * shares).ravel().round(3)
    images = generator.random((len(frame), 32, 32)).astype(np.float16)
    return images, frame, entries


@pytest.fixture(autouse=True, scope="module")
def short_search():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shortcut, "FOLDS", 3)
        patch.setattr(shortcut, "STRENGTHS", (1e-3, 1e-1))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The study's folder before the command."""
    folder, generator = tmp_path_factory.mktemp("clinical"), np.random.default_rng(1)
    content = read_yaml((ROOT / "studies/smoke.yaml").read_text())
    content["initialize"]["random"]["seeds"] = [0, 1]
    content["arms"] = {name: content["arms"][name] for name in ("random", "rotation")}
    content["arms"]["again"] = content["arms"]["rotation"] | {"augmentation": "basic"}
    content["analysis"] |= {"contrasts": [], "resamples": 300}
    (folder / "params.yaml").write_text(dump_yaml(content))
    entries = []
    for inside in ("data/normalized", "data/slices"):
        (folder / inside).mkdir(parents=True)
    for name in DESIGN:
        images, frame, of_part = made_part(name, generator)
        np.save(folder / f"data/normalized/{name}_images.npy", images)
        frame.to_csv(folder / f"data/slices/{name}.csv", index=False)
        entries += of_part
    (folder / "labels.json").write_text(json.dumps(entries))
    with shallow():
        for number, start in enumerate(["initial/random/0", "initial/random/1", "pretrain/rotation/0"]):
            save_weights(random_weights("resnet18", number), folder / f"models/{start}.safetensors")
    return folder


@pytest.fixture(scope="module")
def written(made):
    """What the command wrote."""
    with pytest.MonkeyPatch.context() as patch, shallow():
        patch.chdir(made)
        main(["clinical", "--labels", "labels.json"])
    return (made / RESULTS).read_text()


@pytest.fixture
def found(written):
    return json.loads(written)


@pytest.fixture
def study(made, tmp_path, monkeypatch):
    """A copy to break."""
    shutil.copytree(made, tmp_path / "study", ignore=shutil.ignore_patterns("metrics"))
    monkeypatch.chdir(tmp_path / "study")
    return tmp_path / "study"


def test_counts_are_those_of_the_design_and_too_few_cases_are_said(found):
    grade, malignant = (found["tasks"][name] for name in ("grade", "malignant"))
    assert grade["cases"] == {
        "train": {"grade 1-2": 30, "grade 3-4": 25, "unknown": 5},
        "test": {"grade 1-2": 18, "grade 3-4": 14, "unknown": 8},
    }
    assert malignant["cases"] == {
        "train": {"benign": 12, "malignant": 48, "unknown": 0},
        "test": {"benign": 3, "malignant": 37, "unknown": 0},
    }
    assert grade["reason"] is None
    assert malignant["reason"] == "malignant: 3 benign test cases, too few to judge; 10 are needed"
    assert malignant["results"] == {}


def test_the_baseline_ranks_cases_by_their_largest_area(found, made):
    entries = {entry["case_id"]: entry["tumor_isup_grade"] for entry in json.loads((made / "labels.json").read_text())}
    areas = pd.read_csv(made / "data/slices/test.csv").groupby("case")["tumor_mm2"].max()
    known = [case for case in areas.index if entries[case] in ("1", "2", "3", "4")]
    auroc = roc_auc_score([entries[case] in "34" for case in known], areas[known])
    shape = found["tasks"]["grade"]["results"][SHAPE]["auroc"]
    assert shape["value"] == pytest.approx(auroc, abs=1e-6)
    assert 0.5 < shape["low"] < auroc < shape["high"] < 1


def test_features_of_noise_tell_nothing_and_are_compared_with_the_baseline(found):
    results = found["tasks"]["grade"]["results"]
    assert {name: one["seeds"] for name, one in results.items()} == {
        SHAPE: 1,
        "initial/random": 2,
        "pretrain/rotation": 1,
    }
    assert "minus_shape" not in results[SHAPE]
    for start in ("initial/random", "pretrain/rotation"):
        auroc, minus = results[start]["auroc"], results[start]["minus_shape"]
        assert auroc["low"] < 0.5 < auroc["high"]
        assert auroc["value"] == pytest.approx(0.5, abs=0.2)
        assert minus["value"] == pytest.approx(auroc["value"] - results[SHAPE]["auroc"]["value"], abs=2e-6)
        assert minus["low"] < minus["value"] < minus["high"]


def test_the_file_names_its_labels_by_their_sha256_and_is_written_alike_again(study, written, capsys):
    content = json.loads(written)
    assert content["labels"] == {"sha256": sha256(study / "labels.json"), "source": "a local file"}
    assert written == json.dumps(content, indent=2, sort_keys=True) + "\n"
    with shallow():
        main(["clinical", "--labels", str(study / "labels.json")])
    assert RESULTS.read_text() == written
    said = capsys.readouterr().out.splitlines()
    assert said[0] == (
        "grade, cases: train 30 grade 1-2, 25 grade 3-4, 5 unknown; test 18 grade 1-2, 14 grade 3-4, 8 unknown"
    )
    auroc = content["tasks"]["grade"]["results"]["pretrain/rotation"]["auroc"]
    (line,) = [line for line in said if "pretrain/rotation" in line]
    assert f"AUROC {auroc['value']:.3f} ({auroc['low']:.3f} to {auroc['high']:.3f})   minus shape -" in line
    assert "  malignant: 3 benign test cases, too few to judge; 10 are needed" in said


def test_features_of_a_case_are_the_mean_of_its_tumor_slices(made, fabric):
    start = made / "models/initial/random/1.safetensors"
    data = {}
    for name in DESIGN:
        frame = pd.read_csv(made / f"data/slices/{name}.csv")[:60]
        images = np.load(made / f"data/normalized/{name}_images.npy")[:60]
        data[name] = Slices(Part(images, frame), device=fabric.device)
    model = classifier("resnet18", 5)
    load_encoder(model, start)
    forget_but_the_last_batch(model)
    maps = {}
    model.layer4.register_forward_hook(lambda *given: maps.update(last=given[2]))
    with torch.no_grad():
        model.train()(torch.from_numpy(data["train"].part.images).float()[:, None])
        model.eval()
        features = case_features(data, start, network="resnet18", fabric=fabric, batch_size=64)
        for name, slices in data.items():
            model(torch.from_numpy(slices.part.images).float()[:, None])
            pooled = maps["last"].mean(dim=(2, 3)).numpy()
            expected = [pooled[3 * case : 3 * case + 2].mean(axis=0) for case in range(20)]
            assert np.allclose(features[name], expected, atol=1e-4)


def made_columns(generator):
    """Labelled cases, one of them without a label, and columns of which some tell the label."""
    rows, columns = {}, {SHAPE: [{}], "signal": [{}, {}], "dead": [{}]}
    for part, count in (("train", 60), ("test", 40)):
        label = np.arange(count) % 2 * 1.0
        label[7] = np.nan
        rows[part] = pd.DataFrame({"case": [f"{part}_{number:03d}" for number in range(count)], "label": label})
        columns[SHAPE][0][part] = generator.normal(size=(count, 1)) + np.nan_to_num(label)[:, None]
        for one in columns["signal"]:
            one[part] = generator.normal(size=(count, 5)) + 3 * np.nan_to_num(label)[:, None] * [1, 0, 0, 0, 0]
        columns["dead"][0][part] = np.ones((count, 5))
    return rows, columns


def test_a_start_is_scikit_learns_regression_averaged_over_seeds_and_may_beat_the_baseline():
    rows, columns = made_columns(np.random.default_rng(3))
    found = judge(rows, columns, resamples=300, seed=0)
    known = {part: table["label"].notna().to_numpy() for part, table in rows.items()}
    label = {part: table["label"][known[part]].to_numpy() for part, table in rows.items()}
    aurocs = []
    for one, strength in zip(columns["signal"], found["signal"]["strength"], strict=True):
        train, test = (one[part][known[part]] for part in ("train", "test"))
        scaler = StandardScaler().fit(train)
        model = LogisticRegression(C=strength).fit(scaler.transform(train), label["train"])
        aurocs.append(roc_auc_score(label["test"], model.decision_function(scaler.transform(test))))
    assert len(set(aurocs)) == 2
    assert found["signal"]["auroc"]["value"] == pytest.approx(np.mean(aurocs), abs=1e-9)
    assert found["signal"]["minus_shape"]["low"] > 0
    # A collapsed encoder gives its reason instead of a value.
    assert found["dead"]["auroc"] == found["dead"]["minus_shape"]
    assert (found["dead"]["auroc"]["value"], found["dead"]["strength"]) == (None, [])
    assert "the same in every training slice" in found["dead"]["auroc"]["reason"]


def test_patients_are_resampled_not_their_cases():
    rows, columns = made_columns(np.random.default_rng(3))
    once = judge(rows, columns, resamples=300, seed=0)[SHAPE]["auroc"]
    # Every case four times, as scans of one patient: four times the cases tell no more.
    fourfold = {
        part: pd.concat([table.assign(patient=table["case"], case=table["case"] + f"_{scan}") for scan in range(4)])
        for part, table in rows.items()
    }
    shape = {SHAPE: [{part: np.tile(values, (4, 1)) for part, values in columns[SHAPE][0].items()}]}
    again = judge(fourfold, shape, resamples=300, seed=0)[SHAPE]["auroc"]
    assert again["value"] == pytest.approx(once["value"])
    assert again["high"] - again["low"] == pytest.approx(once["high"] - once["low"], rel=0.05)


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ((LEAST, LEAST), (LEAST, LEAST), None),
        ((12, 200), (9, 50), "malignant: 9 benign test cases, too few to judge; 10 are needed"),
        ((1, 200), (9, 50), "malignant: 1 benign training case, too few to judge; 10 are needed"),
        ((50, 50), (50, 0), "malignant: 0 malignant test cases, too few to judge; 10 are needed"),
    ],
)
def test_the_smallest_class_is_named(train, test, said):
    counts = {name: {"benign": few, "malignant": many} for name, (few, many) in (("train", train), ("test", test))}
    assert too_few("malignant", counts) == said


def test_a_case_has_its_largest_area_and_its_patient():
    columns = ["case", "patient", "label", "tumor_mm2"]
    rows = [["b", "p", 1, 5.0], ["b", "p", 1, 9.0], ["b", "p", 1, 7.0], ["a", "p", 1, 3.0], ["c", "q", 0, 0.0]]
    found = tumor_cases(pd.DataFrame(rows, columns=columns))
    assert found.to_dict("list") == {"case": ["a", "b"], "patient": ["p", "p"], "tumor_mm2": [3.0, 9.0]}


@pytest.mark.parametrize("area", [None, 0.0])
def test_tumors_without_an_area_are_refused(area):
    frame = pd.DataFrame({"case": ["a"], "label": [1]})
    with pytest.raises(InputError, match="the shape baseline needs masks"):
        tumor_cases(frame if area is None else frame.assign(tumor_mm2=area))


@pytest.mark.parametrize(
    ("break_it", "words", "said"),
    [
        (None, "", "data.source is phantom: name a file like kits23.json, --labels FILE"),
        (None, "--labels absent.json", "absent.json: cannot be read"),
        (lambda: shutil.rmtree("data"), "--labels labels.json", "data/normalized/train_images.npy: cannot be read"),
        (
            Path("models/initial/random/1.safetensors").unlink,
            "--labels labels.json",
            "models/initial/random/1.safetensors: not there (1 of 3 such files): `kidney-ssl run` makes them",
        ),
        (
            lambda: Path("labels.json").write_text(json.dumps(json.loads(Path("labels.json").read_text())[1:])),
            "--labels labels.json",
            "clinical labels: no entry of case_00000: ",
        ),
        (Path("params.yaml").unlink, "--labels labels.json", "params.yaml: cannot be read"),
    ],
)
def test_what_is_missing_is_one_line(study, monkeypatch, break_it, words, said):
    monkeypatch.setattr(clinical_tasks, "case_features", None)  # nothing runs a network
    if break_it is not None:
        break_it()
    with pytest.raises(SystemExit) as refused:
        main(["clinical", *words.split()])
    assert str(refused.value).startswith("error: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not RESULTS.exists()


def test_a_study_of_kits23_fetches_its_labels_and_fits_nothing_without_enough_cases(study, monkeypatch, capsys):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(clinical_tasks, "case_features", None)
    entries = json.loads(Path("labels.json").read_text())
    served = json.dumps([entry | {"tumor_isup_grade": "na"} for entry in entries]).encode()
    content = read_yaml(Path("params.yaml").read_text())
    content["data"] |= {"source": "kits23", "raw_dir": "store"}
    with running({}, {"kits23.json": served}) as hub:
        content["kits23"] |= {
            "labels_endpoint": hub.addresses["github"],
            "labels_repository": LABELS,
            "labels_revision": LABELS_COMMIT,
        }
        Path("params.yaml").write_text(dump_yaml(content))
        main(["clinical"])
    main(["clinical"])  # the server is gone
    assert "grade: 0 grade 1-2 test cases, too few to judge; 10 are needed" in capsys.readouterr().out
    (kept,) = Path("store").iterdir()
    assert kept.read_bytes() == served
    found = json.loads(RESULTS.read_text())
    assert found["labels"] == {"sha256": sha256(kept), "source": f"{LABELS}@{LABELS_COMMIT}"}
    assert [task["results"] for task in found["tasks"].values()] == [{}, {}]
