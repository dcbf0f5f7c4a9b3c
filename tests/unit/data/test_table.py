"""Tables of labelled images: what is read, what is refused in one line, and what becomes of an image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from kidney_ssl.config import Params
from kidney_ssl.data import manifest
from kidney_ssl.data.arrays import load_rows
from kidney_ssl.data.body import Frame
from kidney_ssl.data.normalization import normalise_store
from kidney_ssl.data.selection import classify, select, slice_rows
from kidney_ssl.data.slices import store_slices
from kidney_ssl.data.table import Images, read_image, read_table, scan_table
from kidney_ssl.errors import InputError
from kidney_ssl.yamlfile import read_yaml
from stages.source import listing

ROOT = Path(__file__).parents[3]
HEAD = "path,case,label"
SPLITTING: dict[str, Any] = {
    "min_tumor_px": 1,
    "folds": 3,
    "fold": 0,
    "validation": 0.4,
    "split_seed": 0,
    "draw_seed": 0,
}


def written(folder: Path, *lines: str) -> Path:
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def drawn(path: Path, pixels: Any, dtype: type = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype)).save(path)
    return path


def refused(work: Callable[[], Any]) -> tuple[Any, str]:
    """What comes out and "", or None and the error's text."""
    try:
        return work(), ""
    except InputError as error:
        return None, str(error)


def images_of(folder: Path, accept: tuple[str, ...] = ()) -> Images:
    """The reader of a table's cases, after the way through the manifest."""
    rows, patients = scan_table(folder, None, [], workers=1)
    manifest.write_manifest(folder / "manifest.csv", rows)
    whose = dict(zip(patients["case"], patients["patient"], strict=True))
    return Images(folder, manifest.by_case(folder / "manifest.csv"), accept, whose)


def test_rows_are_read_in_any_order_of_columns_and_blank_lines_are_left_out(tmp_path: Path) -> None:
    written(tmp_path, "Split,label,path,CASE, patient ", "train,1,./a/x.PNG,case_1,p 1", "", "test,0,y.jpeg,case_2,p2")
    first, second = read_table(tmp_path)
    assert (first.path, first.case, first.label, first.patient, first.split) == ("a/x.PNG", "case_1", 1, "p 1", "train")
    assert (second.path, second.patient, second.split) == ("y.jpeg", "p2", "test")


def test_without_patients_and_splits_each_case_is_a_patient_and_other_columns_are_named(tmp_path: Path) -> None:
    written(tmp_path, f"{HEAD},age", "x.png,case_1,1,70")
    with pytest.warns(UserWarning, match="columns that are not read: age"):
        (entry,) = read_table(tmp_path)
    assert (entry.patient, entry.split) == ("case_1", "")


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ([], "first row must name the columns path, case, label"),
        (["path,case"], "first row must name"),
        (["path,case,label,label", "x.png,case_1,1,1"], "first row must name"),
        ([HEAD], "lists no image"),
        ([HEAD, "x.png,case_1"], "row 2: 2 fields for 3 columns"),
        ([HEAD, '"x.png,case_1,1'], "no table in UTF-8"),
        ([HEAD, "../x.png,case_1,1"], "row 2: '../x.png' is no path inside"),
        ([HEAD, "a/../../x.png,case_1,1"], "is no path inside"),
        ([HEAD, "/x.png,case_1,1"], "is no path inside"),
        ([HEAD, "a\\x.png,case_1,1"], "is no path inside"),
        ([HEAD, ",case_1,1"], "row 2"),
        ([HEAD, "x.tif,case_1,1"], "is no image that can be read"),
        ([HEAD, "x.png,Case 1,1"], "no name of a case"),
        ([HEAD, "x.png,,1"], "no name of a case"),
        ([HEAD, "x.png,case_1,"], "the label of x.png must be 0 or 1, got ''"),
        ([HEAD, "x.png,case_1,benign"], "must be 0 or 1, got 'benign'"),
        ([HEAD, "x.png,case_1,1.0"], "must be 0 or 1, got '1.0'"),
        ([HEAD, "x.png,case_1,2"], "must be 0 or 1, got '2'"),
        ([HEAD, "x.png,case_1,1", "y.png,case_2,0", "./x.png,case_3,1"], "row 4: x.png is listed twice"),
        ([f"{HEAD},patient", "x.png,case_1,1,"], "x.png has no patient"),
        ([f"{HEAD},patient", "x.png,case_1,1,a", "y.png,case_1,1,b"], "case_1 has two patients, a and b"),
        ([f"{HEAD},split", "x.png,case_1,1,"], "the split of x.png must be train, validation, test, got ''"),
        ([f"{HEAD},split", "x.png,case_1,1,dev"], "got 'dev'"),
        (
            [f"{HEAD},patient,split", "x.png,case_1,1,a,train", "y.png,case_2,1,a,test"],
            "row 3: patient a is in two splits, train and test",
        ),
    ],
)
def test_a_faulty_table_is_one_line_that_names_the_row(lines: list[str], match: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=match) as caught:
        read_table(written(tmp_path, *lines))
    assert str(caught.value).startswith(str(tmp_path / "table.csv"))
    assert "\n" not in str(caught.value)


def test_a_missing_table_and_text_in_another_encoding_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"table\.csv: cannot be read .*data\.root is the folder with it"):
        read_table(tmp_path)
    (tmp_path / "table.csv").write_bytes(f"{HEAD}\n\xfc.png,case_1,1\n".encode("latin-1"))
    with pytest.raises(InputError, match="no table in UTF-8"):
        read_table(tmp_path)


@settings(max_examples=200)
@given(st.lists(st.lists(st.text(max_size=12), max_size=5), max_size=4))
def test_any_text_is_read_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, fields: Any) -> None:
    folder = written(tmp_path_factory.mktemp("any"), HEAD)
    text = "\n".join(",".join(row) for row in fields)
    (folder / "table.csv").write_bytes(f"{HEAD}\n{text}".encode("utf-8", "surrogatepass"))
    paths, said = refused(lambda: [entry.path for entry in read_table(folder)])
    assert said.isprintable()
    assert all((folder / path).resolve().is_relative_to(folder.resolve()) for path in paths or ())


def test_missing_images_are_listed_together(tmp_path: Path) -> None:
    drawn(tmp_path / "b.png", [[0, 1]])
    written(tmp_path, HEAD, "a.png,case_1,1", "b.png,case_2,0", "c.png,case_3,0")
    with pytest.raises(InputError, match=r"2 bad case\(s\): case_1: .*a\.png.*; case_3: .*c\.png"):
        scan_table(tmp_path, None, [], workers=1)
    rows, patients = scan_table(tmp_path, None, ["case_1", "case_3"], workers=1)
    assert [(row.file, row.label) for row in rows] == [("b.png", 0)]
    assert patients.to_dict("list") == {"case": ["case_2"], "patient": ["case_2"]}


def test_grey_values_are_those_of_the_file_and_colors_become_their_luma(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    eight, sixteen = (generator.integers(0, 1 << bits, (5, 7)) for bits in (8, 16))
    assert np.array_equal(read_image(drawn(tmp_path / "8.png", eight)), eight)
    deep = read_image(drawn(tmp_path / "16.png", sixteen, np.uint16))
    assert deep.dtype == np.uint16
    assert np.array_equal(deep, sixteen)
    same = np.repeat(eight[..., None], 3, 2)
    assert np.array_equal(read_image(drawn(tmp_path / "grey.png", same)), eight)
    colors = generator.integers(0, 256, (5, 7, 3))
    expected = colors @ [0.299, 0.587, 0.114]
    assert np.abs(read_image(drawn(tmp_path / "rgb.png", colors)) - expected).max() <= 1
    jpeg = read_image(drawn(tmp_path / "smooth.jpg", np.add.outer(np.arange(64), np.arange(64))))
    assert np.abs(jpeg - np.add.outer(np.arange(64.0), np.arange(64.0))).max() <= 3


@settings(max_examples=150)
@given(st.data())
def test_a_damaged_image_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = drawn(tmp_path_factory.mktemp("mutated") / "x.png", np.arange(256).reshape(16, 16))
    if data.draw(st.booleans()):
        Image.open(path).convert("RGB").save(path, format="JPEG")
    content = bytearray(path.read_bytes()[: data.draw(st.integers(0, 400))])
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    image, said = refused(lambda: read_image(path))
    assert said.startswith(str(path)) if image is None else image.dtype == np.uint16
    assert said.isprintable()


def test_moving_pictures_and_other_formats_are_refused(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), value) for value in (0, 255)]
    frames[0].save(tmp_path / "two.png", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="several pictures"):
        read_image(tmp_path / "two.png")
    frames[0].save(tmp_path / "x.png", format="GIF")
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_image(tmp_path / "x.png")


def test_images_of_any_size_are_padded_to_a_square_and_resized_and_no_pixel_is_labelled(tmp_path: Path) -> None:
    tall, deep = np.full((80, 40), 200), np.full((64, 64), 60_000)
    drawn(tmp_path / "a.png", tall)
    drawn(tmp_path / "b.png", deep, np.uint16)
    reader = images_of(written(tmp_path, HEAD, "b.png,case_1,0", "a.png,case_1,1"))
    areas, _ = reader.areas("case_1", tmp_path)
    assert not areas.any()
    assert reader.labels_of("case_1") == [1, 0]  # in the order of paths, not of rows
    rows = slice_rows("case_1", areas, (1.0, 1.0, 1.0), reader.block("case_1")).assign(split="train", label=[1, 0])
    store_slices(
        rows.assign(**{"class": classify(rows, 1)}),
        reader.volumes,
        tmp_path / "slices",
        frame=Frame(32, None, 6.0),
        parts=tmp_path / "parts",
        fingerprints={"case_1": reader.fingerprint("case_1")},
        workers=1,
    )
    images = np.load(tmp_path / "slices/train_images.npy")
    assert images.dtype == np.uint16
    assert np.array_equal(images[1], np.full((32, 32), 60_000))
    assert np.array_equal(images[0, 4:-4, 10:22], np.full((24, 12), 200))
    assert not images[0, :, :7].any()
    assert not images[0, :, -7:].any()
    assert not np.load(tmp_path / "slices/train_masks.npy").any()
    table = load_rows(tmp_path / "slices/train.csv")
    assert table["class"].tolist() == ["tumor", "background"]
    assert table["body_mm2"].tolist() == [3200, 4096]
    folders = (tmp_path / "slices", tmp_path / "normalized")
    found = normalise_store(*folders, others={}, fixed=None, mode="window", masks=False)
    assert found["window"] == np.percentile(images, [0.5, 99.5]).tolist()
    assert found["source"] == "all training pixels"
    assert np.load(tmp_path / "normalized/train_images.npy").max() == 1


def test_the_same_image_of_two_patients_is_refused_and_of_one_it_is_noted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        drawn(tmp_path / f"{name}.png", [[1, 2], [3, 4]])
    written(tmp_path, HEAD, "a.png,case_1,1", "b.png,case_2,1")
    with pytest.raises(InputError, match=r"a\.png and b\.png have the same imaging .*data\.accept: \[copies\]"):
        images_of(tmp_path).areas("case_1", tmp_path)
    assert images_of(tmp_path, accept=("copies",)).areas("case_1", tmp_path)
    written(tmp_path, f"{HEAD},patient", "a.png,case_1,1,p", "b.png,case_2,1,p")
    assert images_of(tmp_path).areas("case_1", tmp_path)


def table_of_slices(labels: list[int], **columns: Any) -> pd.DataFrame:
    """A slice of each case, without any mask."""
    rows = [slice_rows(f"case_{n:02d}", np.zeros((1, 4), int), (1, 1, 1), "other") for n in range(len(labels))]
    return pd.concat(rows, ignore_index=True).assign(label=labels, **columns)


def test_all_images_are_chosen_and_both_labels_are_in_every_part() -> None:
    labels = [1, 0, 0, 0, 0] * 9
    chosen, cases, figures = select(table_of_slices(labels), **SPLITTING)
    assert chosen["label"].tolist() == labels
    assert chosen["class"].map({"tumor": 1, "background": 0}).tolist() == labels
    assert chosen.groupby("split")["label"].nunique().to_dict() == {"test": 2, "train": 2, "validation": 2}
    assert len(cases) == figures["chosen_total"] == len(labels)


def test_the_tables_split_is_taken_and_a_part_of_one_label_is_refused() -> None:
    split = ["train", "train", "validation", "validation", "test", "test"]
    chosen, cases, _ = select(table_of_slices([0, 1] * 3, split=split), **SPLITTING)
    assert chosen["split"].tolist() == cases["split"].tolist() == split
    with pytest.raises(InputError, match=r"data\.fold: 1: table\.csv says the split"):
        select(table_of_slices([0, 1] * 3, split=split), **SPLITTING | {"fold": 1})
    with pytest.raises(InputError, match="only label 0 in the test part"):
        select(table_of_slices([0, 1, 0, 1, 0, 0], split=split), **SPLITTING)
    with pytest.raises(InputError, match="no image in the validation part"):
        select(table_of_slices([0, 1] * 3, split=["train"] * 4 + ["test"] * 2), **SPLITTING)
    with pytest.raises(InputError, match="only label 0 in the train part"):
        select(table_of_slices([0] * 9), **SPLITTING)


def test_a_changed_table_or_image_is_seen_by_the_stage_source(tmp_path: Path) -> None:
    content = read_yaml((ROOT / "studies/table.yaml").read_text())
    content["data"]["root"] = str(tmp_path)
    drawn(tmp_path / "a" / "x.png", [[0, 1]])
    written(tmp_path, HEAD, "a/x.png,case_1,1")
    files = [line.split(",")[0] for line in listing(Params.model_validate(content).data).splitlines()[1:]]
    assert files == ["table.csv", "a/x.png"]


@pytest.mark.parametrize(
    ("block", "value", "match"),
    [
        ("pretrain.methods.vicreg.method", "oracle", r"pretrain\.methods\.vicreg: oracle reads masks"),
        ("pretrain.methods.vicreg.method", "inpaint_kidney", r"inpaint_kidney needs regions: give normalize\.regions"),
        ("pretrain.methods.vicreg.method", "inpaint_switch", r"inpaint_switch needs regions"),
        ("arms.unsupervised.augmentation", "supervised", r"arms\.unsupervised\.augmentation: supervised reads masks"),
        ("arms.unsupervised.options", {}, r"arms\.unsupervised\.augmentation: unsupervised protects regions"),
        ("analysis.primary", "auroc_against_kidney", r"analysis\.primary: data\.source: table has no masks"),
        ("data.patients", "^(c)", r"patients must be null"),
        ("data.root", None, "root must name a folder"),
    ],
)
def test_what_needs_masks_is_refused_in_a_line_that_names_the_key(block: str, value: object, match: str) -> None:
    content = read_yaml((ROOT / "studies/table.yaml").read_text())
    assert Params.model_validate(content)
    *keys, last = block.split(".")
    place = content
    for key in keys:
        place = place[key]
    place[last] = value
    with pytest.raises(ValidationError, match=match):
        Params.model_validate(content)
    content["normalize"]["regions"]["organ"] = [0.2, 0.8, 0.2, 0.8]
    if value in ("inpaint_kidney", {}):
        assert Params.model_validate(content)
