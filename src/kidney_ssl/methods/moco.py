"""MoCo v2 (He et al. 2020, Chen et al. 2020): find a view's other view among those of slices seen before."""

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
NOBODY = -1  # case of what a queue begins with
LEAST = 8  # slices that batch norm sees at once, if a batch has as many


class MocoOptions(ViewOptions):
    """Options of MoCo, with those of its views.

    Attributes:
        temperature: tau of InfoNCE.
        momentum: of the key network.
        queue: keys that wait as negatives. The published 65,536 are a twentieth of ImageNet.
        groups: parts of a batch that batch norm normalises apart, as eight GPUs do in the paper; the keys are shuffled
            over them. Else the positive is found by the statistics that it shares with its query.
    """

    temperature: Annotated[float, Field(ge=0.01, le=1)] = 0.2
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.999
    queue: Annotated[int, Field(ge=1)] = 65536
    groups: Annotated[int, Field(ge=1)] = 8


class Method(TwoViews):
    """An encoder with a projector for queries, a slow copy of both for keys, and a queue of keys.

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
        """The key network begins with the start weights too."""
        self.keys[0].load_state_dict(self.encoder.state_dict())

    def after_step(self, update: int, updates: int) -> None:
        """Move the key network."""
        follow(self.keys, nn.Sequential(self.encoder, self.head), self.options.momentum)

    def step(self, batch: PretextBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE of the batch; its keys join the queue afterwards, and the oldest leave."""
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
        """Parts of this process's `own` slices: as many in every process, though one may have a slice less."""
        share = int(total(torch.tensor(own, device=self.queue.device))) // count()
        return max(1, min(self.options.groups, share * count() // LEAST, share))

    def _logits(self, queries: Tensor, keys: Tensor, case: Tensor) -> Tensor:
        """Similarities over tau, (B, 1 + K): with the own key first, then with those of the queue; -inf left out."""
        with torch.autocast(queries.device.type, enabled=False):
            own = (queries * keys).sum(1, keepdim=True)
            # A copy: the queue changes before the gradient is taken.
            others = queries @ self.queue.clone().T
        others = others.masked_fill(case[:, None] == self.cases, -torch.inf)
        return torch.cat([own, others], 1) / self.options.temperature

    def validate(self, batch: PretextBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE of each slice among the queue of training slices, beside that of equal similarities; `compared`."""
        views = self.views(batch.images, generator)
        projected = self.head(self.encoder(views)).float()
        queries, keys = _unit(projected.chunk(2)[0]), _unit(self.keys(views.chunk(2)[1]))
        # Validation slices have no case in the queue, and their numbers are of another part.
        logits = self._logits(queries, keys, torch.full_like(batch.case, NOBODY - 1))
        losses = cross_entropy(logits, torch.zeros_like(batch.case), reduction="none")
        chance = torch.full_like(losses, math.log(1 + len(self.queue)))
        return self.compared(views, projected, losses) | {"loss_chance": chance}

    def pictures(self, batch: PretextBatch, generator: torch.Generator) -> dict[str, Picture]:
        """See `TwoViews`."""
        return super().pictures(batch.images, generator)


def _unit(projected: Tensor) -> Tensor:
    return normalize(projected.float(), dim=1)
