"""Several processes that train one network, each on its share of every batch: sums and rows over all of them.

In one process every function gives back what it got. The sums pass gradients on as the training loop needs them: it
weights each process's loss so that the losses of all add up to (number of processes) x (loss of the joined batch), and
averages the gradients over processes.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, distributed


def count() -> int:
    """How many processes train together; 1 outside of such a training."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0; the first writes all files."""
    return distributed.get_rank() if count() > 1 else 0


def share(rows: Tensor) -> Tensor:
    """This process's part of a batch's rows: consecutive ones, as many as any other process has, or one more."""
    return rows if count() == 1 else torch.tensor_split(rows, count())[rank()]


def total(values: Tensor) -> Tensor:
    """Sum over processes of tensors of one shape.

    The gradient is summed over processes too: each one's loss depends on the sum.
    """
    return values if count() == 1 else cast(Tensor, _Total.apply(values))


def joined(rows: Tensor) -> Tensor:
    """All processes' rows below each other, (n, ...) of each -> (N, ...), in the order of the joined batch.

    Shares may differ in size. What other processes compute from this one's rows counts in this one's gradient.
    """
    if count() == 1:
        return rows
    lengths = torch.zeros(count(), dtype=torch.int64, device=rows.device)
    lengths[rank()] = len(rows)
    sizes = total(lengths).tolist()
    before, after = sum(sizes[: rank()]), sum(sizes[rank() + 1 :])
    # Zeros where the others' rows go: a sum takes shares of any size, and adding zeros changes no value.
    pads = [rows.new_zeros((length, *rows.shape[1:])) for length in (before, after)]
    return total(torch.cat([pads[0], rows, pads[1]]))


def joint_mean(mean: Tensor, number: int) -> tuple[Tensor, int]:
    """Mean over the joined batch from each process's mean over its `number` slices; and the number of all slices."""
    if count() == 1:
        return mean, number
    whole = int(total(torch.tensor(number, device=mean.device)))
    return total(mean * (number / whole)), whole


def joint_figures(figures: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """Scalars that are means over this process's `number` slices -> means over the joined batch, float32."""
    values = {name: value.detach().float() for name, value in figures.items()}
    if count() == 1:
        return values
    means, _ = joint_mean(torch.stack(list(values.values())).double(), number)
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
