"""Weights files and the two kinds of initial weights: random and ImageNet.

A weights file is safetensors without metadata: the same tensors give the same bytes. An encoder's file holds
torchvision's names, batch-norm buffers included and the head left out, with a `conv1` of one input channel.
"""

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kidney_ssl.errors import InputError
from kidney_ssl.models.resnet import HEAD, classifier

# What torchvision normalises colour images in [0, 1] with before an ImageNet network sees them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
COUNTER = "num_batches_tracked"  # the one buffer that weights made by old torch versions lack

State = dict[str, Tensor]


def encoder_state(model: nn.Module) -> State:
    """The encoder's parameters and buffers by torchvision's names: everything but the head."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(HEAD)}


def save_weights(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Write tensors as safetensors without metadata, whole or not at all."""
    from safetensors.torch import save_file  # noqa: PLC0415 - evaluation imports this module without writing

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, part)
    part.replace(path)


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
    """Refuse weights that do not fit a network, key by key.

    Raises:
        InputError: one line with the file and the first wrong keys of each kind.
    """
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    shapes = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    found = {"lacks": missing, "has unexpected": unexpected, "wrong shape:": shapes}
    problems = [f"{what} {_some(keys)}" for what, keys in found.items() if keys]
    if problems:
        raise InputError(f"{path}: {'; '.join(problems)}. Are these the weights of the `network` of params.yaml?")


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def random_weights(network: str, seed: int) -> State:
    """An encoder's random initial weights; see `classifier`."""
    return encoder_state(classifier(network, seed))


def imagenet_weights(network: str, file: str | Path | None = None) -> State:
    """An encoder with torchvision's ImageNet weights (`IMAGENET1K_V1`) for grey slices in [0, 1].

    Args:
        network: see `classifier`.
        file: a local `.safetensors`, or a `.pth` of tensors alone, with torchvision's names and three input
            channels. None: the file where torchvision looks (`torch.hub`'s folder), downloaded if absent.

    Returns:
        State of the encoder with one input channel, see `fold_colour`.

    Raises:
        InputError: the weights are absent and cannot be downloaded, are damaged, hold code, or do not fit.
    """
    path, state = _local(file) if file is not None else _torchvision(network)
    expected = random_weights(network, seed=0)
    expected["conv1.weight"] = expected["conv1.weight"].expand(-1, 3, -1, -1)
    encoder = {name: tensor for name, tensor in state.items() if not name.startswith(HEAD)}
    counters = {name: tensor for name, tensor in expected.items() if name.endswith(COUNTER)}
    encoder = counters | encoder
    refuse_mismatch(path, encoder, expected)
    return fold_colour({name: encoder[name].to(tensor.dtype) for name, tensor in expected.items()})


def fold_colour(
    state: Mapping[str, Tensor],
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> State:
    """Turn a colour encoder into one that takes the grey image once, normalisation included.

    For a grey image x, given three times and normalised, the first convolution is

        sum_c w_c * (x - m_c) / s_c  =  (sum_c w_c / s_c) * x  -  K,    K = sum over taps and c of w_c m_c / s_c.

    The bracket is the new kernel; K goes into the running mean of `bn1`, which is subtracted next (`conv1` has no
    bias). This is exact where the kernel lies inside the image. At the border torchvision pads with zeros AFTER
    normalisation, i.e. with the mean colour; here the padding is black, which is air as the slice's own frame, so
    the two agree everywhere when the colour network is given an image padded with black.

    Args:
        state: encoder with `conv1.weight` (64, 3, 7, 7).
        mean: what the colour network's input had subtracted, per channel.
        std: what it was divided by, per channel.

    Returns:
        The same state with `conv1.weight` (64, 1, 7, 7) and the shifted `bn1.running_mean`.
    """
    kernel = state["conv1.weight"].double() / torch.tensor(std, dtype=torch.float64).view(1, 3, 1, 1)
    constant = (kernel * torch.tensor(mean, dtype=torch.float64).view(1, 3, 1, 1)).sum(dim=(1, 2, 3))
    return dict(state) | {
        "conv1.weight": kernel.sum(dim=1, keepdim=True).float(),
        "bn1.running_mean": (state["bn1.running_mean"].double() + constant).float(),
    }


def _local(file: str | Path) -> tuple[Path, State]:
    """Read a local weights file of either kind."""
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; correct initialize.imagenet.file or set it to null")
    return path, read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path)


def _read_pth(path: Path) -> State:
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: holds code or objects besides tensors, refused; save it as safetensors") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a whole weights file; delete it and fetch it again") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"{path}: must be a plain mapping of names to tensors, as torchvision publishes it")
    return dict(state)


def _torchvision(network: str) -> tuple[Path, State]:
    """The published weights by torchvision's weight API; a file that is already there needs no network."""
    from torchvision import models  # noqa: PLC0415 - a second of imports

    weights = models.get_model_weights(network)["IMAGENET1K_V1"]
    path = Path(torch.hub.get_dir(), "checkpoints", weights.url.rsplit("/", 1)[-1])
    if not path.is_file():
        try:
            # A download is compared with the hash in its name before it is moved into place.
            weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"ImageNet weights of {network} are absent and cannot be downloaded ({error}): "
                f"place {weights.url} at {path}, or name a local file in initialize.imagenet.file"
            ) from error
    elif not _sha256(path).startswith(path.stem.rsplit("-", 1)[-1]):
        # torchvision compares only what it downloads, and puts the hash's start into the name: resnet18-f37072fd.
        warnings.warn(f"{path}: not the file that torchvision publishes under this name; used as it is", stacklevel=3)
    return path, _read_pth(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
