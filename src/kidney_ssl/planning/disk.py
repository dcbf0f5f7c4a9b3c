"""What a study will lay on the disk, against what is free there. Nothing is measured, and torch is seldom imported."""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from kidney_ssl.data.registry import label_files
from kidney_ssl.errors import InputError
from kidney_ssl.jobs.base import Job
from kidney_ssl.jobs.explaining import Explaining
from kidney_ssl.jobs.finetuning import Finetuning
from kidney_ssl.jobs.pretraining import Pretraining
from kidney_ssl.jobs.study import Study
from kidney_ssl.planning.counts import Counts, case_names

# Imaging of KiTS23 as its hub lists it; the label files' sizes are in the registry.
KITS23_IMAGING_BYTES = 41_000_000_000
PHANTOM_PIXEL_BYTES = 1.84  # a pixel of the default phantom's volumes, imaging and labels together, compressed
NETWORK_BYTES = {
    "resnet18": 44_800_000,
    "resnet34": 85_200_000,
    "resnet50": 94_300_000,
    "efficientnet_lite0": 13_700_000,
}
UNFINISHED = 5  # networks: a checkpoint holds weights, Adam's two moments and the best epoch, and decoders are larger
ROW_BYTES = 60  # of a slice in a table of predictions
VOLUMES, ARRAYS = "volumes", "arrays of slices"
SHOWN_BYTES = 5_000_000  # pictures and maps of an arm


class Item(NamedTuple):
    """Bytes of one kind, and where they are written."""

    what: str
    place: Path
    bytes: int


def disk(study: Study, counts: Counts, to_run: Collection[str], jobs: Sequence[Job], workers: int) -> list[Item]:
    """List what is written by stages and trainings that run; files in models/ and in DVC's cache are links to them.

    Args:
        study: the study.
        counts: its slices.
        to_run: names of stages.
        jobs: trainings that are missing.
        workers: trainings at a time.
    """
    settings, kinds = study.settings, {name.partition("@")[0] for name in to_run}
    pixels, network = settings.slice.image_size**2, network_bytes(settings.network)
    pool = counts.training_slices if settings.pretrain.pool == "all" else 0
    chosen, others = sum(counts.chosen.values()), counts.test_slices + pool
    # A slice is int16, its normalised copy float16, a mask uint8.
    arrays = pixels * (2 * (chosen + others) + chosen) * ("slice" in kinds)
    arrays += pixels * 2 * (chosen + others) * ("normalize" in kinds)
    runs = [job for job in jobs if isinstance(job, Finetuning)]
    networks = sum(isinstance(job, Pretraining) for job in jobs) + sum(run.keeps_model for run in runs)
    networks += sum(len(block.seeds) for name, block in settings.initialize.items() if f"initialize@{name}" in to_run)
    rows = counts.test_slices + 2 * counts.chosen["test"] + counts.chosen["validation"]
    tables = len(runs) * (ROW_BYTES * rows + 4 * settings.finetune.evaluations * counts.chosen["test"])
    tables += SHOWN_BYTES * sum(isinstance(job, Explaining) for job in jobs)
    there = sum(path.stat().st_size for path in settings.data.store.glob("case_*/*"))
    volumes = max(0, expected_volumes(study, counts) - there) * ("download" in kinds)
    unfinished = UNFINISHED * network * min(workers, len(jobs))
    items = [
        Item(VOLUMES, settings.data.store, volumes),
        Item(ARRAYS, Path(), arrays),
        Item("networks", study.store.folder, networks * network),
        Item("predictions, maps and pictures", study.store.folder, tables),
        Item("checkpoints of unfinished trainings", study.store.folder, unfinished),
    ]
    return [item for item in items if item.bytes]


def network_bytes(network: str) -> int:
    """Bytes of a classifier's weights; a network of timm is built to tell."""
    if network in NETWORK_BYTES:
        return NETWORK_BYTES[network]
    from kidney_ssl.models.resnet import classifier  # noqa: PLC0415 - torch

    return sum(tensor.nbytes for tensor in classifier(network, 0).state_dict().values())


def expected_volumes(study: Study, counts: Counts) -> int:
    """Bytes of the study's volumes; 0 of a directory, which is read in place."""
    settings = study.settings
    if settings.data.source == "kits23":
        known, cases = label_files(), case_names(settings)
        return round(KITS23_IMAGING_BYTES * len(cases) / len(known)) + sum(known[case].bytes for case in cases)
    if settings.data.source == "phantom":
        return round(counts.slices * settings.phantom.size**2 * PHANTOM_PIXEL_BYTES)
    return 0


def sums(items: Sequence[Item]) -> list[tuple[Path, int, int]]:
    """A place, needed bytes and free bytes of each file system that is written to; most often one."""
    found: dict[int, tuple[Path, int, int]] = {}
    for item in items:
        place = item.place.resolve()
        while not place.exists():
            place = place.parent
        first, needed, free = found.get(place.stat().st_dev, (place, 0, shutil.disk_usage(place).free))
        found[place.stat().st_dev] = (first, needed + item.bytes, free)
    return list(found.values())


def refuse_full_disk(items: Sequence[Item]) -> None:
    """Raise InputError if there is less room than the study needs."""
    for place, needed, free in sums(items):
        if needed > free:
            raise InputError(
                f"{place}: the study needs {needed / 1e9:,.1f} GB and {free / 1e9:,.1f} GB are free: free some, or "
                "start nevertheless with KIDNEY_INSIST=1 in the environment; a plan lists what is written"
            )
