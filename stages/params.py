"""Check params.yaml as a whole: DVC checks only the keys that a stage depends on and would ignore a misspelled one."""

import json
from pathlib import Path
from typing import Any

from kidney_ssl import config
from kidney_ssl.errors import InputError, one_line
from kidney_ssl.jsonfile import write_json
from kidney_ssl.schema import SINGLE
from kidney_ssl.statistics.analysis_plan import plan_history

# As good as any, to build a task with.
PAIR = {"left": (0.0, 1.0, 0.0, 0.5), "right": (0.0, 1.0, 0.5, 1.0)}
ONE = {SINGLE: (0.0, 1.0, 0.0, 1.0)}
HISTORY, RESULTS = Path("metrics/plan.json"), Path("metrics/comparisons.json")


def main() -> None:
    """Refuse an unknown, missing or wrong key; write metrics/plan.json, what the plan is and what was added to it."""
    settings = config.load()
    if not (settings.network.startswith("resnet") and settings.data.classes.paired):
        _refuse_unfit(settings)
    history = plan_history(settings.model_dump(mode="json"), _read(HISTORY), _read(RESULTS).get("plan"))
    write_json(HISTORY, history)
    print(f"params.yaml: {len(settings.arms)} arms, {len(settings.budgets)} runs of each")


def _read(path: Path) -> Any:
    """A file in git; {} where it is not there, as at first, or taken away while `report` runs."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(str(error))}); run `git checkout {path}`") from error


def _refuse_unfit(settings: config.Params) -> None:
    """Refuse a network that timm lacks, that takes no slices of this size, and a task that cannot be set up here."""
    import torch  # noqa: PLC0415 - seconds of imports, and only for networks of timm

    from kidney_ssl import methods  # noqa: PLC0415 - as above
    from kidney_ssl.methods.base import Setting, read_options  # noqa: PLC0415 - as above
    from kidney_ssl.models.resnet import classifier  # noqa: PLC0415 - as above

    size = settings.slice.image_size
    model = classifier(settings.network, 0).eval()
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 1, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        said = one_line(str(error))
        raise InputError(f"network: {settings.network} takes no slices of {size} x {size} ({said})") from error
    regions = PAIR if settings.data.classes.paired else ONE
    for name, block in settings.pretrain.methods.items():
        kind = methods.load(block.method)
        options = read_options(kind, block.options, f"pretrain.methods.{name}.options")
        try:
            kind(Setting(settings.network, size, regions, 0), options)
        except InputError as error:
            raise InputError(f"pretrain.methods.{name}: {error}") from error


if __name__ == "__main__":
    from stages.run import run

    run(main)
