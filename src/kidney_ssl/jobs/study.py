"""What the trainings of a study share within a process: parameters, run store, device, checksums of files.

This module imports torch only when something is trained: a stage whose trainings are all in the store only collects.
"""

import ctypes
import os
import shutil
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kidney_ssl.code_version import code_version
from kidney_ssl.data.arrays import array_checksum, load_rows
from kidney_ssl.data.patients import patient_column
from kidney_ssl.engine.store import RunStore, store_key
from kidney_ssl.errors import InputError
from kidney_ssl.jobs.base import Job, T, is_done, obtain

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from kidney_ssl.config import Params
    from kidney_ssl.engine.loop import TrainingContext

# Environment: a file. Stages write the names of missing trainings to it instead of training, and exit with an error.
ASK = "KIDNEY_ASK"
COST = "cost.json"  # time and memory of a training, for logs on which no result depends


class Study:
    """The study of the current folder."""

    def __init__(self, settings: "Params") -> None:
        self.settings = settings
        self.store = RunStore(settings.compute.store_folder, settings.compute.store_gb)
        self.held: dict[str, Any] = {}  # arrays that trainings of this process hold in memory, by reader
        self._checksums: dict[Path, str] = {}
        self._code: dict[tuple[str, ...], dict[str, str]] = {}

    def checksums(self, files: Mapping[str, Path]) -> dict[str, str] | None:
        """Name -> sha256 of some files, each computed or read once; None if a file does not exist yet."""
        for path in files.values():
            if path not in self._checksums:
                if not path.exists():
                    return None
                self._checksums[path] = array_checksum(path)
        return {name: self._checksums[path] for name, path in files.items()}

    def code(self, *modules: str) -> dict[str, str]:
        """Version of some modules, read once: it takes 50 ms, and edits made later are not what this process runs."""
        if modules not in self._code:
            self._code[modules] = code_version(*modules)
        return self._code[modules]

    @cached_property
    def validation_patients(self) -> int:
        """How many patients the validation part has; `select` must have run."""
        cases = load_rows("data/index/cases.csv")
        return int(patient_column(cases)[cases["split"] == "validation"].nunique())

    @cached_property
    def numerics(self) -> dict[str, str | int]:
        """Properties of the machine that determine trained bits, as in `kidney_ssl.engine.device.numerics`."""
        compute = self.settings.compute
        if compute.device != "cpu" and _has_cuda():
            return self._numerics_of_fabric()
        precision = {"auto": "32-true", "32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[compute.precision]
        processes = compute.devices * compute.nodes
        return {
            "compile": compute.compile,
            "cudnn_benchmark": False,
            "device": "cpu",
            "precision": precision,
            "processes": processes,
            "threads": compute.threads,
        }

    @cached_property
    def fabric(self) -> "Fabric":
        """Device, precision and processes of all trainings of this process."""
        from kidney_ssl.engine.device import make_fabric  # noqa: PLC0415 - torch

        compute = self.settings.compute
        return make_fabric(
            compute.device,
            compute.precision,
            compute.threads,
            compute.devices,
            compute.nodes,
            cudnn_benchmark=compute.cudnn_benchmark,
        )

    def explained_folder(self, arm: str) -> Path:
        """Folder of an arm's run whose network is explained, as `finetune` collects it."""
        explain = self.settings.explain
        return Path(f"models/finetune/{arm}/{explain.percent}-{explain.seed}")

    def obtain(self, jobs: Collection[Job], take: Callable[[Job, str], bool]) -> None:
        """Run the missing jobs and collect all results, see `kidney_ssl.jobs.base.obtain`.

        Raises:
            InputError: a training failed, or trainings are missing while only names are asked for, see `ASK`.
        """
        missing = [job.name for job in jobs if not is_done(self.store, job)]
        asked = os.environ.get(ASK)
        if missing and asked:
            with Path(asked).open("a", encoding="utf-8") as stream:
                stream.writelines(f"{name}\n" for name in missing)
            raise InputError(f"to be trained: {', '.join(missing)}")
        obtain(self.store, jobs, take)

    def refuse_other_numerics(self) -> None:
        """Refuse to train with other numerics than those in the keys.

        Raises:
            InputError: the CUDA driver and torch disagree about the device.
        """
        found = self._numerics_of_fabric()
        if found != self.numerics:
            raise InputError(
                f"compute.device: torch trains with {found}, expected {self.numerics}; set it to cpu or cuda"
            )

    def _numerics_of_fabric(self) -> dict[str, str | int]:
        from kidney_ssl.engine.device import numerics  # noqa: PLC0415 - torch

        return numerics(self.fabric) | {"compile": self.settings.compute.compile}


class StudyJob(Job):
    """A training of a study, by one process or by several together (`compute.devices`, `compute.nodes`).

    Args:
        study: the study.
        name: see `Job`.
        modules: modules whose code, with all that they import, determines the files.
    """

    kind: str  # first word of the name, part of the key

    def __init__(self, study: Study, name: str, *modules: str) -> None:
        self.study, self.name = study, name
        self._code, self._key = study.code(*modules), ""
        compute = study.settings.compute
        self._together = compute.devices * compute.nodes > 1
        self.first = not self._together or study.fabric.is_global_zero

    @property
    @abstractmethod
    def files(self) -> dict[str, Path] | None:
        """All input files by name; None while another job's result is missing."""

    @property
    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """All values that determine the files, except those of the machine."""

    def key(self) -> str | None:
        """See `Job.key`."""
        if not self._key and (files := self.files) and (inputs := self.study.checksums(files)):
            self._key = store_key(self.kind, self._code, self.parameters | self.study.numerics, inputs)
        return self._key or None

    def describe(self) -> Mapping[str, Any]:
        """See `Job.describe`."""
        return {"job": self.name, "parameters": self.parameters | self.study.numerics}

    def agree(self, value: T) -> T:
        """See `Job.agree`."""
        return self.study.fabric.broadcast(value) if self._together else value

    def context(self, seed: int, checkpoint: Path) -> "TrainingContext":
        """Context of the training; raises as `Study.refuse_other_numerics`."""
        from kidney_ssl.engine.loop import TrainingContext  # noqa: PLC0415 - torch

        self.study.refuse_other_numerics()
        compute = self.study.settings.compute
        return TrainingContext(
            self.study.fabric, self.name, seed, checkpoint, 60 * compute.checkpoint_minutes, compute.compile
        )


def copy_cost(entry: Path, stage: str, name: str) -> None:
    """Copy time and memory of a stored training to logs/; not a link, since logs are overwritten in place."""
    log = Path(f"logs/{stage}/{name}.json")
    log.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # the entry may be missing
        shutil.copyfile(entry / COST, log)


def _has_cuda() -> bool:
    """Whether the CUDA driver has a device that this process may use; asks the driver itself, without torch."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    try:
        return bool(ctypes.CDLL("libcuda.so.1").cuInit(0) == 0)
    except OSError:
        return False
