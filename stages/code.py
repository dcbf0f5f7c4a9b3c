"""Write the version of the code of each kind of stage, pretext task and augmentation."""

import shutil
from pathlib import Path

from kidney_ssl.augmentations import AUGMENTATIONS
from kidney_ssl.code_version import SOURCES, code_version
from kidney_ssl.jsonfile import write_json
from kidney_ssl.methods import METHODS
from kidney_ssl.yamlfile import read_yaml

STAGES = Path(__file__).parent


def versions() -> dict[str, dict[str, str]]:
    """Version of the code by file: <stage>, pretrain/<method> and augmentations/<name>."""
    stages = read_yaml(Path("dvc.yaml").read_text(encoding="utf-8"), "dvc.yaml")["stages"]
    roots = {name: [f"stages.{name}"] for name in stages if name not in ("code", "pretrain")}
    roots |= {f"pretrain/{name}": ["stages.pretrain", f"kidney_ssl.methods.{name}"] for name in METHODS}
    roots |= {f"augmentations/{name}": [f"kidney_ssl.augmentations.{name}"] for name in AUGMENTATIONS}
    packages = SOURCES | {"stages": STAGES}
    return {name: code_version(*modules, packages=packages) for name, modules in roots.items()}


def main() -> None:
    """Write code/<name>.json for every version."""
    found, folder = versions(), Path("code")
    shutil.rmtree(folder, ignore_errors=True)
    for name, version in found.items():
        write_json(folder / f"{name}.json", version)
    print(f"versions of {len(found)} kinds of stages, pretext tasks and augmentations")


if __name__ == "__main__":
    from stages.run import run

    run(main)
