"""Lay an arm's start weights under the arm's own name, where a matrix stage can find them (DVC cannot look up)."""

import shutil
from pathlib import Path

from kidney_ssl import params
from stages import run


def main(name: str) -> None:
    """Copy models/<weights>.safetensors to models/arm/<name>.safetensors."""
    arm = params.load().arms[name]
    target = Path(f"models/arm/{name}.safetensors")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(f"models/{arm.weights}.safetensors", target)
    print(f"{name}: {arm.weights}")


if __name__ == "__main__":
    run(main)
