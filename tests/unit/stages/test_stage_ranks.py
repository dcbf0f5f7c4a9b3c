"""Which process of a training a stage is: told by who started it, not by what another launcher left behind."""

import os

import pytest

from stages import launcher

SRUN = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "4711", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}
OWN = {"LOCAL_RANK": "1", "WORLD_SIZE": "2", "NODE_RANK": "0"}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name in launcher.VARIABLES or name.startswith("SLURM"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("environment", [SRUN, TORCHRUN, OWN])
def test_a_process_that_a_launcher_started_knows_its_rank(environment: dict[str, str], monkeypatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    launcher.forget_others(lambda: 2)
    assert launcher.rank() == 1
    assert environment.items() <= os.environ.items()


@pytest.mark.parametrize(
    "left",
    [
        {"RANK": "1"},
        {"RANK": "1", "WORLD_SIZE": "8"},
        {"RANK": "", "LOCAL_RANK": "", "WORLD_SIZE": ""},
        {"LOCAL_RANK": ""},
        {"LOCAL_RANK": "3"},
        {"LOCAL_RANK": "one", "WORLD_SIZE": "2"},
        {"TORCHELASTIC_RUN_ID": "4711"},
    ],
)
@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_launcher_left_behind_makes_no_other_process_of_a_stage(left, processes: int, monkeypatch) -> None:
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    launcher.forget_others(lambda: processes)
    assert launcher.rank() == 0
    assert not os.environ.keys() & left.keys()  # libraries read them too


@pytest.mark.parametrize("environment", [TORCHRUN, OWN])
def test_a_study_of_one_process_has_no_second(environment: dict[str, str], monkeypatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    launcher.forget_others(lambda: 1)
    assert launcher.rank() == 0


def test_a_batch_script_of_slurm_is_no_task(monkeypatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert launcher.rank() == 0


def test_without_such_variables_the_parameters_are_not_read() -> None:
    launcher.forget_others(lambda: pytest.fail("read"))
