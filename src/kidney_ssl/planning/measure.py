"""Rates of a machine: a few real steps of each kind of training, on random slices, where trainings would run."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError
from torch import Tensor, nn
from tqdm import tqdm

from kidney_ssl import methods
from kidney_ssl.augmentations.augmented import augmenting
from kidney_ssl.config import Compute, Params
from kidney_ssl.engine.batches import Batch, Part, Slices, seeded
from kidney_ssl.engine.device import make_fabric
from kidney_ssl.engine.device_array import DeviceArray
from kidney_ssl.engine.loop import TrainingContext, train
from kidney_ssl.engine.optimization import Group, Optimization, make_optimizer, whole
from kidney_ssl.errors import InputError, one_line
from kidney_ssl.finetune import Classification
from kidney_ssl.methods.base import Setting, read_options
from kidney_ssl.metrics.probes import probe_accuracy
from kidney_ssl.models.resnet import classifier
from kidney_ssl.planning.work import OF_STEP, Work
from kidney_ssl.pretext import Shown
from kidney_ssl.pretrain import CLEAN, PretextTask

SECONDS, LONGEST = 120.0, 10.0  # that all kinds together, and one of them, should take
STEPS = 10  # measured at most
FEW = 2  # slices of the first steps, and the least
LOADED = 64 << 20  # bytes
STAGES = 4
# Where kidneys lie in a random slice.
REGIONS = {"left": (0.4, 0.75, 0.1, 0.45), "right": (0.4, 0.75, 0.55, 0.9)}
IMPORTS = "import pandas, kidney_ssl.config, kidney_ssl.metrics.run"  # of most stages


class Rates(BaseModel):
    """What a machine takes, as `RATES=<file> make plan` writes it.

    Attributes:
        device: its name.
        gpus: how many; 0 where the CPU trains.
        workers: trainings at a time when it was measured.
        seconds: of each rate, see `kidney_ssl.planning.work`; and `stage`, DVC's and the start of a process.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    device: str
    gpus: NonNegativeInt
    workers: PositiveInt
    seconds: dict[str, PositiveFloat]

    @property
    def at_a_time(self) -> int:
        """Trainings that shared a GPU, or the CPU."""
        return -(-self.workers // (self.gpus or 1))


def needed_rates(works: Iterable[Work]) -> set[str]:
    """Names of the rates that works take."""
    return {"load", "stage"} | {rate for work in works for _, rate, _ in work.amounts}


def read_rates(file: Path, works: Iterable[Work]) -> Rates:
    """Read the rates of another machine.

    Raises:
        InputError: the file cannot be read, or lacks a rate that is needed.
    """
    try:
        rates = Rates.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        said = one_line(str(error))
        raise InputError(f"{file}: cannot be read as rates ({said}); write it with `RATES=file make plan`") from error
    if lacking := sorted(needed_rates(works) - set(rates.seconds)):
        raise InputError(f"{file}: lacks '{lacking[0]}'; run `RATES=file make plan` there, with this params.yaml")
    return rates


def measure_rates(works: Iterable[Work], settings: Params, *, workers: int, gpus: int) -> Rates:
    """Measure what is needed, as many trainings at a time as would share a device.

    Args:
        works: what is trained.
        settings: of the study.
        workers: trainings at a time.
        gpus: that they share out; 0 for none.
    """
    needed, compute = needed_rates(works), settings.compute
    kinds = sorted({kind for name in needed if (kind := name.partition(" ")[2])})
    at_a_time = -(-workers // (gpus or 1))
    allowed = min(LONGEST, SECONDS * at_a_time / max(1, len(kinds)))
    device = make_fabric(compute.device, threads=compute.threads).device
    seconds = {"load": _load(device), "stage": _stage()}
    running = Parallel(at_a_time, return_as="generator")(
        delayed(measure_kind)(
            json.loads(kind), compute, momentum=settings.finetune.batch_norm_momentum, allowed=allowed
        )
        for kind in kinds
    )
    for kind, (update, evaluate) in zip(kinds, tqdm(running, "kinds measured", len(kinds), disable=None), strict=True):
        seconds |= {f"update {kind}": update, f"evaluate {kind}": evaluate}
    if "probe" in needed:
        seconds["probe"] = _probe()
    rounded = {name: float(f"{value:.3g}") for name, value in seconds.items()}
    return Rates(device=_name(device), gpus=gpus, workers=workers, seconds=rounded)


def measure_kind(kind: Mapping[str, Any], compute: Compute, *, momentum: float, allowed: float) -> tuple[float, float]:
    """Measure an update with a whole batch, by the loop and the recipe of the trainings, and the evaluation of a slice.

    A batch that would take too long is measured with fewer slices, and in proportion.

    Args:
        kind: method or augmentation, options, network, size, batch, optimizer, decay_norms and clip.
        compute: device, precision and threads.
        momentum: of batch norm.
        allowed: seconds that it should take; it takes a step of `FEW` slices if that is longer.

    Returns:
        Seconds an update, and seconds a slice.
    """
    fabric = make_fabric(compute.device, compute.precision, compute.threads, cudnn_benchmark=compute.cudnn_benchmark)
    batch_size, generator = kind["batch"], seeded(0, "plan", device=fabric.device)
    slices = Slices(_random_part(max(FEW, batch_size), kind["size"]), device=fabric.device, resident="always")
    task, groups, evaluate = _task(kind, slices, momentum)
    clock = _Clock(task, fabric.device)
    # The size of the decay does not matter to a step's time.
    recipe = Optimization(weight_decay=1e-6, **{name: kind[name] for name in OF_STEP})
    context = TrainingContext(fabric, f"plan of {json.dumps(kind)}", 0, Path("no checkpoint"), float("inf"))

    def steps(count: int, number: int) -> list[float]:
        clock.ticks.clear()
        with redirect_stderr(StringIO()):  # no bar of the loop
            train(
                context,
                clock,
                slices,
                make_optimizer(groups, 1e-6, recipe, fabric),
                epochs=1,
                batch_size=count,
                after_epoch=cast(Any, lambda epoch: clock.tick()),
                clip=recipe.clip,
                deal=lambda *_: [torch.arange(count)] * number,
            )
        return np.diff(clock.ticks).tolist()

    count, update = FEW, steps(FEW, 1)[0]
    if 3 * update < allowed:
        update = steps(FEW, 1)[0]  # the first one imports and allocates
        count = max(FEW, min(batch_size, int(FEW * allowed / (6 * update))))
        update = median(steps(count, 1 + max(1, min(STEPS, int(allowed * FEW / (3 * update * count)))))[1:])
    clock.eval()
    clock.ticks.clear()
    with torch.inference_mode(), fabric.autocast():
        batch = slices.batch(torch.arange(count))
        for _ in range(1 if count == FEW else 3):
            clock.tick()
            evaluate(batch, generator)
        clock.tick()
    return update / count * batch_size, float(min(np.diff(clock.ticks))) / count


class _Clock(nn.Module):
    """A task that notes when its steps begin."""

    def __init__(self, task: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.task, self.device = task, device
        self.ticks: list[float] = []
        if hasattr(task, "after_step"):  # a teacher follows
            self.after_step = task.after_step

    def step(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        self.tick()
        return self.task.step(batch, generator)  # type: ignore[operator] # a Module's attribute to mypy

    def tick(self) -> dict[str, float]:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.ticks.append(time.perf_counter())
        return {}


def _task(
    kind: Mapping[str, Any], slices: Slices, momentum: float
) -> tuple[nn.Module, Sequence[Group], Callable[..., object]]:
    """A training's task, the parameters that it trains, and what its evaluation calls for a batch."""
    if "method" in kind:
        chosen = methods.load(kind["method"])
        options = read_options(chosen, kind["options"], f"pretrain.methods: options of {kind['method']}")
        method = chosen(Setting(kind["network"], kind["size"], REGIONS, 0, momentum), options)
        if not chosen.reads_masks:
            slices.masks = None
        method.begin()
        shown = Shown(method, slices, STEPS)
        task = PretextTask(method, shown)
        return task, method.parameter_groups(), lambda batch, generator: method.validate(shown(batch), generator)
    masks, slices.masks = slices.masks, None
    assert masks is not None
    augment = augmenting(kind["augmentation"], kind["options"], slices, masks, REGIONS, key="arms: options")
    model = classifier(kind["network"], 0, batch_norm_momentum=momentum)
    return Classification(model, augment), whole(model), lambda batch, generator: model(batch.images)


def _random_part(count: int, size: int) -> Part:
    """Random slices of eight cases, with masks of both kidneys, and of a tumor in every other slice."""
    label = (np.arange(count) + 1) % 2
    cases = [f"case_{number % 8:05d}" for number in range(count)]
    places = {"slice": range(count), "position": np.linspace(0, 1, count), "thickness_mm": 1.0}
    frame = pd.DataFrame({"case": cases, **places, "label": label, "tumor_px": label * 1000})
    masks = np.zeros((count, size, size), np.uint8)
    for rectangle in REGIONS.values():
        top, bottom, left, right = (round(edge * size) for edge in rectangle)
        masks[:, top:bottom, left:right] = 1
    side = max(2, size // 12)
    masks[::2, size // 2 : size // 2 + side, size // 5 : size // 5 + side] = 2
    return Part(np.random.default_rng(0).random((count, size, size), np.float32).astype(np.float16), frame, masks)


def _stage() -> float:
    """Seconds of DVC a stage, and of the start of its process: of a few stages that do nothing."""
    stages = {f"stage_{number}": {"cmd": f"{sys.executable} -c '{IMPORTS}'"} for number in range(STAGES)}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "dvc.yaml").write_text(json.dumps({"stages": stages}), encoding="utf-8")  # JSON is YAML
        for command in (["init", "--no-scm", "--quiet"], ["repro", "--quiet"]):
            started = time.perf_counter()
            called = [sys.executable, "-m", "dvc", *command]
            ended = subprocess.run(called, cwd=folder, capture_output=True, text=True, check=False)
            if ended.returncode:
                raise InputError(f"dvc {command[0]} fails in an empty folder: {' '.join(ended.stderr.split())[-300:]}")
        return (time.perf_counter() - started) / STAGES


def _probe() -> float:
    """Seconds of fitting probes, for each slice that they are fitted on."""
    labels = np.arange(CLEAN) % 2
    points = np.random.default_rng(0).normal(size=(CLEAN, 512)).astype(np.float32) + labels[:, None] / 4
    started = time.perf_counter()
    probe_accuracy(points, labels, points, labels)
    return (time.perf_counter() - started) / CLEAN


def _load(device: torch.device) -> float:
    """Seconds a byte from a file, which the operating system does not hold, into the device's memory."""
    with tempfile.NamedTemporaryFile(dir=".", suffix=".npy") as stream:
        np.save(stream, np.ones((LOADED >> 20, 1 << 19), np.float16))
        stream.flush()
        os.fsync(stream.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.perf_counter()
        DeviceArray(np.load(stream.name, mmap_mode="r"), device, "always")
        return (time.perf_counter() - started) / LOADED


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text(encoding="utf-8")) if info.exists() else None
    return f"{len(os.sched_getaffinity(0))} cores of {model[1] if model else 'a CPU'}"
