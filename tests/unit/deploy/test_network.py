"""A finished study's network exported, run on CTs, and refused where it has seen nothing like them."""

import json
import re
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from dicom_files import SECRET, write_series
from safetensors.torch import load_file

from kidney_ssl import cli
from kidney_ssl.data.body import standardise
from kidney_ssl.deploy import embed as embed_module
from kidney_ssl.deploy.embed import embed
from kidney_ssl.deploy.export import export
from kidney_ssl.deploy.familiarity import calibrate, fit
from kidney_ssl.deploy.inference import LoadedNetwork
from kidney_ssl.deploy.network_folder import NOTICE, read_settings, with_library_names, with_own_names
from kidney_ssl.deploy.predict import case_score, most_suspicious, predict
from kidney_ssl.deploy.scan import read_scan
from kidney_ssl.errors import InputError
from kidney_ssl.explain import grad_cam
from kidney_ssl.models.resnet import classifier
from kidney_ssl.schema import TEST
from kidney_ssl.yamlfile import read_yaml


@pytest.fixture(scope="module")
def predicted(finished, test_case, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted") / "out"
    return out, predict(finished.network, test_case[1], out, anyway=True)


def test_a_test_case_gets_the_probabilities_that_the_study_gave_its_slices(finished, test_case, predicted):
    rows = finished.predictions()
    of_case = rows[(rows["part"] == TEST) & (rows["case"] == test_case[0])]
    found = pd.read_csv(predicted[0] / "slices.csv").set_index("slice").loc[of_case["slice"], "probability"]
    assert len(of_case) >= 3
    assert np.ptp(of_case["probability"]) > 1e-3
    # A batch of another size may differ in the last bits of float32.
    assert np.abs(found.to_numpy() - of_case["probability"].to_numpy()).max() < 1e-6


def test_axes_in_another_order_change_no_probability(finished, test_case, predicted, tmp_path):
    image = nib.load(test_case[1])
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(("R", "A", "S")))
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), tmp_path / "turned.nii.gz")
    predict(finished.network, tmp_path / "turned.nii.gz", tmp_path / "out", anyway=True)
    first, second = (pd.read_csv(out / "slices.csv") for out in (predicted[0], tmp_path / "out"))
    assert np.array_equal(first["probability"], second["probability"])
    written = nib.load(tmp_path / "out" / "grad_cam.nii.gz")
    assert written.shape == turned.shape
    assert np.allclose(written.affine, turned.affine)


def test_the_map_volume_is_grad_cam_of_each_slice(finished, test_case, predicted):
    scan, settings = read_scan(test_case[1]), read_settings(finished.network)
    row = int(pd.read_csv(predicted[0] / "slices.csv")["probability"].idxmax())
    loaded = LoadedNetwork(finished.network)
    looked = loaded.look(scan, maps=True)
    model = classifier(settings.network, 0)
    model.load_state_dict(load_file(finished.network / "model.safetensors"))
    nothing = np.zeros(scan.array[row].shape, np.uint8)
    image, *_ = standardise(scan.array[row], nothing, scan.grid.spacing_mm[1:], settings.body_frame)
    low, high = settings.window
    batch = torch.from_numpy(((np.clip(image, low, high) - low) / (high - low)).astype(np.float16)).float()
    own = grad_cam(model, batch[None, None], settings.layer).numpy()[0]
    assert np.allclose(looked.maps[row], own, atol=1e-5 * max(own.max(), 1))
    volume = nib.load(predicted[0] / "grad_cam.nii.gz").get_fdata()
    assert volume.max() == pytest.approx(looked.maps.max(), rel=0.2)


def test_every_output_says_that_it_is_no_medical_device_and_loads_nothing(finished, predicted):
    out, result = predicted
    page = (out / "index.html").read_text()
    assert NOTICE in page
    assert result["notice"] == NOTICE == json.loads((out / "result.json").read_text())["notice"]
    assert "Not a medical device" in (finished.network / "README.md").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "<script" not in page


def test_no_name_or_private_tag_of_a_dicom_series_reaches_an_output(finished, test_case, tmp_path, capsys):
    scan = read_scan(test_case[1])
    series = tmp_path / "Zyxwvut"
    _, row_mm, column_mm = scan.grid.spacing_mm
    step = (0, 0, scan.grid.spacing_mm[0])
    write_series(series, scan.array[::-1], step=step, spacing=(row_mm, column_mm))
    assert SECRET.encode() in next(series.iterdir()).read_bytes()
    out = tmp_path / "out"
    cli.main(["predict", str(finished.network), str(series), "--to", str(out), "--anyway"])
    found = pd.read_csv(out / "slices.csv")["probability"]
    assert len(found) == len(scan.array)
    assert (out / "grad_cam.dcm").exists()
    for file in out.iterdir():
        content = nib.load(file).header.binaryblock if file.suffix == ".gz" else file.read_bytes()
        assert SECRET.encode() not in content
        assert b"Zyxwvut" not in content
    assert NOTICE in capsys.readouterr().out


def test_nothing_is_written_of_a_volume_that_is_refused(finished, test_case, tmp_path):
    volume = np.asarray(nib.load(test_case[1]).dataobj)
    affine = nib.load(test_case[1]).affine
    changed = {
        "plus": (volume + 1024, affine, "no HU"),
        "fine": (volume, affine @ np.diag([0.1, 1, 1, 1]), "slices .* mm apart, in training"),
        "coarse": (volume, affine @ np.diag([1, 1.9, 1.9, 1]), "pixels .* mm apart, in training"),
    }
    for name, (array, moved, said) in changed.items():
        nib.save(nib.Nifti1Image(array, moved), tmp_path / f"{name}.nii.gz")
        with pytest.raises(InputError, match=said) as caught:
            predict(finished.network, tmp_path / f"{name}.nii.gz", tmp_path / name)
        assert "--anyway" in str(caught.value)
        assert not (tmp_path / name).exists()
    assert predict(finished.network, tmp_path / "plus.nii.gz", tmp_path / "plus", anyway=True)["familiarity"]["outside"]
    assert "Outside what this network has seen" in (tmp_path / "plus" / "index.html").read_text()


def test_another_body_part_is_refused_and_the_study_s_own_cases_are_not(finished, tmp_path):
    limb = np.full((16, 64, 64), -1000.0)
    rows, columns = np.indices((64, 64)) - 32
    limb[:, np.hypot(rows, columns) < 20] = 60
    limb[:, np.hypot(rows, columns) < 6] = 900
    known = read_settings(finished.network).familiar
    spacing = np.mean(known.spacing_mm)
    affine = np.array([[0, 0, -spacing, 0], [0, -spacing, 0, 0], [-np.mean(known.thickness_mm), 0, 0, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(limb, affine), tmp_path / "limb.nii.gz")
    with pytest.raises(InputError, match="look unlike those of the"):
        predict(finished.network, tmp_path / "limb.nii.gz", tmp_path / "out")
    loaded = LoadedNetwork(finished.network)
    cases = pd.read_csv(finished.folder / "data/slices/train.csv")["case"].unique()
    for case in cases:
        scan = read_scan(finished.raw / case / "imaging.nii.gz")
        assert not loaded.look(scan, maps=False).reasons


def test_a_case_s_score_is_of_a_network_of_features_that_did_not_hold_it():
    generator = np.random.default_rng(0)
    features = generator.normal(0, 1, (300, 5))
    cases = np.repeat([f"case_{number}" for number in range(30)], 10)
    reference, scores, bound = calibrate(features, cases)
    assert len(scores) == 30
    assert bound == max(scores)
    assert reference.score(features + 8) > 3 * bound
    assert reference.score(generator.normal(0, 1, (50, 5))) < bound
    features[cases == "case_3"] += 40
    _, scores, _ = calibrate(features, cases)
    held_in = fit(features).score(features[cases == "case_3"])
    assert max(scores) > 2 * held_in
    with pytest.raises(InputError, match="too few"):
        calibrate(features[:20], cases[:20])


def test_the_score_of_a_case_is_the_highest_mean_of_three_neighbours():
    assert case_score(np.array([0, 0.9, 0, 0.5, 0.5, 0.5])) == pytest.approx(0.5)
    assert case_score(np.array([0.2, 0.4])) == pytest.approx(0.3)
    assert most_suspicious(np.array([0.1, 0.9, 0.8, 0.3]), np.array([30.0, 25, 20, 10])) == [1, 3]


def test_the_exported_weights_are_torchvision_s_with_one_channel_and_one_logit(finished):
    from torchvision.models import resnet18

    theirs = resnet18(num_classes=1)
    theirs.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    theirs.load_state_dict(load_file(finished.network / "model.safetensors"))
    encoder = load_file(finished.network / "encoder.safetensors")
    assert set(theirs.state_dict()) - set(encoder) == {"fc.weight", "fc.bias"}


def test_weights_of_timm_get_timm_s_names_and_come_back():
    import timm

    own = classifier("timm:resnet10t", 0).state_dict()
    named = with_library_names(own, "timm:resnet10t")
    timm.create_model("resnet10t", num_classes=0, in_chans=1).load_state_dict(
        {name: tensor for name, tensor in named.items() if not name.startswith("fc.")}
    )
    assert set(with_own_names(named, "timm:resnet10t")) == set(own)


def test_the_card_begins_with_front_matter_and_states_the_run_s_metrics(finished):
    text = (finished.network / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert read_yaml(front, "card")["library_name"] == "kidney-ssl"
    assert "| auroc | 0." in body or "| auroc | none |" in body
    assert "32 x 32" in body


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (("rotated", 100, 0), "no arm 'rotated'"),
        (("random", 20, 0), "no run of 20 % with seed 0"),
        (("rotation", 100, 0), "the network of rotation at 100 % with seed 0 is not there"),
    ],
)
def test_a_run_without_a_network_gets_one_line(finished, tmp_path, monkeypatch, run, said):
    monkeypatch.chdir(finished.folder)
    with pytest.raises(InputError, match=said):
        export(finished.settings, *run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda folder: (folder / "network.json").unlink(), "give a folder made by"),
        (lambda folder: (folder / "network.json").write_text("[" * 100_000), "no JSON"),
        (lambda folder: (folder / "network.json").write_text('{"format": 2}'), "format"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "not a whole safetensors"),
        (lambda folder: shutil.copy(folder / "encoder.safetensors", folder / "model.safetensors"), "lacks fc"),
        (lambda folder: shutil.copy(folder / "encoder.safetensors", folder / "familiarity.safetensors"), "features"),
    ],
)
def test_a_damaged_network_folder_gets_one_line(finished, test_case, tmp_path, broken, said):
    shutil.copytree(finished.network, tmp_path / "network")
    broken(tmp_path / "network")
    with pytest.raises(InputError, match=said):
        predict(tmp_path / "network", test_case[1], tmp_path / "out")


def test_embed_gives_every_slice_of_every_case_its_features(finished, tmp_path, monkeypatch):
    cases = sorted(path.name for path in finished.raw.iterdir())[:2]
    volumes = [finished.raw / case / "imaging.nii.gz" for case in cases]
    written, _ = embed(finished.network, volumes, tmp_path / "features.csv")
    table = pd.read_csv(written)
    assert list(table["case"].unique()) == cases
    assert list(table.columns[:4]) == ["case", "slice", "position_mm", "feature_0"]
    assert len(table.columns) == 3 + 512
    head = load_file(finished.network / "model.safetensors")
    features = torch.from_numpy(table.filter(like="feature_").to_numpy(np.float32))
    logits = (features @ head["fc.weight"].T + head["fc.bias"])[:, 0]
    first = LoadedNetwork(finished.network).look(read_scan(volumes[0]), maps=False).probability
    assert np.allclose(torch.sigmoid(logits)[: len(first)], first, atol=1e-5)
    with pytest.raises(InputError, match="two volumes are called"):
        embed(finished.network, [volumes[0]] * 2, tmp_path / "features.csv")
    monkeypatch.setattr(embed_module, "find_spec", lambda _: None)
    assert embed(finished.network, volumes[:1], tmp_path / "other.parquet")[0] == tmp_path / "other.csv"


def test_embed_writes_parquet_where_pyarrow_is(finished, test_case, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is optional")
    written, _ = embed(finished.network, [test_case[1]], tmp_path / "features.parquet")
    assert written.suffix == ".parquet"
    assert pd.read_parquet(written)["case"].unique().tolist() == [test_case[0]]
