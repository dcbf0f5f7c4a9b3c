"""Device, precision, threads and processes, through Lightning Fabric."""

import os
import resource
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import torch

from kidney_ssl.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


# A process that waits this long for another one gives up. All do the same work, so none waits longer than the first
# takes to write a checkpoint or to read a file that the others have in memory.
PATIENCE = timedelta(minutes=5)


def choose_device(device: str = "auto", threads: int = 1) -> torch.device:
    """Choose the device and make runs on one machine repeat bit by bit.

    Sets the process's thread count, and on a GPU torch's deterministic algorithms (an operation that has none warns);
    the CPU's kernels repeat without, and asking for them imports torch's compiler.

    Args:
        device: `auto` (CUDA where there is one), `cpu` or `cuda`.
        threads: CPU threads of one operation; sums depend on it, hence trained bits too.

    Raises:
        InputError: CUDA is asked for and absent.
    """
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise InputError("compute.device: cuda, but torch finds no CUDA device; set it to auto or cpu")
    torch.set_num_threads(threads)
    if cuda:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats sums only with a fixed workspace
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # it costs time; torch sets it up at run time
        torch.backends.cudnn.benchmark = False  # it would choose algorithms by the clock
    return torch.device("cuda" if cuda else "cpu")


def make_fabric(
    device: str = "auto", precision: str = "auto", threads: int = 1, devices: int = 1, nodes: int = 1
) -> "Fabric":
    """Choose device and precision, see `choose_device`, and join the other processes if there are to be several.

    Started by torchrun or by srun, a process is told by its environment which one it is. Started by itself on one
    machine, it starts the others: they run the same command from its beginning.

    Args:
        device: `auto`, `cpu` or `cuda`.
        precision: `32`; `bf16` and `16` (loss scaling) run the network under autocast, with weights in float32;
            `auto` is bf16 where it is fast (a GPU with bf16 units), else 32.
        threads: CPU threads of one operation.
        devices: processes on each machine, one a GPU.
        nodes: machines.

    Raises:
        InputError: CUDA is asked for and absent, 16 without a GPU, more devices than GPUs, or another number of
            processes than devices x nodes.
    """
    cuda = choose_device(device, threads).type == "cuda"
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
    """What of the machine decides trained bits, for a training's fingerprint."""
    return {
        "device": fabric.device.type,
        "precision": fabric.strategy.precision.precision,
        "processes": fabric.world_size,
        "threads": torch.get_num_threads(),
    }


def cost(device: torch.device, seconds: float) -> dict[str, str | float]:
    """What a training took, for logs that no result depends on: wall time, device, peak memory in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    found: dict[str, str | float] = {"device": device.type, "memory_mb": round(peak), "seconds": round(seconds, 1)}
    if device.type == "cuda":
        found |= {
            "device": torch.cuda.get_device_name(device),
            "gpu_memory_mb": round(torch.cuda.max_memory_allocated(device) / 2**20),
        }
    return found


def _several(accelerator: str, mode: str, devices: int, nodes: int) -> "Fabric":
    """Join the processes; on one machine, start the others first."""
    fabric_class = _fabric_class()
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment  # noqa: PLC0415 - seconds of imports
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment  # noqa: PLC0415 - as above
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment  # noqa: PLC0415 - as above
    from lightning_fabric.strategies.ddp import DDPStrategy  # noqa: PLC0415 - as above

    try:
        if torch.distributed.is_torchelastic_launched():
            environment: Any = TorchElasticEnvironment()
        elif os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
            # By the step's own variable: a batch script has all the others too, and is no task of srun.
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
            # Not sent before each step: those of batch norm are equal anyway.
            strategy=DDPStrategy(timeout=PATIENCE, forward_sync_buffers=False),
            plugins=[environment],
        )
        environment.validate_settings(devices, nodes)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"compute.devices, compute.nodes: {' '.join(str(error).split())}") from error
    if environment.creates_processes_externally and environment.world_size() != devices * nodes:
        raise InputError(
            f"compute.devices x compute.nodes is {devices} x {nodes}, but {environment.world_size()} processes run"
        )
    fabric.launch()
    return cast("Fabric", fabric)


def _fabric_class() -> Any:
    """Import Fabric without torchmetrics.

    Fabric reads torchmetrics' version by importing the whole of it (0.6 s a process, with image and audio metrics)
    for a loss-spike callback that is not used here. An absent torchmetrics is a supported case.
    """
    absent = "torchmetrics" not in sys.modules
    if absent:
        sys.modules["torchmetrics"] = cast(Any, None)
    try:
        from lightning_fabric import Fabric  # noqa: PLC0415 - between the two lines that hide torchmetrics
    finally:
        if absent:
            del sys.modules["torchmetrics"]
    return Fabric
