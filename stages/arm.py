"""Lay what an arm is made of under the arm's own name, where a matrix stage can find it (DVC cannot look up)."""

import hashlib
import shutil
from pathlib import Path

from kidney_ssl import params
from kidney_ssl.errors import InputError
from kidney_ssl.jsonfile import write_json
from stages import run


def main(name: str) -> None:
    """Copy models/<weights>.safetensors to models/arm/<name>.safetensors, and describe the augmentation beside it."""
    arms = params.load().arms
    if name not in arms:
        raise InputError(f"arms: no arm '{name}' in params.yaml, known: {', '.join(arms)}")
    arm = arms[name]
    target = Path(f"models/arm/{name}.safetensors")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(f"models/{arm.weights}.safetensors", target)
    # The code's hash: with another augmentation file the fine-tuning must run again, and it depends on this alone.
    code = hashlib.sha256(Path(f"src/kidney_ssl/augmentation/{arm.augmentation}.py").read_bytes()).hexdigest()
    described = {"arm": name, "code": code} | arm.model_dump(include={"augmentation", "extra_updates", "options"})
    write_json(target.with_suffix(".json"), described)
    print(f"{name}: {arm.weights}, augmentation {arm.augmentation}")


if __name__ == "__main__":
    run(main)
