"""Device and precision: refused where the machine has none, in force inside a step."""

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from kidney_ssl.engine.device import compile_networks, make_fabric, memory_errors
from kidney_ssl.errors import InputError
from kidney_ssl.models.resnet import classifier

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


@pytest.mark.parametrize(
    "exhaust",
    [
        lambda: torch.empty(1 << 60),
        lambda: np.empty(1 << 60, np.uint8),
        lambda: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
    ],
)
def test_full_memory_is_one_line_that_names_what_to_lower(exhaust):
    with pytest.raises(InputError) as caught, memory_errors("finetune toy 100-0"):
        exhaust()
    said = str(caught.value)
    assert "\n" not in said
    for key in ("finetune toy 100-0", "batch_size", "compute.resident", "slice.image_size"):
        assert key in said


def test_any_other_error_of_torch_stays_what_it_is():
    with pytest.raises(RuntimeError, match="shape"), memory_errors("toy"):
        torch.zeros(2).view(3)


def test_a_compiled_network_keeps_the_names_of_its_weights_and_computes_the_same(monkeypatch):
    monkeypatch.setattr("kidney_ssl.engine.device.BACKEND", "eager")  # a compiler takes minutes
    network, images = classifier("resnet18", 0), torch.rand(3, 1, 32, 32)
    names, expected = list(network.state_dict()), network.eval()(images)
    compile_networks(network)
    counters.clear()
    for count in (3, 2, 3):
        torch.testing.assert_close(network(images[:count]), expected[:count])
    assert list(network.state_dict()) == names
    assert counters["stats"]["unique_graphs"] == 2  # one for each size
