"""A classifier as an ONNX graph that takes HU: window and normalisation are inside, the body frame is not.

Cutting the body out of a slice (threshold, opening, components, holes) has no counterpart in ONNX.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from kidney_ssl.errors import InputError, one_line
from kidney_ssl.files import replacing

OPSET = 17
INPUT, OUTPUT = "hu", "probability"


class FromHu(nn.Module):
    """Slices in the body frame, (B, 1, S, S) float32 HU -> (B,) probability of tumor.

    Args:
        model: the classifier.
        window: low and high in HU.
        mode: see `kidney_ssl.data.normalization.normalise`, whose values these are, rounding to float16 included.
    """

    def __init__(self, model: nn.Module, window: tuple[float, float], mode: str) -> None:
        super().__init__()
        self.model, self.window, self.mode = model, window, mode

    def forward(self, hu: Tensor) -> Tensor:
        """See the class."""
        low, high = self.window
        clipped = hu.clamp(low, high)
        if self.mode == "window":
            scaled = (clipped - low) / (high - low)
        else:
            least = clipped.amin((2, 3), keepdim=True)
            span = clipped.amax((2, 3), keepdim=True) - least
            scaled = (clipped - least) / torch.where(span > 0, span, torch.ones_like(span))
        logits: Tensor = self.model(scaled.half().float())
        return torch.sigmoid(logits[:, 0])


def write_onnx(model: nn.Module, window: tuple[float, float], mode: str, size: int, path: Path) -> None:
    """Write the graph, with a free number of slices.

    Args:
        model: classifier on the CPU, in evaluation mode.
        window: see `FromHu`.
        mode: see `FromHu`.
        size: side of the body frame.
        path: the .onnx file.

    Raises:
        InputError: the package onnx is not installed, or the network has an operation that ONNX lacks.
    """
    try:
        import onnx  # noqa: F401, PLC0415 - optional: torch needs it to write a graph
    except ImportError as error:
        raise InputError("--onnx needs the package onnx: pip install 'kidney-ssl[onnx]'") from error
    whole = FromHu(model, window, mode).eval()
    with warnings.catch_warnings(), replacing(path) as beside:
        warnings.simplefilter("ignore")  # the exporter by tracing is called old; the new one needs onnxscript
        try:
            torch.onnx.export(
                whole,
                (torch.zeros(2, 1, size, size),),
                str(beside),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "slices"}, OUTPUT: {0: "slices"}},
                opset_version=OPSET,
                dynamo=False,
            )
        except (RuntimeError, ValueError, torch.onnx.errors.OnnxExporterError) as error:
            raise InputError(f"--onnx: this network cannot be written as ONNX ({one_line(str(error))})") from error
