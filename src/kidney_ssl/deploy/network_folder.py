"""A network folder: a classifier of a study, its encoder, and all that a slice goes through before the network.

network.json               preprocessing, classes, threshold, and what the training cases look like
model.safetensors          encoder and head (`fc.weight`, `fc.bias`), torchvision's or timm's names
encoder.safetensors        the same without the head
familiarity.safetensors    mean and whitening of the features of the training slices, see `familiarity`
README.md                  model card with the front matter of the Hugging Face hub
model.onnx                 with `--onnx`, see `onnx_graph`
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from kidney_ssl.config import Network, Rectangle, Section
from kidney_ssl.data.body import Frame
from kidney_ssl.errors import InputError, one_line
from kidney_ssl.explain import default_layer, grad_cam
from kidney_ssl.models.resnet import HEAD, RESNETS, classifier
from kidney_ssl.models.weights import State, read_safetensors, refuse_mismatch

SETTINGS, MODEL, ENCODER, FAMILIARITY = (
    "network.json",
    "model.safetensors",
    "encoder.safetensors",
    "familiarity.safetensors",
)
NOTICE = "Not a medical device. For research only: no number or picture here may guide the care of a patient."
LARGEST_SETTINGS = 1 << 20  # bytes of a network.json that is read
OF_TIMM = "model."  # where a `TimmEncoder` holds timm's network

Bounds = Annotated[tuple[float, float], Field(strict=False)]


class FrameSettings(Section):
    """The body frame, see `kidney_ssl.data.body.Frame`."""

    size: Annotated[int, Field(ge=32, le=1024)]
    body_hu: int
    opening_mm: Annotated[float, Field(gt=0)]


class Names(Section):
    """What the study calls organ, tumor and cyst."""

    organ: str
    tumor: str
    cyst: str
    paired: bool


class Familiar(Section):
    """What the labelled cases of the run look like, see `kidney_ssl.deploy.familiarity`."""

    cases: int
    slices: int
    spacing_mm: Bounds
    thickness_mm: Bounds
    quantile: float
    bound: float
    scores: list[float]


class Settings(Section):
    """network.json."""

    format: Literal[1]
    notice: str
    network: Network
    arm: str
    percent: int
    seed: int
    classes: Names
    min_tumor_px: int
    threshold: Annotated[float, Field(ge=0, le=1)]
    frame: FrameSettings
    window: Bounds
    range: Literal["window", "image"]
    regions: dict[str, Rectangle]
    layer: str | None
    familiar: Familiar

    @property
    def body_frame(self) -> Frame:
        """The body frame as the preparation of slices takes it."""
        return Frame(self.frame.size, self.frame.body_hu, self.frame.opening_mm)


def read_settings(folder: Path) -> Settings:
    """Read and check network.json.

    Raises:
        InputError: it is missing, damaged, or has an unknown, missing or wrong key.
    """
    path = folder / SETTINGS
    try:
        if path.stat().st_size > LARGEST_SETTINGS:
            raise InputError(f"{path}: larger than any network.json; export the network again")
        return Settings.model_validate(json.loads(path.read_bytes()))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give a folder made by `kidney-ssl export`"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        said = one_line(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        raise InputError(f"{path}: {said}; export the network again") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON ({one_line(str(error))}); export the network again") from error


def with_library_names(state: State, network: str) -> State:
    """Weights under the names of their library: timm's without the place where `TimmEncoder` holds them."""
    if network in RESNETS:
        return dict(state)
    return {name.removeprefix(OF_TIMM): tensor for name, tensor in state.items()}


def with_own_names(state: State, network: str) -> State:
    """Undo `with_library_names`."""
    if network in RESNETS:
        return state
    return {name if name.startswith(HEAD) else OF_TIMM + name: tensor for name, tensor in state.items()}


@dataclass(frozen=True)
class Seen:
    """What a classifier makes of a batch of slices.

    Attributes:
        logits: (B,) float64.
        features: (B, width) float32, what the head reads.
        maps: (B, h, w) float32, Grad-CAM of the logit; None if it was not asked for.
    """

    logits: np.ndarray
    features: np.ndarray
    maps: np.ndarray | None


class Classifier:
    """A trained network in evaluation mode and in float32, without gradients of weights.

    Args:
        model: the network, see `kidney_ssl.models.resnet.classifier`.
        layer: where Grad-CAM reads, see `grad_cam`.
        device: where it runs.
    """

    def __init__(self, model: nn.Module, layer: str | None, device: torch.device) -> None:
        model = model.to(device).eval().requires_grad_(requires_grad=False)
        self.model = model.to(memory_format=torch.channels_last)  # a quarter less time on a CPU
        self.layer, self.device = layer or default_layer(model), device
        self._features: list[Tensor] = []
        self._logits: list[Tensor] = []
        head: nn.Module = model.fc  # type: ignore[assignment] # a Module's attribute to mypy
        head.register_forward_pre_hook(lambda _, given: self._features.append(given[0].detach()))
        head.register_forward_hook(lambda _, __, logits: self._logits.append(logits.detach()))

    @classmethod
    def load(cls, folder: Path, settings: Settings, device: torch.device) -> "Classifier":
        """The network of a folder; no code in the folder is run.

        Raises:
            InputError: the weights are missing or damaged, or do not fit the network that network.json names.
        """
        model = classifier(settings.network, 0)
        state = with_own_names(read_safetensors(folder / MODEL), settings.network)
        refuse_mismatch(folder / MODEL, state, model.state_dict())
        model.load_state_dict(state)
        return cls(model, settings.layer, device)

    def look(self, images: np.ndarray, *, maps: bool) -> Seen:
        """Run the network once on slices (B, S, S) float16 in [0, 1], with or without Grad-CAM."""
        batch = torch.from_numpy(images).to(self.device).float().unsqueeze(1)
        self._features.clear()
        self._logits.clear()
        found = None
        if maps:
            # The layers before the one that is read keep no activations: nothing below it needs a gradient.
            layer = self.model.get_submodule(self.layer)
            cut = layer.register_forward_hook(lambda _, __, output: output.detach().requires_grad_())
            try:
                found = grad_cam(self.model, batch, self.layer).cpu().numpy()
            finally:
                cut.remove()
        else:
            with torch.no_grad():
                self.model(batch)
        logits = self._logits[0][:, 0].double().cpu().numpy()
        return Seen(logits, self._features[0].float().cpu().numpy(), found)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Probability of tumor of each slice, (N,) float64."""
    return torch.sigmoid(torch.from_numpy(logits)).numpy()
