"""Sums, joined rows and batch norm over several processes that train one network, each on its share of every batch.

In a single process every function returns its argument. The gradients of the sums are those that the training loop
needs: it weights each process's loss so that all losses add up to (number of processes) x (loss of the joined batch),
and averages the gradients over processes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn


def count() -> int:
    """Number of processes that train together; 1 outside of such a training."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Rank of this process, from 0; rank 0 writes all files."""
    return distributed.get_rank() if count() > 1 else 0


def share(rows: Tensor) -> Tensor:
    """This process's consecutive part of a batch's rows; the parts differ by at most one row."""
    return rows if count() == 1 else torch.tensor_split(rows, count())[rank()]


def total(values: Tensor) -> Tensor:
    """Sum over processes of tensors of one shape.

    The gradient is summed over processes too, since the loss of every process depends on the sum.
    """
    return values if count() == 1 else cast(Tensor, _Total.apply(values))


def joined(rows: Tensor) -> Tensor:
    """Concatenate the rows of all processes, (n, ...) of each -> (N, ...), in the order of the joined batch.

    Shares may differ in size. This process's gradient includes what other processes compute from its rows.
    """
    if count() == 1:
        return rows
    lengths = torch.zeros(count(), dtype=torch.int64, device=rows.device)
    lengths[rank()] = len(rows)
    sizes = total(lengths).tolist()
    before, after = sum(sizes[: rank()]), sum(sizes[rank() + 1 :])
    # Zeros in place of the other rows: the sum then works for shares of any size, and adding zeros changes no value.
    pads = [rows.new_zeros((length, *rows.shape[1:])) for length in (before, after)]
    return total(torch.cat([pads[0], rows, pads[1]]))


def joint_mean(mean: Tensor, number: int) -> tuple[Tensor, int]:
    """Mean over the joined batch, from each process's mean over its `number` slices; and the number of all slices."""
    if count() == 1:
        return mean, number
    whole = int(total(torch.tensor(number, device=mean.device)))
    return total(mean * (number / whole)), whole


def joint_means(scalars: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Means over this process's slices, a `share` of the joined batch -> means over the joined batch, float32."""
    values = {name: value.detach().float() for name, value in scalars.items()}
    if count() == 1:
        return values
    means = total(torch.stack(list(values.values())).double() * share)
    return dict(zip(values, means.float(), strict=True))


class _Total(torch.autograd.Function):
    """The sum over processes, forwards and backwards."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        whole = values.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        whole = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(whole)
        return whole


@contextmanager
def joint_norms(model: nn.Module) -> Iterator[None]:
    """Let a model's batch norms see the joined batch inside the block; in a single process nothing happens.

    Only the class of the layers changes, and only inside the block, so the saved or evaluated model is an ordinary one.
    GPUs use torch's SyncBatchNorm, which refuses CPU tensors; CPUs use an implementation of ours.
    """
    if count() == 1:
        yield
        return
    norms = [module for module in model.modules() if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))]
    classes = [type(norm) for norm in norms]
    try:
        for norm in norms:
            one_d, gpu = type(norm) is nn.BatchNorm1d, next(model.parameters()).is_cuda
            if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d):
                norm.__class__ = (_Gpu1d if gpu else _Joint1d) if one_d else (_Gpu2d if gpu else _Joint2d)
            else:
                norm.__class__ = _JointAct2d
        yield
    finally:
        for norm, own in zip(norms, classes, strict=True):
            norm.__class__ = own


def joint_batch_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, values: Tensor) -> Tensor:
    """Output of a batch-norm layer in training mode for the joined batch: the rows of this process.

    y = (x - m) / sqrt(v + eps) * weight + bias, where m and v are mean and biased variance of each channel over the
    values of all processes. Running statistics move as torch's do, with the unbiased variance. Gradients reach other
    processes' values through m and v.

    `values` are this process's share, (n, C) or (n, C, H, W).
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


class _JointAct2d(nn.BatchNorm2d):
    """One of timm's, which hold their dropout and their activation, on any device; see `joint_batch_norm`."""

    drop: nn.Module
    act: nn.Module

    def forward(self, values: Tensor) -> Tensor:
        normed = joint_batch_norm(self, values) if self.training else super().forward(values)
        return self.act(self.drop(normed))


class _Gpu1d(nn.SyncBatchNorm, nn.BatchNorm1d):
    """SyncBatchNorm that is also an instance of BatchNorm1d."""

    process_group = None


class _Gpu2d(nn.SyncBatchNorm, nn.BatchNorm2d):
    """SyncBatchNorm that is also an instance of BatchNorm2d."""

    process_group = None
