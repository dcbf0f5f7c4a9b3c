"""Weights files: written, read, and checked against the network that they are for.

A weights file is safetensors without metadata: the same tensors give the same bytes. An encoder's file holds the names
of `kidney_ssl.models.resnet.encoder`, batch-norm buffers included and the head left out, with one input channel.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from kidney_ssl.errors import InputError
from kidney_ssl.files import replacing
from kidney_ssl.models.resnet import HEAD, classifier

State = dict[str, Tensor]


def encoder_state(model: nn.Module) -> State:
    """The encoder's parameters and buffers: everything but the head."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(HEAD)}


def save_weights(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Write tensors as safetensors without metadata, whole or not at all."""
    from safetensors.torch import save_file  # noqa: PLC0415 - evaluation imports this module without writing

    with replacing(Path(path)) as beside:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, beside)


def load_encoder(model: nn.Module, path: str | Path) -> None:
    """Copy an encoder's weights into a classifier; the head stays as it is.

    Raises:
        InputError: the file is missing or damaged, or a key is missing, left over or of another shape.
    """
    state = read_safetensors(path)
    refuse_mismatch(path, state, encoder_state(model))
    model.load_state_dict(state, strict=False)


def load_classifier(model: nn.Module, path: str | Path) -> None:
    """Copy a fine-tuned classifier's weights, head included; raises as `load_encoder`."""
    state = read_safetensors(path)
    refuse_mismatch(path, state, model.state_dict())
    model.load_state_dict(state)


def read_safetensors(path: str | Path) -> State:
    """Read a safetensors file onto the CPU.

    Raises:
        InputError: the file is missing or no safetensors.
    """
    from safetensors import SafetensorError  # noqa: PLC0415 - only who reads weights pays for the import
    from safetensors.torch import load_file  # noqa: PLC0415 - as above

    try:
        state: State = load_file(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); make it again") from error
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); make it again") from error
    return state


def refuse_mismatch(path: str | Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse weights that do not fit a network: InputError with the file and the first wrong keys of each kind."""
    absent = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    found = {"lacks": absent, "has unexpected": unexpected, "wrong shape:": shapes}
    problems = [f"{what} {_some(keys)}" for what, keys in found.items() if keys]
    if problems:
        raise InputError(f"{path}: {'; '.join(problems)}. Are these the weights of the `network` of params.yaml?")


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def random_weights(network: str, seed: int) -> State:
    """An encoder's random initial weights; see `classifier`."""
    return encoder_state(classifier(network, seed))
