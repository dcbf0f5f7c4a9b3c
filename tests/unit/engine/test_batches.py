"""Batches: each row once, the same order everywhere, the same pixels from map and memory."""

import math
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from kidney_ssl.engine.batches import (
    Part,
    Slices,
    batches_per_epoch,
    case_batches,
    epoch_batches,
    ordered_batches,
    read_part,
    seeded,
)
from kidney_ssl.engine.device_array import DeviceArray, free_bytes, one_ahead
from kidney_ssl.errors import InputError

CPU = torch.device("cpu")


@given(count=st.integers(2, 200), size=st.integers(2, 70), seed=st.integers(0, 2**32 - 1))
def test_an_epoch_covers_each_row_once_and_no_batch_is_of_one(count, size, seed):
    batches = epoch_batches(count, size, torch.Generator().manual_seed(seed))
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert all(2 <= len(batch) <= size + 1 for batch in batches)
    assert all(len(batch) == size for batch in batches[:-1])
    assert len(batches) == batches_per_epoch(count, size)


@given(count=st.integers(2, 200), size=st.integers(8, 70), least=st.integers(2, 8), seed=st.integers(0, 9))
def test_no_batch_has_fewer_rows_than_there_are_processes(count, size, least, seed):
    batches = epoch_batches(count, size, torch.Generator().manual_seed(seed), least=least)
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert all(min(least, count) <= len(batch) < size + least for batch in batches)
    assert len(batches) == batches_per_epoch(count, size, least=least)


def test_the_generator_decides_the_order():
    first, same, other = (torch.cat(epoch_batches(50, 8, seeded(1, "order", epoch))) for epoch in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert not torch.equal(first, torch.arange(50))


def test_streams_of_one_seed_differ_and_leave_global_state():
    before = torch.get_rng_state()
    draws = {torch.rand(1, generator=seeded(*key)).item() for key in [(0, "a"), (0, "b"), (1, "a"), (0, "a", 0)]}
    assert len(draws) == 4
    assert torch.equal(before, torch.get_rng_state())


def test_one_training_slice_is_refused():
    with pytest.raises(InputError, match="too few"):
        epoch_batches(1, 8, torch.Generator())


def test_evaluation_keeps_the_order():
    assert torch.equal(torch.cat(ordered_batches(torch.arange(7), 3)), torch.arange(7))


@pytest.mark.parametrize("rows", [None, np.array([5, 1, 300])])
def test_held_and_mapped_slices_give_the_same_batches(tmp_path, rows):
    images = np.random.default_rng(0).random((301, 4, 4)).astype(np.float16)
    masks = np.random.default_rng(1).integers(0, 4, images.shape).astype(np.uint8)
    for name, array in (("i", images), ("m", masks)):
        np.save(tmp_path / f"{name}.npy", array)
    labels = np.arange(301) % 2
    part = Part(
        np.load(tmp_path / "i.npy", mmap_mode="r"),
        pd.DataFrame({"label": labels}),
        np.load(tmp_path / "m.npy", mmap_mode="r"),
    )
    given_rows = np.arange(301) if rows is None else rows
    for resident in ("always", "never", "auto"):
        slices = Slices(part, device=CPU, resident=resident)
        slices = slices if rows is None else slices.subset(rows)
        assert len(slices) == len(given_rows)
        found = list(slices.batches([torch.tensor([2, 0]), torch.tensor([1])]))
        assert [len(batch.images) for batch in found] == [2, 1]
        for batch, chosen in zip(found, (given_rows[[2, 0]], given_rows[[1]]), strict=True):
            assert batch.images.dtype == torch.float32
            assert np.array_equal(batch.images.numpy()[:, 0], images[chosen])
            assert np.array_equal(batch.masks.numpy(), masks[chosen])
            assert batch.labels.tolist() == labels[chosen].tolist()
            assert batch.rows.tolist() == chosen.tolist()


def test_a_subset_counts_rows_of_the_part_and_shares_what_is_in_memory():
    frame = pd.DataFrame({"case": list("abcdef"), "label": [0, 1, 0, 1, 0, 1]})
    whole = Slices(Part(np.arange(6, dtype=np.float16).reshape(6, 1, 1), frame), device=CPU, resident="always")
    part = whole.subset(np.array([5, 2, 1]))
    again = part.subset(np.array([1, 4]))  # 4 is a row of the part, though not of these slices
    assert part.images is again.images is whole.images
    assert again.batch(torch.tensor([0, 1])).images.flatten().tolist() == [1, 4]
    assert again.frame["case"].tolist() == ["b", "e"]
    assert again.labels.tolist() == [1, 0]
    assert len(whole) == 6
    assert whole.labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_a_mapped_batch_is_read_while_the_one_before_is_used():
    read, used = [], threading.Event()

    def note(batch):
        read.append(int(batch))
        if int(batch) == 1:
            used.set()
        return batch

    batches = one_ahead(note, [torch.tensor(number) for number in range(4)])
    assert int(next(batches)) == 0
    assert used.wait(60)  # the second one is read though nobody has asked for it
    assert [int(batch) for batch in batches] == [1, 2, 3]
    assert read == [0, 1, 2, 3]


def test_an_error_in_reading_a_mapped_batch_arrives_where_it_is_used():
    def fail(batch):
        raise OSError(f"batch {int(batch)}")

    with pytest.raises(OSError, match="batch 0"):
        next(one_ahead(fail, [torch.tensor(0)]))


def test_auto_holds_what_fits_into_half_of_free_memory(monkeypatch):
    images = np.zeros((4, 8, 8), np.float16)
    assert free_bytes(CPU) > 1 << 20
    for free, held in ((2 * images.nbytes, True), (2 * images.nbytes - 2, False)):
        monkeypatch.setattr("kidney_ssl.engine.device_array.free_bytes", lambda _, free=free: free)
        assert (DeviceArray(images, CPU).held is not None) == held


def test_arrays_that_do_not_match_their_rows_are_refused(tmp_path):
    pd.DataFrame({"case": ["00001"], "slice": [3]}).to_csv(tmp_path / "f.csv", index=False)
    np.save(tmp_path / "i.npy", np.zeros((1, 4, 4), np.float16))
    assert read_part(tmp_path / "i.npy", tmp_path / "f.csv").frame["case"].tolist() == ["00001"]
    np.save(tmp_path / "i.npy", np.zeros((2, 4, 4), np.float16))
    with pytest.raises(InputError, match="for 1 rows"):
        read_part(tmp_path / "i.npy", tmp_path / "f.csv")
    (tmp_path / "i.npy").write_bytes(b"cut")
    with pytest.raises(InputError, match="cannot be read"):
        read_part(tmp_path / "i.npy", tmp_path / "f.csv")


def test_masks_are_read_where_they_are_asked_for_and_refused_where_they_do_not_fit(tmp_path):
    images, frame, masks = tmp_path / "i.npy", tmp_path / "f.csv", tmp_path / "m.npy"
    pd.DataFrame({"case": ["00001", "00001"], "slice": [3, 4]}).to_csv(frame, index=False)
    np.save(images, np.zeros((2, 4, 4), np.float16))
    np.save(masks, np.arange(32, dtype=np.uint8).reshape(2, 4, 4))
    assert read_part(images, frame).masks is None
    found = read_part(images, frame, masks).masks
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, np.load(masks))
    np.save(masks, np.zeros((1, 4, 4), np.uint8))
    with pytest.raises(InputError, match=r"m.npy: holds \(1, 4, 4\) for images of \(2, 4, 4\); run `dvc repro"):
        read_part(images, frame, masks)
    masks.unlink()
    with pytest.raises(InputError, match=r"m.npy: cannot be read .*; run `dvc repro slice`"):
        read_part(images, frame, masks)


CASES = st.lists(st.integers(1, 12), min_size=1, max_size=25)  # slices of each case


@given(slices=CASES, size=st.integers(2, 20), seed=st.integers(0, 2**32 - 1))
def test_batches_for_contrast_hold_every_slice_once_and_those_of_a_case_far_apart(slices, size, seed):
    cases = np.repeat([f"case_{number}" for number in range(len(slices))], slices)
    assume(len(cases) >= 2)
    batches = case_batches(cases, size, torch.Generator().manual_seed(seed))
    assert sorted(torch.cat(batches).tolist()) == list(range(len(cases)))
    sizes = [len(batch) for batch in batches]
    assert len(batches) == math.ceil(len(cases) / size)
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    for batch in batches:
        for case in np.unique(cases):
            rows = np.sort(batch.numpy()[cases[batch.numpy()] == case])
            share = (cases == case).sum() / len(batches)
            assert math.floor(share) <= len(rows) <= math.ceil(share)
            assert (np.diff(rows) >= len(batches)).all()


def test_batches_for_contrast_do_not_ask_for_cases_in_one_piece():
    # Patients with several scans: their rows stand apart.
    cases = np.array(["a", "b", "a", "c", "b", "a", "c", "a"])
    batches = case_batches(cases, 2, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(batches).tolist()) == list(range(8))
    assert all(len(set(cases[batch.numpy()])) == 2 for batch in batches)


def test_the_generator_decides_batches_for_contrast_and_other_slices_meet_in_each_epoch():
    cases = np.repeat(["large", "b", "c", "d"], [30, 3, 3, 3])

    def dealt(epoch):
        return case_batches(cases, 4, seeded(1, "order", epoch))

    assert all(torch.equal(*pair) for pair in zip(dealt(0), dealt(0), strict=True))
    # Of 10 batches each has three slices of the large case, 10 or 20 apart, and in other batches each time.
    places = [[number for number, batch in enumerate(dealt(epoch)) if 0 in batch.tolist()] for epoch in range(60)]
    assert {place for (place,) in places} == set(range(10))
    single = np.repeat([f"case_{number}" for number in range(12)], 2)
    together = {
        tuple(sorted(batch.tolist()))
        for epoch in range(30)
        for batch in case_batches(single, 8, seeded(epoch, "order"))
    }
    assert len(together) > 80  # 90 batches


def test_one_slice_is_too_few_for_contrast():
    with pytest.raises(InputError, match="too few"):
        case_batches(np.array(["a"]), 8, torch.Generator())
