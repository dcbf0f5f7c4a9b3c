"""Stages run by hand on bad, incomplete and real input: one line of error, and earlier results as they were."""

import csv
import gzip
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from kidney_ssl.data.phantom import write_case
from tests.project_copy import ROOT, Project

SHARED = ROOT.parent / "shared"
KITS23, CT = SHARED / "kits23", SHARED / "ct" / "case_90000"
KITS_AFFINE = np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [-5.0, 0, 0, 0], [0, 0, 0, 1]])
SHAPE = (8, 40, 40)
GOOD = [f"case_{number:05d}" for number in range(6)]
BAR = re.compile(r"\w+: +\d+%\|")
DATA_STAGES = ("download", "select", "slice", "normalize")


def tiny_labels():
    """Two kidneys in slices 2 to 6, a tumor of 25 pixels in the left one in slices 4 to 6."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:7, 18:26, 8:15] = labels[2:7, 18:26, 25:32] = 1
    labels[4:7, 19:24, 26:31] = 2
    return labels


def tiny_imaging(labels):
    """A round body in air; tumors of many HU."""
    row, column = np.mgrid[: SHAPE[1], : SHAPE[2]]
    imaging = np.where((row - 20) ** 2 + (column - 20) ** 2 < 18**2, 40.0, -1000.0) * np.ones(SHAPE)
    imaging[labels == 1] = 150
    imaging[labels == 2] = np.arange(np.count_nonzero(labels == 2)) % 90
    return imaging


def write(path, array, affine=KITS_AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def write_good(folder):
    labels = tiny_labels()
    write(folder / "segmentation.nii.gz", labels)
    write(folder / "imaging.nii.gz", own(tiny_imaging(labels), folder.name))


def own(imaging, case):
    """Make a case's imaging one of its own: the same under two names is refused."""
    imaging[0, 20, 20] += int(case.removeprefix("case_"))
    return imaging


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def page_in_place_of_a_volume(path):
    path.write_bytes(b"<html>503 Service Unavailable</html>" * 20)


def text_in_gzip(path):
    path.write_bytes(gzip.compress(b"no volume at all " * 100))


def tilted():
    angle = np.deg2rad(35)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ KITS_AFFINE


def shifted():
    affine = KITS_AFFINE.copy()
    affine[2, 3] = 10
    return affine


def with_value(array, value):
    changed = array.astype(np.float64)
    changed[4, 20, 20] = value
    return changed


LABELS, IMAGING = tiny_labels(), tiny_imaging(tiny_labels())
# What is done to a good volume, and a word of the complaint.
BAD_LABELS = {
    "case_00010": (truncate, "truncated"),
    "case_00011": (page_in_place_of_a_volume, "gzip"),
    "case_00012": (text_in_gzip, "not a NIfTI file"),
    "case_00013": (lambda path: write(path, np.stack([LABELS] * 2, axis=-1)), "4 dimensions"),
    "case_00014": (lambda path: write(path, LABELS[:0]), "no voxels"),
    "case_00015": (lambda path: write(path, LABELS * 2), "none of 0 to 3"),
    "case_00016": (lambda path: write(path, with_value(LABELS, -1).astype(np.int16)), "no labels 0 to 3"),
    "case_00017": (lambda path: write(path, with_value(LABELS, 1.5)), "no whole numbers"),
    "case_00018": (lambda path: write(path, LABELS, tilted()), "oblique"),
}
BAD_IMAGING = {
    "case_00020": (truncate, "truncated"),
    "case_00021": (page_in_place_of_a_volume, "gzip"),
    "case_00022": (lambda path: write(path, np.stack([IMAGING] * 2, axis=-1)), "4 dimensions"),
    "case_00023": (lambda path: write(path, IMAGING[:0]), "no voxels"),
    "case_00024": (lambda path: write(path, with_value(IMAGING, np.nan)), "not finite"),
    "case_00025": (lambda path: write(path, with_value(IMAGING, np.inf)), "not finite"),
    "case_00026": (lambda path: write(path, with_value(IMAGING, 1e6)), "HU of int16"),
    "case_00027": (lambda path: write(path, IMAGING, tilted()), "oblique"),
    "case_00028": (lambda path: write(path, IMAGING[:-1]), "grids must agree"),
    "case_00029": (lambda path: write(path, IMAGING, shifted()), "grids must agree"),
}


def directory_study(folder, changes):
    """A copy of the project whose study is the folder `volumes` beside it."""
    project = Project.copy_to(folder / "project")
    root = str(folder / "volumes")
    project.change({"data.source": "directory", "data.root": root, "data.folds": 3} | changes)
    return project


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Six good cases, through every data stage."""
    folder = tmp_path_factory.mktemp("prepared")
    for case in GOOD:
        write_good(folder / "volumes" / case)
    project = directory_study(folder, {"select.min_tumor_px": 20, "compute.workers": 1})
    project.stages(*DATA_STAGES)
    return project


@pytest.fixture
def study(prepared, tmp_path):
    """A copy of the prepared study with volumes of its own, free to be spoiled."""
    shutil.copytree(prepared.folder.parent, tmp_path / "study")
    project = Project(tmp_path / "study" / "project")
    project.change({"data.root": str(volumes_of(project))})
    return project


def volumes_of(project):
    return project.folder.parent / "volumes"


def results(project):
    """Every file that stages wrote, with its bytes."""
    folders = [project.folder / name for name in ("data", "metrics", "models")]
    return {path: path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(project, stage, *arguments):
    """Run a stage that must refuse its input; the line of its error."""
    before = results(project)
    ended = project.stage(stage, *arguments)
    assert ended.returncode != 0
    assert "Traceback" not in ended.stderr
    lines = [line for line in re.split(r"[\r\n]+", ended.stderr) if line.strip() and not BAR.match(line)]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert results(project) == before
    return lines[0]


def test_every_wrong_key_of_the_parameters_is_named_in_one_line(prepared):
    wrong = {"finetune.epoch": 3, "finetune.epochs": -1, "select.min_tumor_px": "many", "networks": "resnet18"}
    with prepared.changed(wrong):
        line = refused(prepared, "download")
    assert line.startswith("error: params.yaml: ")
    assert "finetune.epoch: unknown key" in line
    assert "networks: unknown key" in line
    assert re.search(r"finetune\.epochs: .*-1", line)
    assert re.search(r"select\.min_tumor_px: .*'many'", line)


def test_an_arm_with_unknown_weights_is_refused_with_the_known_ones(prepared):
    with prepared.changed({"arms.newcomer": {"weights": "initial/nothing", "augmentation": "none"}}):
        line = refused(prepared, "select")
    assert "arms.newcomer.weights: unknown 'initial/nothing', known: initial/random" in line


@pytest.mark.parametrize("stage", ["initialize", "pretrain", "finetune", "explain", "evaluate"])
def test_a_name_that_the_parameters_do_not_have_is_refused_with_the_known_ones(prepared, stage):
    line = refused(prepared, stage, "nothing")
    assert "'nothing'" in line
    assert ("rotation" if stage == "pretrain" else "random") in line


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["finetune"], "python -m stages.finetune <arm>"),
        (["finetune", "random", "100-0"], "python -m stages.finetune <arm>"),
        (["finetune", "a/b"], "'a/b'"),
        (["select", "all"], "python -m stages.select"),
    ],
)
def test_a_wrong_command_is_one_line_with_the_right_one(prepared, command, words):
    assert words in refused(prepared, *command)


@pytest.mark.parametrize("stage", [["pretrain", "rotation"], ["finetune", "random"], ["explain", "random"]])
def test_a_training_whose_input_is_absent_is_refused_and_does_not_wait(prepared, stage):
    assert " ".join(stage) in refused(prepared, *stage)


def test_absent_imagenet_weights_offline_are_one_error_with_both_ways_out(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with prepared.changed({"initialize.imagenet": {"file": None}}):
        line = refused(prepared, "initialize", "imagenet")
    assert f"at {tmp_path}/hub/checkpoints/resnet18-f37072fd.pth" in line
    assert "initialize.imagenet.file" in line


def test_a_local_weights_file_that_is_absent_is_named(prepared):
    with prepared.changed({"initialize.imagenet": {"file": "nowhere/resnet18.pth"}}):
        assert "nowhere/resnet18.pth: no such weights file" in refused(prepared, "initialize", "imagenet")


def test_an_empty_and_an_absent_folder_are_refused(prepared, tmp_path):
    for folder, complaint in ((tmp_path, "holds no volumes"), (tmp_path / "nowhere", "no such folder")):
        with prepared.changed({"data.root": str(folder)}):
            assert f"{folder}: {complaint}" in refused(prepared, "download")


def test_no_slice_over_the_threshold_is_refused_with_the_key(prepared):
    with prepared.changed({"select.min_tumor_px": 26}):
        assert "at least 26 tumor pixels: lower select.min_tumor_px" in refused(prepared, "select")


def test_a_single_case_is_too_few(study):
    study.change({"data.cases": [0]})
    study.stages("download")
    assert "1 case(s) are too few for data.folds" in refused(study, "select")


def test_labels_alone_are_selected_and_slice_lists_every_case_without_imaging(study):
    for case in GOOD:
        (volumes_of(study) / case / "imaging.nii.gz").unlink()
    selection = (study.folder / "data/index/selection.csv").read_bytes()
    for said in study.stages("download", "select"):
        assert "imaging is missing for 6" in said
    assert (study.folder / "data/index/selection.csv").read_bytes() == selection
    line = refused(study, "slice")
    assert line.startswith("error: 6 bad case(s): ")
    assert all(f"{case}: imaging is missing" in line for case in GOOD)


def assert_listed(line, bad, kind, volumes):
    assert line.startswith(f"error: {len(bad)} bad case(s): ")
    assert not [case for case in GOOD if case in line]
    assert "data.exclude" in line
    complaints = re.split(r"(case_\d{5}): ", line)[1:]
    found = dict(zip(complaints[::2], complaints[1::2], strict=True))
    assert list(found) == sorted(bad)
    for case, (_, complaint) in bad.items():
        assert str(volumes / case / kind) in found[case]
        assert complaint in found[case]


def spoil(study, bad, kind):
    for case, (how, _) in bad.items():
        write_good(volumes_of(study) / case)
        how(volumes_of(study) / case / kind)


@pytest.mark.parametrize(
    ("stage", "bad", "kind"),
    [("select", BAD_LABELS, "segmentation.nii.gz"), ("slice", BAD_IMAGING, "imaging.nii.gz")],
    ids=["labels", "imaging"],
)
def test_bad_volumes_of_a_folder_are_listed_together_and_can_be_excluded(study, prepared, stage, bad, kind):
    spoil(study, bad, kind)
    study.stages(*DATA_STAGES[: DATA_STAGES.index(stage)])
    with study.changed({"compute.workers": 2}):
        line = refused(study, stage)
    assert_listed(line, bad, kind, volumes_of(study))
    study.change({"data.exclude": sorted(bad)})
    study.stages(*DATA_STAGES)
    expected = {path.relative_to(prepared.folder): content for path, content in results(prepared).items()}
    assert {path.relative_to(study.folder): content for path, content in results(study).items()} == expected


def test_a_volume_that_changed_after_download_is_refused(study):
    path = volumes_of(study) / GOOD[2] / "segmentation.nii.gz"
    write(path, tiny_labels()[::-1].copy())
    line = refused(study, "select")
    assert line.startswith(f"error: 1 bad case(s): {GOOD[2]}: {path} ")
    assert "download" in line


NO_CT = {
    "1024 added": (lambda imaging, labels: (imaging + 1024, labels), r"no HU: values from 24 to .* \[air\]$"),
    "padded by 0": (lambda imaging, labels: (np.where(imaging > -300, imaging, 0), labels), r"no HU: .*\[air\]$"),
    "labels in the air": (
        lambda imaging, labels: (imaging, np.roll(labels, -17, axis=1)),
        r"\d+ of \d+ labelled pixels lie outside the body; .*\[labels\]$",
    ),
}


@pytest.mark.parametrize("name", NO_CT)
def test_what_is_no_ct_with_its_labels_is_one_line_and_can_be_accepted(study, name):
    change, said = NO_CT[name]
    folder = volumes_of(study) / GOOD[2]
    imaging, labels = change(own(tiny_imaging(tiny_labels()), GOOD[2]), tiny_labels())
    write(folder / "imaging.nii.gz", imaging)
    write(folder / "segmentation.nii.gz", labels)
    study.stages("download", "select")
    line = refused(study, "slice")
    assert line.startswith(f"error: 1 bad case(s): {GOOD[2]}: ")
    assert re.search(said, line.removesuffix(". Mend the files, or name the cases in data.exclude"))
    study.change({"data.accept": ["air", "labels"]})
    assert f"note: {GOOD[2]}: " in study.succeed("python", "-m", "stages.slice")
    notes = json.loads((study.folder / "data/slices/notes.json").read_text())
    assert list(notes) == [GOOD[2]]
    assert notes[GOOD[2]][0].endswith("(accepted)")


def test_a_scan_under_two_names_is_refused_with_both_unless_they_are_one_patients(study, tmp_path):
    shutil.copyfile(volumes_of(study) / GOOD[1] / "imaging.nii.gz", volumes_of(study) / GOOD[4] / "imaging.nii.gz")
    study.succeed("python", "-m", "stages.download")
    assert f"{GOOD[1]} and {GOOD[4]} have the same imaging" in refused(study, "select")
    patients = {case: f"p{number % 3}" for number, case in enumerate(GOOD)}  # 1 and 4 are one
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\n" + "".join(f"{case},{patient}\n" for case, patient in patients.items()))
    study.change({"data.patients": str(table)})
    study.stages(*DATA_STAGES)
    cases = pd.read_csv(study.folder / "data/index/cases.csv")
    assert cases.set_index("case")["patient"].to_dict() == patients
    assert (cases.groupby("patient")["split"].nunique() == 1).all()
    for file in ("slices/train.csv", "slices/test.csv", "natural/natural.csv"):
        rows = pd.read_csv(study.folder / "data" / file)
        assert rows["patient"].tolist() == rows["case"].map(patients).tolist()
    assert json.loads((study.folder / "metrics/selection.json").read_text())["patients_total"] == 3
    study.change({"data.patients": "case_(.*)9$"})
    assert "data.patients: case_(.*)9$ names no patient of case_00000" in refused(study, "download")


@pytest.mark.skipif(not KITS23.exists(), reason="../shared/kits23 is not beside this checkout")
def test_the_real_labels_of_kits23_are_selected_with_the_known_areas(tmp_path):
    project = Project.copy_to(tmp_path / "project", "kits23")
    project.change({"data.source": "directory", "data.root": str(KITS23 / "labels"), "compute.workers": 2})
    assert project.params["select"]["min_tumor_px"] == 1000
    for said in project.stages("download", "select"):
        assert "imaging is missing for 26" in said
    with (project.folder / "data/manifest.csv").open() as stream:
        manifest = {row["case"]: row["sha256"] for row in csv.DictReader(stream)}
    published = pd.read_csv(KITS23 / "labels.sha256.csv", index_col=0)
    assert all(published.loc[case, "sha256"] == found for case, found in manifest.items())

    figures = json.loads((project.folder / "metrics/selection.json").read_text())
    assert figures["slices_total"] == 1656
    assert figures["candidates_total"] == {"tumor": 245, "kidney": 475, "background": 868}
    # 245 + 2 x 122, less one: the validation cases have 13 slices of background, half of their 27 tumor slices is 14.
    assert figures["candidates"]["validation"] == {"tumor": 27, "kidney": 21, "background": 13}
    assert figures["chosen_total"] == 488
    columns = ["case", "slice", "kidney_px", "tumor_px", "cyst_px"]
    found = pd.read_csv(project.folder / "data/index/slices.csv")
    areas = pd.read_csv(KITS23 / "slice_areas.csv.gz")
    expected = areas[areas["case"].isin(manifest)].sort_values(["case", "slice"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(found[columns], expected[columns])
    number = found["case"].str.removeprefix("case_").astype(int)
    blocks = np.select([number < 300, number < 500], ["0-299", "400-499"], "500-588")
    assert found["block"].tolist() == blocks.tolist()
    selection = pd.read_csv(project.folder / "data/index/selection.csv")
    assert len(selection) == 488
    assert selection.groupby("case")["split"].nunique().max() == 1
    assert "imaging is missing" in refused(project, "slice")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A real CT, axes from left to right, back to front, bottom to top, among phantoms in KiTS order."""
    if not CT.exists():
        pytest.skip("../shared/ct is not beside this checkout")
    folder = tmp_path_factory.mktemp("mixed")
    for number in range(5):
        write_case(folder / "volumes" / f"case_{number:05d}", number, size=64, slices=1, seed=0)
    (folder / "volumes" / CT.name).symlink_to(CT)
    project = directory_study(folder, {"select.min_tumor_px": 1, "slice.image_size": 64})
    project.stages(*DATA_STAGES)
    return project


def real_volume(name):
    """The real CT turned by hand: slices from the top, front first, patient's right at column 0."""
    array = np.asarray(nib.load(CT / f"{name}.nii.gz").dataobj)
    return array[::-1, ::-1, ::-1].transpose(2, 1, 0)


def test_a_real_ct_is_counted_along_its_own_axial_axis(mixed):
    rows = pd.read_csv(mixed.folder / "data/index/slices.csv")
    rows = rows[rows["case"] == CT.name]
    labels = real_volume("segmentation")
    assert rows["kidney_px"].tolist() == np.count_nonzero(labels == 1, axis=(1, 2)).tolist()
    assert (rows["kidney_px"].sum(), (rows["kidney_px"] > 0).sum()) == (7623, 23)
    assert (rows[["tumor_px", "cyst_px"]] == 0).all(axis=None)
    assert (rows[["spacing_mm", "thickness_mm"]] == 3).all(axis=None)
    assert set(rows["block"]) == {"other"}


def in_the_frame(array, row, outside):
    """Take the pixel under the middle of each pixel of the frame: the body's box, padded around its middle."""
    side = max(row["bottom"] - row["top"], row["right"] - row["left"])
    steps = (np.arange(64) + 0.5) / 64 * side - side / 2
    down, across = (
        np.floor(steps + (row[low] + row[high]) / 2).astype(int) for low, high in (("top", "bottom"), ("left", "right"))
    )
    padded = np.pad(array, side, constant_values=outside)
    return padded[np.ix_(down + side, across + side)]


def test_a_real_ct_lies_in_the_frame_as_it_lies_in_its_volume(mixed):
    labels, imaging = real_volume("segmentation"), real_volume("imaging")
    compared = 0
    for split in ("train", "validation", "test"):
        rows = pd.read_csv(mixed.folder / f"data/slices/{split}.csv")
        images, masks = (np.load(mixed.folder / f"data/slices/{split}_{kind}.npy") for kind in ("images", "masks"))
        for place, row in rows[rows["case"] == CT.name].iterrows():
            expected = in_the_frame(imaging[row["slice"]], row, -1000)
            found = images[place]
            # Smoothed by the resize, so not equal; but never as close when turned.
            right, *turned = (
                np.corrcoef(other[found > -300], expected[found > -300])[0, 1]
                for other in (found, found[::-1], found[:, ::-1], found.T)
            )
            assert right > max(0.7, max(turned) + 0.2)
            kidney = in_the_frame(labels[row["slice"]], row, 0) == 1
            assert np.count_nonzero(kidney != (masks[place] == 1)) <= 0.2 * np.count_nonzero(kidney)
            compared += 1
    assert compared


def test_a_mixed_folder_comes_out_in_the_unit_range(mixed):
    for split in ("train", "validation", "test"):
        images = np.load(mixed.folder / f"data/normalized/{split}_images.npy")
        rows = pd.read_csv(mixed.folder / f"data/slices/{split}.csv")
        assert images.shape == (len(rows), 64, 64)
        assert images.min() >= 0
        assert images.max() <= 1
    regions = json.loads((mixed.folder / "data/normalized/regions.json").read_text())
    assert set(regions) == {"left", "right"}


def test_a_part_without_a_chosen_slice_is_refused_by_select(tmp_path):
    project = Project.copy_to(tmp_path / "project")
    for number in range(6):
        labels = tiny_labels()
        if number:
            labels[labels > 0] = 0 if number > 1 else 1  # one case with a tumor, one with kidneys, the rest empty
        write(tmp_path / f"volumes/case_{number:05d}/segmentation.nii.gz", labels)
        imaging = own(tiny_imaging(labels), f"case_{number:05d}")
        write(tmp_path / f"volumes/case_{number:05d}/imaging.nii.gz", imaging)
    project.change({"data.source": "directory", "data.root": str(tmp_path / "volumes"), "data.folds": 2})
    project.change({"select.min_tumor_px": 20})
    assert project.stage("download").returncode == 0
    ended = project.stage("select")
    assert ended.returncode == 1
    assert re.search(r"^error: the (train|validation|test) cases \(.*\) have no slice", ended.stderr, re.MULTILINE)
    assert not (project.folder / "data/index/selection.csv").exists()
