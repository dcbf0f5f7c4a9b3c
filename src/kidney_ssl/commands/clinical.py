"""`kidney-ssl clinical`: clinical endpoints of the cases of the study in the current folder."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kidney_ssl.commands.own_code import use_own_code
from kidney_ssl.errors import InputError

if TYPE_CHECKING:
    from kidney_ssl.config import Params

RESULTS = Path("metrics/clinical.json")


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `clinical`."""
    parser = commands.add_parser("clinical", help="tumor grade and malignancy of the cases from frozen encoders")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="a file like kits23.json (KiTS23's own, fetched)")
    parser.set_defaults(run=_clinical)


def _clinical(given: argparse.Namespace) -> None:
    use_own_code(given.words)
    from kidney_ssl import config  # noqa: PLC0415 - other commands need none of it
    from kidney_ssl.clinical_tasks import evaluate_tasks  # noqa: PLC0415 - torch
    from kidney_ssl.data.clinical_labels import fetch_labels, read_labels  # noqa: PLC0415 - as above
    from kidney_ssl.engine.batches import read_part  # noqa: PLC0415 - as above
    from kidney_ssl.engine.device import make_fabric  # noqa: PLC0415 - as above
    from kidney_ssl.jsonfile import write_json  # noqa: PLC0415 - as above
    from kidney_ssl.schema import TEST, TRAIN  # noqa: PLC0415 - as above

    settings = config.load()
    compute, kits23 = settings.compute, settings.kits23
    if given.labels is None and settings.data.source != "kits23":
        raise InputError(f"data.source is {settings.data.source}: name a file like kits23.json, --labels FILE")
    parts = {name: read_part(f"data/normalized/{name}_images.npy", f"data/slices/{name}.csv") for name in (TRAIN, TEST)}
    starts = _starts(settings)
    file = given.labels or fetch_labels(
        settings.data.store,
        endpoint=kits23.labels_endpoint,
        repository=kits23.labels_repository,
        revision=kits23.labels_revision,
        timeout=kits23.timeout,
    )
    labels, sha256 = read_labels(file)
    plan = settings.analysis
    tasks = evaluate_tasks(
        parts,
        labels,
        starts,
        network=settings.network,
        fabric=make_fabric(compute.device, compute.precision, compute.threads),
        batch_size=settings.finetune.batch_size,
        resident=compute.resident,
        resamples=plan.resamples,
        seed=plan.seed,
    )
    source = "a local file" if given.labels else f"{kits23.labels_repository}@{kits23.labels_revision}"
    content = {"labels": {"sha256": sha256, "source": source}, "resamples": plan.resamples, "tasks": tasks}
    write_json(RESULTS, content)
    print(*lines(tasks), RESULTS, sep="\n")


def _starts(settings: "Params") -> dict[str, list[Path]]:
    """What arms start from -> the weights of every seed."""
    blocks: dict[str, Mapping[str, Any]] = {"initial": settings.initialize, "pretrain": settings.pretrain.methods}
    starts = {}
    for weights in sorted({arm.weights for arm in settings.arms.values()}):
        kind, _, name = weights.partition("/")
        starts[weights] = [Path(f"models/{weights}/{seed}.safetensors") for seed in blocks[kind][name].seeds]
    files = [file for several in starts.values() for file in several]
    if absent := [file for file in files if not file.exists()]:
        raise InputError(
            f"{absent[0]}: not there ({len(absent)} of {len(files)} such files): `kidney-ssl run` makes them"
        )
    return starts


def lines(tasks: Mapping[str, Any]) -> list[str]:
    """A table for the terminal, of the tasks of `clinical_tasks.evaluate_tasks`."""
    found = []
    for name, task in tasks.items():
        counts = [f"{part} {', '.join(f'{n} {kind}' for kind, n in of.items())}" for part, of in task["cases"].items()]
        found.append(f"{name}, cases: {'; '.join(counts)}")
        if task["reason"]:
            found.append(f"  {task['reason']}")
        width = max(map(len, task["results"]), default=0)
        for start, result in task["results"].items():
            minus = f"   minus shape {_interval(result['minus_shape'])}" if "minus_shape" in result else ""
            found.append(f"  {start:{width}}  {result['seeds']} seed(s)   AUROC {_interval(result['auroc'])}{minus}")
    return [*found, "Secondary analysis; 95 % intervals of single comparisons, not corrected for their number."]


def _interval(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return str(one["reason"])
    ends = f"{one['low']:.3f} to {one['high']:.3f}" if one["low"] is not None else one["reason"]
    return f"{one['value']:.3f} ({ends})"
