"""Optimizer and learning-rate schedule of every training, from torch, with LARS from lightly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, ReduceLROnPlateau, SequentialLR

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MOMENTUM = 0.9  # of LARS, as in SimCLR and Barlow Twins
# Parameters trained alike, with factors for the learning rate and the weight decay.
Group = tuple[Sequence[nn.Parameter], float, float]


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How weights are updated: a recipe of params.yaml. The defaults are plain Adam at a constant rate."""

    optimizer: str = "adam"  # adam, adamw or lars
    weight_decay: float = 0.0  # adam, lars: an L2 term, added to the gradient; adamw: decoupled from it
    decay_norms: bool = True  # whether norms and biases decay too; LARS adapts the rate only of what decays
    schedule: str = "constant"  # constant, cosine (to 0 at the last update) or plateau
    warmup: float = 0.0  # share of all updates, at the start, in which the rate rises linearly
    plateau: Mapping[str, Any] | None = None  # factor and patience of ReduceLROnPlateau, for schedule plateau
    clip: float | None = None  # largest global gradient norm; None: no clipping


def make_optimizer(
    groups: Sequence[Group], learning_rate: float, recipe: Optimization, fabric: "Fabric"
) -> torch.optim.Optimizer:
    """Make an optimizer, before `fabric` sets it up.

    Args:
        groups: the parameters to train, see `Group`.
        learning_rate: the highest of the schedule.
        recipe: see `Optimization`.
        fabric: where it runs.
    """
    given = parameter_groups(groups, learning_rate, recipe)
    if recipe.optimizer == "lars":
        from lightly.utils.lars import LARS  # noqa: PLC0415 - seconds of imports

        return LARS(given, lr=learning_rate, momentum=MOMENTUM)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    # Fused: a loop over parameters takes a tenth of a CPU step at 96 px. But it unscales float16 gradients itself, too
    # late for clipping.
    scaled = getattr(fabric.strategy.precision, "scaler", None) is not None
    return kind(given, lr=learning_rate, fused=recipe.clip is None or not scaled)


def whole(module: nn.Module) -> list[Group]:
    """One group with all parameters of a module."""
    return [(list(module.parameters()), 1.0, 1.0)]


def parameter_groups(groups: Sequence[Group], learning_rate: float, recipe: Optimization) -> list[dict[str, Any]]:
    """Parameter groups for the optimizer, with rate and decay; norms and biases apart with `decay_norms: false`.

    Norms and biases are the parameters of one dimension. Parameters without a gradient are left out.
    """
    found: list[dict[str, Any]] = []
    for members, rate, decay in groups:
        trained = [one for one in members if one.requires_grad]
        parts = [(trained, decay)]
        if not recipe.decay_norms:
            parts = [
                ([one for one in trained if one.ndim > 1], decay),
                ([one for one in trained if one.ndim <= 1], 0.0),
            ]
        found += [
            {"params": part, "lr": learning_rate * rate, "weight_decay": recipe.weight_decay * factor}
            for part, factor in parts
            if part
        ]
    return found


class Schedule:
    """Learning rate over a training: set after each update, or after an epoch for a plateau.

    With w warm-up updates of n, update k (from 0) has the fraction (k + 1) / (w + 1) of the highest rate while k < w,
    and then with `cosine` the fraction (1 + cos(pi (k - w) / (n - w))) / 2.

    Args:
        optimizer: whose rates are set.
        recipe: see `Optimization`.
        updates: of the whole training.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Optimization, updates: int) -> None:
        warmup = min(round(recipe.warmup * updates), updates - 1)
        parts: list[LRScheduler] = []
        if warmup:
            parts.append(LinearLR(optimizer, 1 / (warmup + 1), total_iters=warmup))
        if recipe.schedule == "cosine":
            parts.append(CosineAnnealingLR(optimizer, updates - warmup))
        self._by_update = SequentialLR(optimizer, parts, [warmup][: len(parts) - 1]) if parts else None
        self._plateau = None
        if recipe.schedule == "plateau":
            self._plateau = ReduceLROnPlateau(optimizer, **(recipe.plateau or {}))

    def update(self, optimizer: torch.optim.Optimizer) -> float:
        """Update the weights and set the rate of the next update; return the rate of this one."""
        rate = float(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if self._by_update:
            self._by_update.step()
        return rate

    def after_epoch(self, row: Mapping[str, float]) -> None:
        """Lower the rate on a plateau of `validation_loss`; epochs without an evaluation do not count."""
        if self._plateau and "validation_loss" in row:
            self._plateau.step(row["validation_loss"])

    def state_dict(self) -> dict[str, Any]:
        """State that a resumed training needs beside that of the optimizer."""
        return {name: part.state_dict() for name, part in vars(self).items() if part is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state from a checkpoint."""
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)
