"""Device, precision, threads and processes, through Lightning Fabric."""

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from kidney_ssl.errors import InputError, one_line

if TYPE_CHECKING:
    from lightning_fabric import Fabric


# How long a process waits for another one. All do the same work, so a wait is at most the time in which rank 0 writes a
# checkpoint, or a process reads a file that the others hold in memory.
PATIENCE = timedelta(minutes=5)
BACKEND = "inductor"  # of torch.compile
SIZES = 64  # batch sizes for which a network may be compiled, in training and evaluation


def make_fabric(
    device: str = "auto",
    precision: str = "auto",
    threads: int = 1,
    devices: int = 1,
    nodes: int = 1,
    *,
    cudnn_benchmark: bool = False,
) -> "Fabric":
    """Choose device and precision, make runs on one machine repeatable bit by bit, and join the other processes.

    On a GPU torch's deterministic algorithms are used (an operation without one warns). CPU kernels repeat anyway, and
    setting the option would import torch's compiler.

    A process started by torchrun or srun reads its rank from the environment. A process started alone starts the others
    on its machine: they run the same command from the beginning.

    Args:
        device: `auto` (CUDA where there is one), `cpu` or `cuda`.
        precision: `32`; `bf16` and `16` (loss scaling) run the network under autocast, with weights in float32;
            `auto` is bf16 where it is fast (a GPU with bf16 units), else 32.
        threads: CPU threads of one operation; sums, and so trained bits, depend on it.
        devices: processes on each machine, one a GPU.
        nodes: machines.
        cudnn_benchmark: whether cuDNN times its convolutions and takes the fastest: two runs may then differ in bits.

    Raises:
        InputError: CUDA is asked for and absent, 16 without a GPU, more devices than GPUs, or another number of
            processes than devices x nodes.
    """
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise InputError("compute.device: cuda, but torch finds no CUDA device; set it to auto or cpu")
    torch.set_num_threads(threads)
    if cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats sums only with a fixed workspace
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # it costs time; torch sets it up at run time
        torch.backends.cudnn.benchmark = cudnn_benchmark
    if precision == "16" and not cuda:
        raise InputError("compute.precision: 16 needs a GPU; set it to auto, 32 or bf16")
    if precision == "auto":
        precision = "bf16" if cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    mode = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[precision]
    accelerator = "cuda" if cuda else "cpu"
    if devices * nodes == 1:
        return cast("Fabric", _fabric_class()(accelerator=accelerator, devices=1, precision=cast(Any, mode)))
    if cuda and devices > torch.cuda.device_count():
        raise InputError(f"compute.devices: {devices}, but torch finds {torch.cuda.device_count()} CUDA device(s) here")
    fabric = _several(accelerator, mode, devices, nodes)
    torch.set_num_threads(threads)  # the launcher has set its own number
    return fabric


def numerics(fabric: "Fabric") -> dict[str, str | int]:
    """Properties of the machine that determine trained bits, for a training's key."""
    return {
        "cudnn_benchmark": fabric.device.type == "cuda" and torch.backends.cudnn.benchmark,
        "device": fabric.device.type,
        "precision": fabric.strategy.precision.precision,
        "processes": fabric.world_size,
        "threads": torch.get_num_threads(),
    }


@contextmanager
def memory_errors(label: str) -> Iterator[None]:
    """Turn an allocation error in the block into an InputError about `label`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # The GPU allocator has its own exception; the CPU allocator raises a plain RuntimeError.
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if not (on_gpu or isinstance(error, MemoryError) or "can't allocate memory" in str(error)):
            raise
        place = "the GPU's memory" if on_gpu else "memory"
        raise InputError(
            f"{label}: {place} is full; lower batch_size or slice.image_size, or set compute.resident to never"
        ) from error


def compile_networks(*networks: nn.Module) -> None:
    """Compile the forward pass of networks in place; parameters and buffers keep their names.

    Each batch size is compiled separately, and earlier compilations are discarded: the results must depend neither on
    earlier trainings of the process nor on where a training was resumed.
    """
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = SIZES  # above it torch stops compiling
    for network in networks:
        network.compile(backend=BACKEND, dynamic=False)


def cost(device: torch.device, seconds: float) -> dict[str, str | float]:
    """Wall time, device and peak memory in MB of a training, for logs on which no result depends."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    found: dict[str, str | float] = {"device": device.type, "memory_mb": round(peak), "seconds": round(seconds, 1)}
    if device.type == "cuda":
        found |= {
            "device": torch.cuda.get_device_name(device),
            "gpu_memory_mb": round(torch.cuda.max_memory_allocated(device) / 2**20),
        }
    return found


def _several(accelerator: str, mode: str, devices: int, nodes: int) -> "Fabric":
    """Join the processes; on one machine, first start the others."""
    fabric_class = _fabric_class()
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment  # noqa: PLC0415 - seconds of imports
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment  # noqa: PLC0415 - as above
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment  # noqa: PLC0415 - as above
    from lightning_fabric.strategies.ddp import DDPStrategy  # noqa: PLC0415 - as above

    try:
        if torch.distributed.is_torchelastic_launched():
            environment: Any = TorchElasticEnvironment()
        elif os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
            # The variable of the step: a batch script has all the others too, but is no task of srun.
            environment = SLURMEnvironment()
        elif nodes == 1:
            environment = LightningEnvironment()
        else:
            raise InputError(
                f"compute.nodes: {nodes}, but this process runs on one; docs/cluster.md says how to start it on all"
            )
        fabric = fabric_class(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            precision=cast(Any, mode),
            # Buffers need no synchronization: those of batch norm are equal already.
            strategy=DDPStrategy(timeout=PATIENCE, forward_sync_buffers=False),
            plugins=[environment],
        )
        environment.validate_settings(devices, nodes)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"compute.devices, compute.nodes: {one_line(str(error))}") from error
    if environment.creates_processes_externally and environment.world_size() != devices * nodes:
        raise InputError(
            f"compute.devices x compute.nodes is {devices} x {nodes}, but {environment.world_size()} processes run"
        )
    fabric.launch()
    return cast("Fabric", fabric)


def _fabric_class() -> Any:
    """Import Fabric without torchmetrics, which takes 0.6 s and serves a callback that is not used here."""
    absent = "torchmetrics" not in sys.modules
    if absent:
        sys.modules["torchmetrics"] = cast(Any, None)
    try:
        from lightning_fabric import Fabric  # noqa: PLC0415 - between the two lines that hide torchmetrics
    finally:
        if absent:
            del sys.modules["torchmetrics"]
    return Fabric
