"""The run store: the key, and that what comes out is what went in, whole or not at all."""

import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
import warnings

import pytest

from kidney_ssl.engine import claims
from kidney_ssl.engine.claims import claim, claim_or_refuse, claimed
from kidney_ssl.engine.store import ENTRY, RunStore, place_file, store_key
from kidney_ssl.errors import InputError

CODE = {"kidney_ssl.finetune": "aa", "kidney_ssl.engine.loop": "bb"}
PARAMETERS = {"network": "resnet18", "seed": 0, "percent": 100, "finetune": {"epochs": 2, "learning_rates": [0.1, 0.2]}}
INPUTS = {"weights": "11", "train_images": "22"}
MUTANTS = [
    ("pretrain", CODE, PARAMETERS, INPUTS),
    ("finetune", CODE | {"kidney_ssl.engine.loop": "bc"}, PARAMETERS, INPUTS),
    ("finetune", CODE | {"kidney_ssl.engine.batches": "cc"}, PARAMETERS, INPUTS),
    ("finetune", CODE, PARAMETERS | {"seed": 1}, INPUTS),
    ("finetune", CODE, PARAMETERS | {"percent": 10}, INPUTS),
    ("finetune", CODE, PARAMETERS | {"finetune": {"epochs": 2, "learning_rates": [0.2, 0.1]}}, INPUTS),
    ("finetune", CODE, PARAMETERS | {"threads": 2}, INPUTS),
    ("finetune", CODE, PARAMETERS, INPUTS | {"weights": "12"}),
    ("finetune", CODE, PARAMETERS, {"weights": "22", "train_images": "11"}),
]


@pytest.fixture
def store(tmp_path):
    return RunStore(tmp_path / "store", limit_gb=1)


def into(folder):
    return lambda name: folder / name


def put(store, key, **files):
    made = store.workspace(key)
    for name, content in files.items():
        (made / name).write_bytes(content)
    store.add(key, made, {"label": key})


def test_a_key_does_not_depend_on_the_order_of_what_it_hashes():
    turned = dict(reversed(PARAMETERS.items()))
    assert store_key("finetune", dict(reversed(CODE.items())), turned, INPUTS) == store_key(
        "finetune", CODE, PARAMETERS, INPUTS
    )


@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_change_of_kind_code_parameters_or_inputs_changes_the_key(mutant):
    assert store_key(*mutant) != store_key("finetune", CODE, PARAMETERS, INPUTS)


def test_another_version_of_a_library_changes_the_key(monkeypatch):
    before = store_key("finetune", CODE, PARAMETERS, INPUTS)
    monkeypatch.setattr("kidney_ssl.engine.store.version", lambda name: f"{name} of tomorrow")
    assert store_key("finetune", CODE, PARAMETERS, INPUTS) != before


def test_what_was_added_is_collected_with_the_same_bytes(store, tmp_path):
    put(store, "a", model=b"weights", curves=b"1,2")
    assert store.has("a")
    assert store.collect("a", into(tmp_path / "out"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        "model": b"weights",
        "curves": b"1,2",
    }


def test_a_part_of_the_files_is_collected_when_asked(store, tmp_path):
    put(store, "a", model=b"weights", curves=b"1,2")
    store.collect("a", lambda name: tmp_path / "out" / name if name == "curves" else None)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["curves"]


def test_what_lacks_a_wanted_file_does_not_count_as_there(store):
    put(store, "a", curves=b"1,2")
    assert store.has("a")
    assert not store.has("a", needs=["model"])


@pytest.mark.parametrize("damage", ["longer", "other", "absent", "no entry", "torn entry"])
def test_a_damaged_training_is_not_given_out(store, tmp_path, damage):
    put(store, "a", model=b"weights")
    folder = store.path("a")
    (folder / "model").chmod(0o644)
    match damage:
        case "longer":
            (folder / "model").write_bytes(b"weights!")
        case "other":
            (folder / "model").write_bytes(b"weighty")
        case "absent":
            (folder / "model").unlink()
        case "no entry":
            (folder / ENTRY).unlink()
        case "torn entry":
            (folder / ENTRY).write_bytes((folder / ENTRY).read_bytes()[:20])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not store.collect("a", into(tmp_path / "out"))
    assert not store.has("a")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    put(store, "a", model=b"weights")
    assert store.collect("a", into(tmp_path / "out"))


def test_a_training_that_was_cut_off_is_not_there(store):
    made = store.workspace("a")
    (made / "model").write_bytes(b"half")
    assert not store.has("a")


def test_checkpoints_go_when_the_training_is_added(store):
    made = store.workspace("a")
    for name in ("a.pt", "a.1.pt", "a.pt.part", "b.pt"):
        (store.folder / "unfinished" / name).write_bytes(b"state")
    store.add("a", made, {})
    assert [path.name for path in (store.folder / "unfinished").iterdir()] == ["b.pt"]


def test_a_file_that_is_linked_elsewhere_is_replaced_and_not_written_into(store, tmp_path):
    put(store, "a", model=b"new")
    cached, out = tmp_path / "cached", tmp_path / "out"
    cached.write_bytes(b"old")
    out.mkdir()
    os.link(cached, out / "model")
    store.collect("a", into(out))
    assert cached.read_bytes() == b"old"
    assert (out / "model").read_bytes() == b"new"


def test_a_file_is_copied_where_links_are_impossible(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    (tmp_path / "a").write_bytes(b"content")
    monkeypatch.setattr(os, "link", refuse)
    place_file(tmp_path / "a", tmp_path / "there" / "b")
    assert (tmp_path / "there" / "b").read_bytes() == b"content"


def test_the_size_is_bounded_and_what_was_unused_longest_goes_first(tmp_path):
    store = RunStore(tmp_path / "store", limit_gb=25e-9)
    for number, key in enumerate(["a", "b"]):
        put(store, key, model=b"0123456789")
        os.utime(store.path(key) / ENTRY, (number, number))
    store.collect("a", into(tmp_path / "out"))  # now b is unused longest
    put(store, "c", model=b"0123456789")
    assert [key for key in "abc" if store.has(key)] == ["a", "c"]


def test_what_the_running_study_needs_is_never_removed_for_its_size(tmp_path):
    store = RunStore(tmp_path / "store", limit_gb=15e-9)
    put(store, "a", model=b"0123456789")
    made = store.workspace("b")
    (made / "model").write_bytes(b"0123456789")
    with pytest.warns(UserWarning, match=r"compute\.store_gb"):
        store.add("b", made, {}, protect=["a", "b"])
    assert store.has("a")
    assert store.has("b")


def _race(folder, barrier, won):
    barrier.wait()
    held = claim(folder, "key", "race")
    won.put(held is not None)
    time.sleep(1)


def test_of_many_processes_one_gets_a_claim(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(6), context.Queue()
    racers = [context.Process(target=_race, args=(tmp_path, barrier, won)) for _ in range(6)]
    for racer in racers:
        racer.start()
    assert sorted(won.get(timeout=60) for _ in racers) == [False] * 5 + [True]
    for racer in racers:
        racer.join()


def test_a_claim_is_free_again_when_it_is_given_back(tmp_path):
    with claim(tmp_path, "key", "first"):
        assert claim(tmp_path, "key", "second") is None
        assert claimed(tmp_path)["key"]["label"] == "first"
    assert claimed(tmp_path) == {}
    assert claim(tmp_path, "key", "second") is not None


def test_a_killed_owner_on_this_machine_loses_its_claim_at_once(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
from kidney_ssl.engine.claims import claim
held = claim(Path({str(tmp_path)!r}), "key", "killed")
print("held", flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "held\n"
        assert claim(tmp_path, "key", "next") is None
        with pytest.raises(InputError, match=str(owner.pid)):
            claim_or_refuse(tmp_path, "key")
        owner.kill()
    assert claim(tmp_path, "key", "next") is not None


@pytest.mark.parametrize(("silent", "free"), [(1, False), (claims.LOST + 1, True)])
def test_an_owner_on_another_machine_loses_its_claim_when_its_heartbeat_stops(tmp_path, silent, free):
    path = tmp_path / "key.json"
    path.write_text(json.dumps({"host": f"not {socket.gethostname()}", "label": "far", "process": 1, "started": 0}))
    beat = time.time() - silent
    os.utime(path, (beat, beat))
    assert (claim(tmp_path, "key", "near") is not None) is free


def test_a_torn_claim_is_nobodys(tmp_path):
    (tmp_path / "key.json").write_text('{"host": ')
    assert claim(tmp_path, "key", "next") is not None


def test_a_store_that_is_deleted_is_made_again(store):
    put(store, "a", model=b"weights")
    shutil.rmtree(store.folder)
    assert not store.has("a")
    put(store, "a", model=b"weights")
    assert store.has("a")
