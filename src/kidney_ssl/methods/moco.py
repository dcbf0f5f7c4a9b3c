"""MoCo v2 (He et al. 2020, Chen et al. 2020): find a slice's other view among views of earlier slices."""

import copy
import math
from typing import Annotated

import torch
from lightly.models.modules.heads import MoCoProjectionHead
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from kidney_ssl.engine.processes import count, joined, total
from kidney_ssl.methods.base import Picture, PretextBatch, Setting
from kidney_ssl.methods.views import TwoViews, ViewOptions
from kidney_ssl.models.momentum import follow
from kidney_ssl.models.resnet import seeded_weights, set_momentum

PROJECTED = 128  # width of the projection, as in the paper
NOBODY = -1  # case number of the queue's initial random keys
LEAST = 8  # minimum number of slices that batch norm normalises together, if a batch has as many


class MocoOptions(ViewOptions):
    """Options of MoCo, with those of its views.

    Attributes:
        temperature: tau of InfoNCE.
        momentum: of the key network.
        queue: number of keys kept as negatives. The published 65,536 are a twentieth of ImageNet.
        groups: parts of a batch with separate batch-norm statistics, as on eight GPUs in the paper; keys are shuffled
            across groups. Otherwise the positive could be recognised by the statistics shared with its query.
    """

    temperature: Annotated[float, Field(ge=0.01, le=1)] = 0.2
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.999
    queue: Annotated[int, Field(ge=1)] = 65536
    groups: Annotated[int, Field(ge=1)] = 8


class Method(TwoViews):
    """An encoder with a projector for queries, a moving average of both for keys, and a queue of keys.

    L = -log(exp(q.k+ / tau) / (exp(q.k+ / tau) + sum over the queue of exp(q.k / tau))), with unit vectors (Eq. 1).
    Keys of slices of the query's own case are left out of the sum: near-duplicates would be false negatives.
    """

    Parameters = MocoOptions
    reads_batch = True
    options: MocoOptions
    queue: Tensor  # (K, D) float32 unit vectors, the newest first
    cases: Tensor  # (K,) int64, their cases

    def __init__(self, setting: Setting, options: MocoOptions) -> None:
        """Build both networks and a queue of random directions, as the authors' code has it."""
        super().__init__(setting, options)
        with seeded_weights(setting.seed):
            self.head = MoCoProjectionHead(self.width, self.width, PROJECTED)
            self.register_buffer("queue", normalize(torch.randn(options.queue, PROJECTED), dim=1))
        self.register_buffer("cases", torch.full((options.queue,), NOBODY))
        set_momentum(self.head, setting.batch_norm_momentum)
        self.keys = copy.deepcopy(nn.Sequential(self.encoder, self.head)).requires_grad_(False)

    def begin(self) -> None:
        """Copy the initial weights to the key network."""
        self.keys[0].load_state_dict(self.encoder.state_dict())

    def after_step(self, update: int, updates: int) -> None:
        """Update the key network."""
        follow(self.keys, nn.Sequential(self.encoder, self.head), self.options.momentum)

    def step(self, batch: PretextBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE of the batch; then its keys enter the queue and the oldest ones leave."""
        first, second = self.views(batch.images, generator).chunk(2)
        groups = self._groups(len(first))
        queries = _unit(torch.cat([self.head(self.encoder(part)) for part in first.tensor_split(groups)]))
        order = torch.randperm(len(second), generator=generator, device=second.device)
        with torch.no_grad():
            shuffled = torch.cat([self.keys(part) for part in second[order].tensor_split(groups)])
            keys = _unit(shuffled)[order.argsort()]
        logits = self._logits(queries, keys, batch.case)
        loss = cross_entropy(logits, torch.zeros_like(batch.case))
        for waiting, new in ((self.queue, joined(keys)), (self.cases, joined(batch.case))):
            waiting.copy_(torch.cat([new, waiting])[: len(waiting)])
        return loss, {"accuracy": (logits.detach().argmax(1) == 0).float().mean()}

    def _groups(self, own: int) -> int:
        """Number of groups of this process's `own` slices; equal in all processes, though one may have a slice less."""
        share = int(total(torch.tensor(own, device=self.queue.device))) // count()
        return max(1, min(self.options.groups, share * count() // LEAST, share))

    def _logits(self, queries: Tensor, keys: Tensor, case: Tensor) -> Tensor:
        """Similarities / tau, (B, 1 + K): with the positive key, then with the queue; -inf for excluded keys."""
        with torch.autocast(queries.device.type, enabled=False):
            own = (queries * keys).sum(1, keepdim=True)
            # A copy, because the queue changes before the gradient is computed.
            others = queries @ self.queue.clone().T
        others = others.masked_fill(case[:, None] == self.cases, -torch.inf)
        return torch.cat([own, others], 1) / self.options.temperature

    def validate(self, batch: PretextBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE of each slice with the queue of training keys, that of equal similarities, and `compared`."""
        views = self.views(batch.images, generator)
        projected = self.head(self.encoder(views)).float()
        queries, keys = _unit(projected.chunk(2)[0]), _unit(self.keys(views.chunk(2)[1]))
        # No validation case is in the queue, and case numbers of another part must not match by chance.
        logits = self._logits(queries, keys, torch.full_like(batch.case, NOBODY - 1))
        losses = cross_entropy(logits, torch.zeros_like(batch.case), reduction="none")
        chance = torch.full_like(losses, math.log(1 + len(self.queue)))
        return self.compared(views, projected, losses) | {"loss_chance": chance}

    def pictures(self, batch: PretextBatch, generator: torch.Generator) -> dict[str, Picture]:
        """See `TwoViews`."""
        return super().pictures(batch.images, generator)


def _unit(projected: Tensor) -> Tensor:
    return normalize(projected.float(), dim=1)
