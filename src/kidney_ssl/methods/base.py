"""The contract of a pretext task: what a method's file must define."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from kidney_ssl.errors import InputError

# Fractions of the image's side, half-open: [top, bottom, left, right].
Rectangle = tuple[float, float, float, float]
Box = tuple[int, int, int, int]  # the same in pixels


class Options(BaseModel):
    """A method's own parameters, `options` of its block in params.yaml: typed; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True)
class Setting:
    """Settings from which a method is built."""

    network: str  # see `kidney_ssl.models.resnet.classifier`
    image_size: int  # side S of the slices in pixels
    # the rectangles around the organ: "left" and "right" in the image, or "organ" for a single one. They were found
    # with labels, so a method that reads them is not entirely unsupervised.
    regions: Mapping[str, Rectangle]
    seed: int  # seed of the weights that the method adds to the encoder (heads, decoder)
    batch_norm_momentum: float = 0.1  # weight of the newest batch in running statistics


class Picture(NamedTuple):
    """A grid of images with titles of its columns."""

    images: Tensor  # (rows, columns, H, W) in [0, 1]
    columns: tuple[str, ...]
    outlined: Tensor | None = None  # (rows, H, W) bool, a place to outline in each image of a row


class PretextBatch(NamedTuple):
    """Input of a method with `reads_batch`, all on the device; entry i of each tensor belongs to slice i."""

    images: Tensor  # (B, 1, S, S) float32 in [0, 1], unaugmented slices; (B, 2, S, S) if the method reads masks
    rows: Tensor  # (B,) int64, the slices' rows in their part (in training: in the pool)
    case: Tensor  # (B,) int64, number of the slice's case in the part
    position: Tensor  # (B,) float32, position along the volume, from 0 at the top to 1 at the bottom
    z_mm: Tensor  # (B,) float32, distance from the volume's first slice in mm
    # (B, 2) int64, rows of the part's nearest slices of the same case above and below; -1 where there is none
    neighbors: Tensor
    read: Callable[[Tensor], Tensor]  # rows (n,) int64 on the device -> their images (n, 1 or 2, S, S)
    update: int  # optimizer steps made so far
    updates: int  # optimizer steps of the whole training


class ParameterGroup(NamedTuple):
    """Parameters with the same learning rate and weight decay, relative to the recipe."""

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0  # factor of the learning rate
    decay: float = 1.0  # factor of the weight decay


class Pretext(nn.Module, ABC):
    """A pretext task: a network, a loss, metrics and pictures, and nothing else.

    All random numbers come from the given generator, which is on the batch's device. They are drawn for the whole
    batch at once, with separate parameters for each image. Everything that changes in training is in the `state_dict`,
    as parameters or buffers, so that a killed training resumes with identical bits. A method never touches optimizer,
    precision, device or files.

    A simple method only defines `step`, `validate` and `pictures`. `begin`, `after_step`, `parameter_groups` and
    `exported` are for methods with a teacher; their defaults do nothing special.

    Attributes:
        Parameters: the method's options.
        control: whether the method is a control, which the report marks, and not a candidate.
        reads_masks: whether the method also gets the masks, which makes it supervised. Its images are then
            (B, 2, S, S): the slice, and the label of each pixel as a float, 0 none, 1 kidney, 2 tumor, 3 cyst.
        reads_batch: whether `step`, `validate` and `pictures` get a `PretextBatch` instead of images.
        one_slice_per_case: whether a batch should have only one slice of a case (or distant slices, if cases have more
            slices than there are batches), because neighbouring slices would be false negatives.
        encoder: the part that gets the initial weights and is used in the classifier, unless `exported` is another
            module; its `state_dict` has the names of `kidney_ssl.models.resnet.encoder`.
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
            images: (B, 1, S, S) float32 in [0, 1], unaugmented slices; see `reads_masks` and `reads_batch`.
            generator: source of all random numbers.

        Returns:
            The loss, and metrics for the log; all are scalars.
        """

    @abstractmethod
    def validate(self, images: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """Compute the metrics of one batch in evaluation mode, without gradients.

        Returns:
            Metric -> (B,) values, averaged later over all validation slices. "loss" is one of them. A trivial predictor
            that the method must beat has the metric's name followed by its own: "mse", "mse_copy".
        """

    @abstractmethod
    def pictures(self, images: Any, generator: torch.Generator) -> dict[str, Picture]:
        """Show the task on a few slices: name -> grid; in evaluation mode, without gradients."""

    def begin(self) -> None:
        """Prepare for training; `encoder` has its initial weights by now, so a teacher can be copied from it.

        Called once, before the optimizer is made; on a resume also, before the state is restored.
        """

    def after_step(self, update: int, updates: int) -> None:
        """Run after optimizer step `update` of `updates`, from 0, without gradients; a teacher is updated here."""

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Parameters to train, each in exactly one group with its own learning rate and weight decay."""
        return [ParameterGroup(list(self.parameters()))]

    @property
    def exported(self) -> nn.Module:
        """The module to probe and to use in the classifier, with the encoder's parameter names; may be a teacher."""
        return self.encoder


class HasOptions(Protocol):
    """A pretext task or an augmentation."""

    Parameters: ClassVar[type[Options]]


def read_options(kind: type[HasOptions], options: Mapping[str, Any], key: str) -> Options:
    """Check the options at `key` of params.yaml against the options model of a method or an augmentation.

    Raises:
        InputError: one line that names every wrong key.
    """
    try:
        return kind.Parameters.model_validate(dict(options))
    except ValidationError as error:
        found = [f"{'.'.join([key, *map(str, item['loc'])])}: {item['msg']}" for item in error.errors()]
        raise InputError(f"params.yaml: {'; '.join(found)}") from None


def pixels(rectangle: Rectangle, size: int, name: str) -> Box:
    """Convert a region to pixels.

    Raises:
        InputError: the region has no pixel at this size.
    """
    top, bottom, left, right = (round(edge * size) for edge in rectangle)
    if top >= bottom or left >= right:
        raise InputError(f"region '{name}' {list(rectangle)} holds no pixel of {size} x {size}: make it larger")
    return top, bottom, left, right
