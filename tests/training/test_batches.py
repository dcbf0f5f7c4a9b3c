"""Batches: each row once, the same order everywhere, the same pixels from map and memory."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kidney_ssl.errors import InputError
from kidney_ssl.training.batches import (
    Slices,
    batches_per_epoch,
    case_batches,
    epoch_batches,
    free_bytes,
    ordered_batches,
    read_part,
    seeded,
)

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
    np.save(tmp_path / "i.npy", images)
    mapped = np.load(tmp_path / "i.npy", mmap_mode="r")
    labels = np.arange(301) % 2
    index = torch.tensor([2, 0])
    given_rows = np.arange(301) if rows is None else rows
    for resident in ("always", "never", "auto"):
        slices = Slices(mapped, labels, device=CPU, resident=resident, rows=rows)
        batch = slices.batch(index)
        assert len(slices) == len(given_rows)
        assert batch.images.dtype == torch.float32
        assert np.array_equal(batch.images.numpy()[:, 0], images[given_rows[[2, 0]]])
        assert batch.labels.tolist() == labels[given_rows[[2, 0]]].tolist()
        assert batch.rows.tolist() == given_rows[[2, 0]].tolist()


def test_auto_holds_what_fits_into_half_of_free_memory(monkeypatch):
    images = np.zeros((4, 8, 8), np.float16)
    assert free_bytes(CPU) > 1 << 20
    for free, held in ((2 * images.nbytes, True), (2 * images.nbytes - 2, False)):
        monkeypatch.setattr("kidney_ssl.training.batches.free_bytes", lambda _, free=free: free)
        assert (Slices(images, np.zeros(4), device=CPU)._held is not None) == held


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


@settings(deadline=None, max_examples=200)
@given(slices=CASES, size=st.integers(2, 20), seed=st.integers(0, 2**32 - 1))
def test_batches_for_contrast_hold_a_case_once_where_the_cases_allow_it(slices, size, seed):
    cases = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(slices)), slices)).astype(str)
    assume(len(cases) >= 2)
    batches = case_batches(cases, size, torch.Generator().manual_seed(seed))
    dealt = torch.cat(batches).tolist()
    sizes = [len(batch) for batch in batches]
    assert len(batches) == math.ceil(len(cases) / size)
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert len(set(dealt)) == len(dealt)
    if len(slices) < size or max(slices) <= len(batches):
        assert sorted(dealt) == list(range(len(cases)))
    else:  # a larger case gives one slice to every batch, the others all they have
        assert np.unique(cases[dealt], return_counts=True)[1].sum() == np.minimum(slices, len(batches)).sum()
    if len(slices) >= size:
        for batch in batches:
            assert len(set(cases[batch.numpy()])) == len(batch)
    else:  # spread as evenly as it can be
        for batch in batches:
            counts = np.unique(cases[batch.numpy()], return_counts=True)[1]
            assert counts.max() <= math.ceil(max(slices) / len(batches))


def test_the_generator_decides_batches_for_contrast_and_which_slices_of_a_large_case_take_part():
    cases = np.repeat(["large", "b", "c", "d"], [30, 3, 3, 3])

    def dealt(epoch):
        return case_batches(cases, 4, seeded(1, "order", epoch))

    assert all(torch.equal(*pair) for pair in zip(dealt(0), dealt(0), strict=True))
    epochs = [torch.cat(dealt(epoch)) for epoch in range(30)]
    assert not torch.equal(epochs[0], epochs[1])
    assert all((rows < 30).sum() == 10 for rows in epochs)  # as many as there are batches
    assert set(torch.cat(epochs).tolist()) == set(range(39))
    single = np.array([f"case_{number}" for number in range(12)])
    together = {
        tuple(sorted(batch.tolist()))
        for epoch in range(30)
        for batch in case_batches(single, 4, seeded(epoch, "order"))
    }
    assert len(together) > 30  # other cases meet in each epoch


def test_one_slice_is_too_few_for_contrast():
    with pytest.raises(InputError, match="too few"):
        case_batches(np.array(["a"]), 8, torch.Generator())
