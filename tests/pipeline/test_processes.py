"""Two processes (gloo, on the CPU) against one with the joined batch; killed, by torchrun's and SLURM's environment."""

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch

from kidney_ssl.engine.batches import epoch_batches, seeded
from kidney_ssl.engine.device import make_fabric
from kidney_ssl.models.weights import random_weights, save_weights
from tests.pipeline.fake_srun import slurm
from tests.pipeline.two_processes import KNOWN, SIZE, TASKS, coupling, one_step, rows_of_two_epochs

ROOT = Path(__file__).parents[2]
TIED = 5e-6  # relative coupling of slices, an order of magnitude over rounding and under that of any contrast
OTHERS = ("SLURM", "TORCHELASTIC", "LOCAL_", "MASTER_", "RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_")


def started(job, folder, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.pipeline.two_processes", job, str(folder)],
        cwd=ROOT,
        env=kept | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_weights(folder):
    save_weights(random_weights("resnet18", 7), folder / "start.safetensors")


@pytest.fixture(scope="module")
def alone():
    return make_fabric("cpu", "32", 1)


@pytest.fixture(scope="module")
def step_alone(alone):
    """What `one_step` of a task gives in one process, computed once."""
    return cache(partial(one_step, alone))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each process found, started by one command as `dvc repro` starts a stage."""
    folder = tmp_path_factory.mktemp("two")
    start_weights(folder)
    process = started("steps", folder)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    found = [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]
    for rank in (0, 1):  # 1.3 GB each
        (folder / f"{rank}.pt").unlink()
    return [*found, folder]


@pytest.mark.parametrize("name", [name for name in TASKS if name != "resnet18_float32"])
def test_gradients_of_a_step_are_those_of_one_process_with_the_joined_batch(both, step_alone, name):
    expected = step_alone(name)["gradients"]
    assert SIZE % 2  # the shares differ in size
    for found in both[:2]:
        assert found[name]["gradients"].keys() == expected.keys()
        for key, gradient in expected.items():
            torch.testing.assert_close(found[name]["gradients"][key], gradient, atol=1e-5, rtol=0)


def test_relative_error_of_a_resnets_gradients_in_float32_is_that_of_rounding(both, step_alone):
    def flat(gradients):
        return torch.cat([gradients[key].flatten() for key in sorted(gradients)])

    expected = flat(step_alone("resnet18_float32")["gradients"])
    for found in both[:2]:
        # 5e-6 where this was written.
        error = flat(found["resnet18_float32"]["gradients"]) - expected
        assert error.norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("name", TASKS)
def test_loss_and_figures_are_those_of_the_joined_batch(both, step_alone, name):
    expected = step_alone(name)["figures"]
    for found in both[:2]:
        assert found[name]["figures"].keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[name]["figures"][key], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_running_statistics_are_those_of_the_joined_batch_and_layers_are_plain_again(both, step_alone, name):
    expected = step_alone(name)
    for found in both[:2]:
        assert found[name]["state"] == expected["state"]
        assert found[name]["classes"] == expected["classes"]
        for key, value in expected["buffers"].items():
            torch.testing.assert_close(found[name]["buffers"][key], value, atol=1e-5, rtol=1e-4)


def apart(both, name):
    """Names of the state that differs between the two processes after two steps."""
    first, second = (found["methods"][name]["state"] for found in both[:2])
    return [key for key, value in first.items() if not torch.equal(second[key], value)]


@pytest.mark.parametrize("name", [*KNOWN, "decorrelated"])
def test_every_method_trains_on_two_processes_and_stays_the_same_on_both(both, name):
    first, second = (found["methods"][name]["losses"] for found in both[:2])
    assert first == second
    assert all(math.isfinite(loss) for loss in first)
    assert not apart(both, name)


@pytest.mark.parametrize("name", [*KNOWN, "decorrelated"])
def test_what_ties_slices_in_one_process_ties_those_of_two(both, alone, name):
    expected = coupling(alone, name)
    assert [found["coupling"][name] > TIED for found in both[:2]] == [expected > TIED] * 2


def test_a_method_that_forgets_the_joined_batch_is_seen(both, alone):
    # Negatives or statistics of the batch: only its own share's.
    assert coupling(alone, "forgetful decorrelated") > TIED
    assert both[0]["coupling"]["forgetful decorrelated"] < TIED
    # What it keeps of the batches so far: each process has its own.
    assert apart(both, "forgetful queue") == ["method.queue"]
    assert apart(both, "forgetful centre") == ["method.centre"]


def test_each_slice_once_an_epoch_in_the_order_of_one_process(both):
    steps = [list(zip(both[0]["rows"]["rows"], both[1]["rows"]["rows"], strict=True))[at : at + 2] for at in (0, 2)]
    for epoch, pairs in enumerate(steps):
        dealt = epoch_batches(9, 4, seeded(0, "order", epoch))
        assert [first + second for first, second in pairs] == [rows.tolist() for rows in dealt]
        assert sorted(row for pair in pairs for rows in pair for row in rows) == list(range(9))
        assert all(abs(len(first) - len(second)) <= 1 for first, second in pairs)


def test_a_training_has_the_losses_of_one_process(both, alone, tmp_path):
    expected = rows_of_two_epochs(alone, tmp_path)["curves"]
    assert [row["train_loss"] for row in both[0]["rows"]["curves"]] == pytest.approx(
        [row["train_loss"] for row in expected], abs=1e-5
    )


def test_a_training_goes_on_from_its_checkpoint_with_the_same_bits(both):
    for found in both[:2]:
        unbroken, resumed = found["resumed"]
        assert resumed["curves"] == unbroken["curves"]
        for key, value in unbroken["weights"].items():
            assert torch.equal(resumed["weights"][key], value), key
    assert both[0]["resumed"][0]["saved"] == [(0, 1), (1, 0), (1, 1), (2, 0)]
    assert both[0]["resumed"][1]["saved"] == [(2, 0)]  # it began in the second epoch


def test_each_process_has_a_stream_of_its_own_for_each_step(both):
    streams = both[0]["resumed"][0]["streams"] + both[1]["resumed"][0]["streams"]
    assert len(set(streams)) == len(streams) == 2 * 4


def test_the_first_process_alone_decides_and_writes(both):
    first, second, folder = both
    assert [row["rank"] for row in second["rows"]["curves"]] == [0, 0]  # an epoch's figures are the first one's
    assert first["rows"]["curves"] == second["rows"]["curves"]
    assert first["rows"]["written"] == [0, 1, 1, 2]  # within and after each epoch
    assert second["rows"]["written"] == []
    names = ["curves.csv", "epochs.npy", "model.safetensors", "natural.csv", "predictions.csv"]
    assert sorted(path.name for path in (folder / "out0").iterdir()) == names
    assert list((folder / "out1").iterdir()) == []


@pytest.mark.parametrize("name", ["simclr", "teacher"])
def test_a_pretraining_on_two_processes_begins_with_the_preflight_and_is_the_same_on_both(both, name):
    first, second = (found["pretrained"][name] for found in both[:2])
    np.testing.assert_equal(first["curves"], second["curves"])  # NaN where an epoch was not evaluated
    assert (first["written"], second["written"]) == (True, False)


def test_both_predict_the_same(both):
    assert both[0]["predictions"] == both[1]["predictions"]
    assert len(both[0]["predictions"]) == 3 + 2


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_with_an_error(tmp_path, victim):
    start_weights(tmp_path)
    process = started("endless", tmp_path)
    checkpoint = tmp_path / "checkpoints"
    pids = {}
    try:
        deadline = time.monotonic() + 300
        while len(pids) < 2 or not list(checkpoint.glob("*.pt")):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            pids = {path.stem: json.loads(path.read_text() or "0") for path in tmp_path.glob("*.pid")}
            time.sleep(0.2)
        os.kill(pids[str(victim)], signal.SIGKILL)
        survivor, ended = pids[str(1 - victim)], time.monotonic() + 60
        while alive(survivor):
            assert time.monotonic() < ended, "the other process hangs"
            time.sleep(0.2)
        process.wait(60)
        assert process.returncode != 0
    finally:
        for pid in pids.values():
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.communicate()
    assert not list(tmp_path.glob("*.pt"))


def alive(pid):
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def torchrun(rank, port):
    return {
        "TORCHELASTIC_RUN_ID": "4711",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


@pytest.mark.parametrize("environment", [slurm, torchrun])
def test_processes_started_from_outside_find_each_other(tmp_path, environment):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [started("rank", tmp_path, **environment(rank, port)) for rank in (0, 1)]
    for rank, process in enumerate(processes):
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        assert torch.load(tmp_path / f"{rank}.pt") == {"rank": rank, "world": 2, "sum": 3.0}


def test_another_number_of_tasks_than_devices_names_the_keys(tmp_path):
    process = started("rank", tmp_path, **slurm(0, 1) | {"SLURM_NTASKS": "3", "SLURM_NTASKS_PER_NODE": "3"})
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "InputError: compute.devices, compute.nodes: " in said
