"""Device and precision: refused where the machine has none, in force inside a step."""

import pytest
import torch

from kidney_ssl.errors import InputError
from kidney_ssl.training.device import make_fabric

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")


@pytest.fixture(autouse=True)
def _settings():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@without_cuda
def test_cuda_asked_for_and_absent_names_the_key():
    with pytest.raises(InputError, match=r"compute\.device"):
        make_fabric("cuda")


@without_cuda
def test_half_precision_without_a_gpu_names_the_key():
    with pytest.raises(InputError, match=r"compute\.precision"):
        make_fabric("auto", "16")


def test_auto_on_the_cpu_is_float32_and_threads_are_set():
    fabric = make_fabric("cpu", "auto", 1)
    assert fabric.strategy.precision.precision == "32-true"
    assert fabric.device.type == "cpu"
    assert torch.get_num_threads() == 1


def test_bf16_is_autocast_with_weights_in_float32():
    fabric = make_fabric("cpu", "bf16", 1)
    layer = fabric.setup_module(torch.nn.Linear(2, 2))
    with fabric.autocast():
        assert torch.nn.functional.linear(torch.ones(1, 2), layer.weight).dtype == torch.bfloat16
    assert layer.weight.dtype == torch.float32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_runs_deterministic_algorithms():
    make_fabric("cuda", "32", 1)
    assert torch.are_deterministic_algorithms_enabled()
