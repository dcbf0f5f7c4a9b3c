"""The contract of a pretext task: what a method's file must hold."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

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
    """What a method is built for.

    Attributes:
        network: encoder, "resnet18", "resnet34" or "resnet50".
        image_size: side S of the slices in pixels.
        regions: the two kidney rectangles, "left" and "right" in the image. They were found with labels: a method
            that reads them is unsupervised but for that.
        seed: decides the weights that the method adds to the encoder (heads, decoder).
        batch_norm_momentum: weight of the newest batch in running statistics.
    """

    network: str
    image_size: int
    regions: Mapping[str, Rectangle]
    seed: int
    batch_norm_momentum: float = 0.1


class Picture(NamedTuple):
    """A grid of images to look at, and what its columns show."""

    images: Tensor  # (rows, columns, H, W) in [0, 1]
    columns: tuple[str, ...]
    outlined: Tensor | None = None  # (rows, H, W) bool, a place to outline in each image of a row


class Pretext(nn.Module, ABC):
    """A pretext task: a network, a loss, figures to judge it by, pictures to look at. Nothing else.

    Everything random is drawn from the generator that is passed in, which lives on the batch's device, for the whole
    batch at once and with parameters of its own for each image. A method never touches optimizer, precision, device
    or files.

    Attributes:
        Parameters: the method's options.
        control: whether the method is there to judge the study by and is no contender: the report marks it.
        reads_masks: whether the method is given the masks too, which makes it supervised. Its images are then
            (B, 2, S, S): the slice, and the label of each pixel as a float, 0 none, 1 kidney, 2 tumour, 3 cyst.
        one_slice_per_case: whether a batch should hold at most one slice of a case, since neighbouring slices would
            be false negatives.
        encoder: the part that goes on into the classifier; its `state_dict` has torchvision's names without `fc`.
    """

    Parameters: ClassVar[type[Options]] = Options
    control: ClassVar[bool] = False
    reads_masks: ClassVar[bool] = False
    one_slice_per_case: ClassVar[bool] = False
    encoder: nn.Module

    @abstractmethod
    def __init__(self, setting: Setting, options: Any) -> None:
        """Build the network; `options` is an instance of `Parameters`."""
        super().__init__()

    @abstractmethod
    def step(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of one batch in training mode.

        Args:
            images: (B, 1, S, S) float32 in [0, 1], clean slices; see `reads_masks`.
            generator: all chance comes from it.

        Returns:
            The loss and figures for the log, scalars both.
        """

    @abstractmethod
    def validate(self, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Compute the figures of one batch in evaluation mode, without gradients.

        Returns:
            (B,) a figure, averaged over all validation slices later; "loss" among them, and the trivial predictor
            that the method must beat under the same name with the predictor's name behind it: "mse", "mse_copy".
        """

    @abstractmethod
    def pictures(self, images: Tensor, generator: torch.Generator) -> dict[str, Picture]:
        """Show what the method does to a few slices: name -> grid; evaluation mode, without gradients."""


def read_options(method: type[Pretext], options: Mapping[str, Any], key: str) -> Options:
    """Check a block's options against the method's own model.

    Args:
        method: the method's class.
        options: from params.yaml.
        key: where they stand there, for messages.

    Raises:
        InputError: one line that names every wrong key.
    """
    try:
        return method.Parameters.model_validate(dict(options))
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
