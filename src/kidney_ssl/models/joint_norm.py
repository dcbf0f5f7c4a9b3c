"""Batch norm over the joined batch of several processes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kidney_ssl.models.processes import count, total


@contextmanager
def joint_norms(model: nn.Module) -> Iterator[None]:
    """Let a model's batch norms see the joined batch while the block runs; in one process nothing happens.

    Layers keep their identity, parameters, buffers and names: only their class changes and comes back, so that what
    is saved or evaluated is an ordinary model. On a GPU the class is torch's SyncBatchNorm; that refuses CPU tensors,
    for which there is an own one.

    Args:
        model: on its device.
    """
    if count() == 1:
        yield
        return
    norms = [module for module in model.modules() if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d)]
    classes = [type(norm) for norm in norms]
    try:
        for norm in norms:
            one_d, gpu = type(norm) is nn.BatchNorm1d, next(model.parameters()).is_cuda
            norm.__class__ = (_Gpu1d if gpu else _Joint1d) if one_d else (_Gpu2d if gpu else _Joint2d)
        yield
    finally:
        for norm, own in zip(norms, classes, strict=True):
            norm.__class__ = own


def joint_batch_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, values: Tensor) -> Tensor:
    """What the layer gives in training mode for the joined batch: this process's rows of it.

    y = (x - m) / sqrt(v + eps) * weight + bias, where m and v are mean and biased variance of each channel over the
    values of all processes. Running statistics move as torch's do, with the unbiased variance. Gradients reach other
    processes' values through m and v.

    Args:
        norm: the layer.
        values: (n, C) or (n, C, H, W), this process's share.
    """
    axes = [axis for axis in range(values.ndim) if axis != 1]
    shape = [1, -1, *[1] * (values.ndim - 2)]
    seen = values.to(norm.weight.dtype)  # autocast may give half precision
    number = seen.new_tensor([seen.numel() // seen.shape[1]], dtype=torch.float64)
    sums = total(torch.cat([seen.sum(axes, dtype=torch.float64), number]))
    whole = sums[-1].detach()
    mean = sums[:-1] / whole
    apart = seen - mean.to(seen.dtype).view(shape)
    variance = total(apart.square().sum(axes, dtype=torch.float64)) / whole
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            newest = 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean.to(seen.dtype), newest)
            norm.running_var.lerp_((variance * whole / (whole - 1)).to(seen.dtype), newest)
    scale = (variance + norm.eps).rsqrt().to(seen.dtype) * norm.weight
    return (apart * scale.view(shape) + norm.bias.view(shape)).to(values.dtype)


class _Joint1d(nn.BatchNorm1d):
    """See `joint_batch_norm`."""

    def forward(self, values: Tensor) -> Tensor:
        return joint_batch_norm(self, values) if self.training else super().forward(values)


class _Joint2d(nn.BatchNorm2d):
    """See `joint_batch_norm`."""

    def forward(self, values: Tensor) -> Tensor:
        return joint_batch_norm(self, values) if self.training else super().forward(values)


class _Gpu1d(nn.SyncBatchNorm, nn.BatchNorm1d):
    """SyncBatchNorm that is found where BatchNorm1d is looked for."""

    process_group = None


class _Gpu2d(nn.SyncBatchNorm, nn.BatchNorm2d):
    """SyncBatchNorm that is found where BatchNorm2d is looked for."""

    process_group = None
