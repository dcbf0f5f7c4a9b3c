"""Make initial weights."""

from pathlib import Path

from kidney_ssl import params
from kidney_ssl.errors import InputError
from kidney_ssl.models.weights import imagenet_weights, random_weights, save_weights
from stages import run


def main(name: str) -> None:
    """Write models/initial/<name>.safetensors."""
    settings = params.load()
    if name == "random":
        state = random_weights(settings.network, settings.initialize.random.seed)
    elif name != "imagenet":
        raise InputError(f"initialize: no initial weights '{name}', known: random, imagenet")
    else:
        imagenet = settings.initialize.imagenet
        state = imagenet_weights(settings.network, imagenet.file if imagenet else None)
    save_weights(state, Path(f"models/initial/{name}.safetensors"))
    print(f"{name}: {sum(tensor.numel() for tensor in state.values()):,} values")


if __name__ == "__main__":
    run(main)
