"""Lay an arm's start weights under the arm's own name, where a matrix stage can find them (DVC cannot look up)."""

import shutil
from pathlib import Path

from kidney_ssl import params
from kidney_ssl.errors import InputError
from stages import run


def main(name: str) -> None:
    """Copy models/<weights>.safetensors to models/arm/<name>.safetensors."""
    arms = params.load().arms
    if name not in arms:
        raise InputError(f"arms: no arm '{name}' in params.yaml, known: {', '.join(arms)}")
    target = Path(f"models/arm/{name}.safetensors")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(f"models/{arms[name].weights}.safetensors", target)
    print(f"{name}: {arms[name].weights}")


if __name__ == "__main__":
    run(main)
