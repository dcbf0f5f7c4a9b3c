"""The contract of a pretext task: what a method's file must hold."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from kidney_ssl.errors import InputError

# Fractions of the frame's side, half-open: [top, bottom, left, right].
Rectangle = tuple[float, float, float, float]
Box = tuple[int, int, int, int]  # the same in pixels


class Options(BaseModel):
    """A method's own parameters, `options` of its block in params.yaml: typed, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True)
class Setting:
    """What a method is built for."""

    network: str  # see `kidney_ssl.models.resnet.classifier`
    image_size: int  # side S of the slices in pixels
    # the rectangles around the organ: "left" and "right" in the image, or "organ" of a single one. They were found with
    # labels: a method that reads them is unsupervised but for that.
    regions: Mapping[str, Rectangle]
    seed: int  # decides the weights that the method adds to the encoder (heads, decoder)
    batch_norm_momentum: float = 0.1  # weight of the newest batch in running statistics


class Picture(NamedTuple):
    """A grid of images to look at, and what its columns show."""

    images: Tensor  # (rows, columns, H, W) in [0, 1]
    columns: tuple[str, ...]
    outlined: Tensor | None = None  # (rows, H, W) bool, a place to outline in each image of a row


class PretextBatch(NamedTuple):
    """What a method that `reads_batch` is given, all on the device; entry i of each belongs to slice i."""

    images: Tensor  # (B, 1, S, S) float32 in [0, 1], clean slices; (B, 2, S, S) if the method reads masks
    rows: Tensor  # (B,) int64, the slices' rows in their part, which is the pool in training
    case: Tensor  # (B,) int64, number of the slice's case in the part
    position: Tensor  # (B,) float32, place along the volume, from 0 at the top to 1 at the bottom
    z_mm: Tensor  # (B,) float32, distance from the volume's first slice in mm
    # (B, 2) int64, rows of the part's nearest slices of the same case above and below; -1 where there is none
    neighbors: Tensor
    read: Callable[[Tensor], Tensor]  # rows (n,) int64 on the device -> their images (n, 1 or 2, S, S)
    update: int  # optimizer steps made so far
    updates: int  # optimizer steps of the whole training


class ParameterGroup(NamedTuple):
    """Parameters that are trained alike, relative to the recipe."""

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0  # factor of the learning rate
    decay: float = 1.0  # factor of the weight decay


class Pretext(nn.Module, ABC):
    """A pretext task: a network, a loss, metrics to judge it by, pictures to look at. Nothing else.

    Everything random is drawn from the generator that is passed in, which lives on the batch's device, for the whole
    batch at once and with parameters of its own for each image. All that changes in training is in the `state_dict`:
    parameters and buffers, so that a killed training goes on with the same bits. A method never touches optimizer,
    precision, device or files.

    `step`, `validate` and `pictures` are all that a simple method gives. `begin`, `after_step`, `parameter_groups` and
    `exported` are there for methods with a teacher, and do nothing otherwise.

    Attributes:
        Parameters: the method's options.
        control: whether the method is there to judge the study by and is no contender: the report marks it.
        reads_masks: whether the method is given the masks too, which makes it supervised. Its images are then
            (B, 2, S, S): the slice, and the label of each pixel as a float, 0 none, 1 kidney, 2 tumor, 3 cyst.
        reads_batch: whether `step`, `validate` and `pictures` are given a `PretextBatch` instead of images.
        one_slice_per_case: whether a batch should hold one slice of a case, or distant ones where cases have more
            slices than there are batches, since neighbouring slices would be false negatives.
        encoder: the part that gets the start weights and, unless `exported` is another, goes on into the classifier;
            its `state_dict` has the names of `kidney_ssl.models.resnet.encoder`.
    """

    Parameters: ClassVar[type[Options]] = Options
    control: ClassVar[bool] = False
    reads_masks: ClassVar[bool] = False
    reads_batch: ClassVar[bool] = False
    one_slice_per_case: ClassVar[bool] = False
    encoder: nn.Module

    @abstractmethod
    def __init__(self, setting: Setting, options: Any) -> None:
        """Build the network; `options` is an instance of `Parameters`."""
        super().__init__()

    @abstractmethod
    def step(self, images: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of one batch in training mode.

        Args:
            images: (B, 1, S, S) float32 in [0, 1], clean slices; see `reads_masks` and `reads_batch`.
            generator: all chance comes from it.

        Returns:
            The loss and metrics for the log, scalars both.
        """

    @abstractmethod
    def validate(self, images: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """Compute the metrics of one batch in evaluation mode, without gradients.

        Returns:
            (B,) a metric, averaged over all validation slices later; "loss" among them, and the trivial predictor
            that the method must beat under the same name with the predictor's name behind it: "mse", "mse_copy".
        """

    @abstractmethod
    def pictures(self, images: Any, generator: torch.Generator) -> dict[str, Picture]:
        """Show what the method does to a few slices: name -> grid; evaluation mode, without gradients."""

    def begin(self) -> None:
        """Begin with the start weights, which `encoder` has by now: a teacher is copied here.

        Called once, before the optimizer is made; after a kill too, before the state is restored.
        """

    def after_step(self, update: int, updates: int) -> None:
        """Follow the optimizer's step number `update` of `updates`, from 0: a teacher moves here; without gradients."""

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Give the parameters to train, each once, in groups with rates and decays of their own."""
        return [ParameterGroup(list(self.parameters()))]

    @property
    def exported(self) -> nn.Module:
        """The module that is probed and goes on into the classifier, of the encoder's names: a teacher, perhaps."""
        return self.encoder


class HasOptions(Protocol):
    """A pretext task or an augmentation."""

    Parameters: ClassVar[type[Options]]


def read_options(kind: type[HasOptions], options: Mapping[str, Any], key: str) -> Options:
    """Check the options that stand at `key` of params.yaml against the model of a method or an augmentation.

    Raises:
        InputError: one line that names every wrong key.
    """
    try:
        return kind.Parameters.model_validate(dict(options))
    except ValidationError as error:
        found = [f"{'.'.join([key, *map(str, item['loc'])])}: {item['msg']}" for item in error.errors()]
        raise InputError(f"params.yaml: {'; '.join(found)}") from None


def pixels(rectangle: Rectangle, size: int, name: str) -> Box:
    """Turn a region into pixels.

    Raises:
        InputError: it holds no pixel at this size.
    """
    top, bottom, left, right = (round(edge * size) for edge in rectangle)
    if top >= bottom or left >= right:
        raise InputError(f"region '{name}' {list(rectangle)} holds no pixel of {size} x {size}: make it larger")
    return top, bottom, left, right
