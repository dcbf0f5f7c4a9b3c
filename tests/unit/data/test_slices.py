"""The slice store: rows, resume by case, workers, errors by case."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kidney_ssl.data.arrays import load_array, load_rows
from kidney_ssl.data.body import Frame, standardise
from kidney_ssl.data.selection import select, slice_rows
from kidney_ssl.data.slices import store_slices
from kidney_ssl.errors import InputError
from kidney_ssl.schema import SPLITS

FRAME = Frame(size=32, body_hu=-300, opening_mm=3.0)


def volume_of(case: str) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(int(case.removeprefix("case_")))
    image = np.full((12, 40, 48), -1000, np.int16)
    image[:, 4:36, 6:42] = generator.integers(0, 100, (12, 32, 36))
    labels = np.zeros(image.shape, np.uint8)
    labels[2:9, 10:16, 10:16], labels[4:8, 12:18, 12:18] = 1, 2
    return image, labels


def read(case: str, *, log: Path | None = None, broken: tuple[str, ...] = ()) -> tuple:
    if case in broken:
        raise InputError(f"{case}/imaging.nii.gz: broken")
    if log is not None:
        with log.open("a") as file:
            file.write(f"{case}\n")
    image, labels = volume_of(case)
    return image, labels, (0.8, 0.8), ("odd HU",) if case == "case_00001" else ()


@pytest.fixture
def rows() -> pd.DataFrame:
    frames = []
    for number in range(6):
        _, labels = volume_of(f"case_{number:05d}")
        areas = np.stack([np.bincount(plane.ravel(), minlength=4) for plane in labels])
        frames.append(slice_rows(f"case_{number:05d}", areas, (5.0, 0.8, 0.8), "other"))
    slices = pd.concat(frames, ignore_index=True)
    selection, _, _ = select(slices, min_tumor_px=10, folds=3, fold=0, validation=0.25, split_seed=0, draw_seed=0)
    return selection.merge(slices, on=["case", "slice"])


def store(rows: pd.DataFrame, folder: Path, *, workers: int = 1, reader=read, scheduler: str | None = None) -> dict:
    return store_slices(
        rows,
        reader,
        folder / "slices",
        frame=FRAME,
        parts=folder / "parts",
        fingerprints=dict.fromkeys(rows["case"], "a"),
        workers=workers,
        scheduler=scheduler,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "slices").iterdir())}


def test_each_row_is_its_slice_in_the_frame(rows: pd.DataFrame, tmp_path: Path) -> None:
    assert store(rows, tmp_path) == {"case_00001": ("odd HU",)}
    stored = 0
    for split in SPLITS:
        images = load_array(tmp_path / "slices" / f"{split}_images.npy")
        masks = load_array(tmp_path / "slices" / f"{split}_masks.npy")
        described = load_rows(tmp_path / "slices" / f"{split}.csv")
        assert isinstance(images, np.memmap)
        assert (images.dtype, masks.dtype) == (np.int16, np.uint8)
        assert described[["case", "slice"]].equals(described.sort_values(["case", "slice"])[["case", "slice"]])
        for index, row in described.iterrows():
            image, labels = volume_of(row["case"])
            expected, mask, box, area, _ = standardise(image[row["slice"]], labels[row["slice"]], (0.8, 0.8), FRAME)
            assert np.array_equal(images[index], expected)
            assert np.array_equal(masks[index], mask)
            assert np.s_[row["top"] : row["bottom"], row["left"] : row["right"]] == box
            assert row["body_mm2"] == pytest.approx(area * 0.64)
        stored += len(described)
    assert stored == len(rows)


def test_tumor_histogram_holds_native_training_pixels_only(rows: pd.DataFrame, tmp_path: Path) -> None:
    store(rows, tmp_path)
    values = []
    for _, row in rows[rows["split"] == "train"].iterrows():
        image, labels = volume_of(row["case"])
        values.append(image[row["slice"]][labels[row["slice"]] == 2])
    hu, count = np.unique(np.concatenate(values), return_counts=True)
    histogram = load_rows(tmp_path / "slices" / "tumor_hu.csv").groupby("hu")["count"].sum()
    assert histogram.index.tolist() == hu.tolist()
    assert histogram.tolist() == count.tolist()


def outside(case: str, *, count: int) -> tuple:
    """A case with labelled pixels in the air of slice 4."""
    image, labels, *rest = read(case)
    labels[4, 0, :count] = 1
    return image, labels, *rest


def test_labels_that_the_body_does_not_hold_are_noted_or_refuse_the_case(rows: pd.DataFrame, tmp_path: Path) -> None:
    four = rows[(rows["case"] == "case_00000") & (rows["slice"] == 4)]
    assert len(four) == 1
    found = store(rows, tmp_path / "few", reader=partial(outside, count=1))
    assert found["case_00000"][0].startswith("1 of ")
    with pytest.raises(InputError, match=r"case_00000: 40 of \d+ labelled pixels lie outside the body; .*\[labels\]"):
        store(rows, tmp_path / "many", reader=partial(outside, count=40))
    accepted = store_slices(
        rows,
        partial(read, log=tmp_path / "log"),  # nothing is read again: parts do not know what is accepted
        tmp_path / "many" / "slices",
        frame=FRAME,
        parts=tmp_path / "many" / "parts",
        fingerprints=dict.fromkeys(rows["case"], "a"),
        workers=1,
        accept=["labels"],
    )
    assert accepted["case_00000"][0].endswith("outside the body (accepted)")
    assert not (tmp_path / "log").exists()


def emptied(case: str, *, slices: int) -> tuple:
    """A case whose first slices show nothing but air."""
    image, labels, *rest = read(case)
    image[:slices], labels[:slices] = -1000, 0
    return image, labels, *rest


def test_a_slice_without_a_body_is_noted(rows: pd.DataFrame, tmp_path: Path) -> None:
    taken = rows.loc[rows["case"] == "case_00000", "slice"]
    found = store(rows, tmp_path, reader=partial(emptied, slices=int(taken.min()) + 1))
    assert found["case_00000"] == (f"no body found in 1 of {len(taken)} slices, which are kept whole",)


@pytest.mark.parametrize(("chosen", "refused"), [(1, False), (9, False), (10, True)])
def test_a_case_without_a_body_is_refused_where_enough_slices_were_chosen_to_tell(
    rows: pd.DataFrame, tmp_path: Path, chosen: int, refused: bool
) -> None:
    of_case = rows[rows["case"] == "case_00000"].iloc[[0] * chosen].assign(slice=range(chosen))
    said = f"no body found in {chosen} of {chosen} slices, which are kept whole"
    if refused:
        with pytest.raises(InputError, match=rf"case_00000: {said}; .* slice\.body_opening_mm.*\[labels\]"):
            store(of_case, tmp_path, reader=partial(emptied, slices=12))
    else:
        assert store(of_case, tmp_path, reader=partial(emptied, slices=12)) == {"case_00000": (said,)}


def test_number_of_workers_changes_no_byte(rows: pd.DataFrame, tmp_path: Path) -> None:
    store(rows, tmp_path / "one")
    store(rows.sample(frac=1, random_state=0), tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_dask_cluster_gives_the_same_bytes(rows: pd.DataFrame, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="dask[distributed] is optional")
    store(rows, tmp_path / "one")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        store(rows, tmp_path / "two", scheduler=cluster.scheduler_address)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_all_bad_cases_are_listed_and_the_good_ones_are_not_done_again(rows: pd.DataFrame, tmp_path: Path) -> None:
    log = tmp_path / "log"
    broken = partial(read, log=log, broken=("case_00002", "case_00004"))
    with pytest.raises(InputError, match=r"^2 bad case.*case_00002.*broken; case_00004.*broken\..*data\.exclude"):
        store(rows, tmp_path, reader=broken)
    assert not (tmp_path / "slices").exists()
    store(rows, tmp_path, reader=partial(read, log=log))
    assert sorted(log.read_text().split()) == [f"case_{n:05d}" for n in range(6)]
    store(rows, tmp_path / "fresh")
    assert contents(tmp_path) == contents(tmp_path / "fresh")


def test_a_part_made_from_other_input_is_not_used_again(rows: pd.DataFrame, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(InputError):
        store(rows, tmp_path, reader=partial(read, broken=("case_00002",)))
    store_slices(
        rows,
        partial(read, log=log),
        tmp_path / "slices",
        frame=FRAME,
        parts=tmp_path / "parts",
        fingerprints=dict.fromkeys(rows["case"], "b"),
        workers=1,
    )
    assert len(log.read_text().split()) == 6


def test_a_split_without_slices_is_an_empty_array(rows: pd.DataFrame, tmp_path: Path) -> None:
    store(rows[rows["split"] != "validation"], tmp_path)
    assert load_array(tmp_path / "slices" / "validation_images.npy").shape == (0, 32, 32)


def test_no_scheduler_at_the_address_is_one_error(rows: pd.DataFrame, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="dask[distributed] is optional")
    with pytest.raises(InputError, match=r"compute\.scheduler"):
        store(rows, tmp_path, scheduler="nonsense://1")


@pytest.mark.parametrize("count", [0, 40])
def test_a_pool_is_images_and_rows_without_labels(rows: pd.DataFrame, tmp_path: Path, count: int) -> None:
    pool = pd.DataFrame([{"case": f"case_{n % 4:05d}", "slice": n // 4, "split": "pool"} for n in range(count)])
    pool = pool if count else rows.iloc[:0]
    found = store_slices(
        pool,
        read,
        tmp_path / "pool",
        frame=FRAME,
        parts=tmp_path / "parts",
        fingerprints={f"case_{number:05d}": "a" for number in range(4)},
        workers=1,
        splits=["pool"],
        masks=False,
    )
    assert found == ({"case_00001": ("odd HU",)} if count else {})
    assert sorted(path.name for path in (tmp_path / "pool").iterdir()) == [
        "pool.csv",
        "pool_images.npy",
        "pool_images.npy.sha256",
    ]
    images = load_array(tmp_path / "pool" / "pool_images.npy")
    described = load_rows(tmp_path / "pool" / "pool.csv")
    assert images.shape == (count, 32, 32)
    assert len(described) == count
    for index in range(0, count, 7):
        image, labels = volume_of(described["case"][index])
        number = described["slice"][index]
        expected, *_ = standardise(image[number], labels[number], (0.8, 0.8), FRAME)
        assert np.array_equal(images[index], expected)
