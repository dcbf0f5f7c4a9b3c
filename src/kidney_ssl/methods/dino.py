"""DINO (Caron et al. 2021): match, from small crops, the output of a slowly updated teacher on large crops."""

import copy
import math
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import linear, log_softmax, normalize

from kidney_ssl.engine.processes import joint_mean
from kidney_ssl.methods.base import ParameterGroup, Picture, PretextBatch, Setting
from kidney_ssl.methods.views import Probability, TwoViews, ViewOptions, apply_views, draw_views, reduced
from kidney_ssl.models.momentum import cosine_momentum, follow
from kidney_ssl.models.resnet import seeded_weights

HIDDEN, BOTTLENECK = 2048, 256  # widths of the head, as in the paper
GLOBAL = 2  # large crops, the teacher's input
SHOWN = 4  # maximum number of small crops in the pictures


class DinoOptions(ViewOptions):
    """Options of DINO and its views; a large crop has a share of `min_scale` to 1 of the slice's area.

    Attributes:
        local_crops: number of small crops per slice.
        local_min_scale: smallest share of the slice's area in a small crop.
        local_max_scale: largest share.
        local_side: side of a small crop divided by that of a large one; the paper has 96 and 224 pixels.
        prototypes: K, number of outputs of the head.
        student_temperature: temperature of the student's softmax.
        first_temperature: initial temperature of the teacher's softmax.
        temperature: temperature of the teacher's softmax after a linear rise.
        rise: share of all updates over which it rises; 30 of 300 epochs in the paper.
        momentum: initial momentum of the teacher, which rises to 1 in training.
        centre_momentum: momentum of the running mean that is subtracted from the teacher's outputs.
        frozen: share of all updates, at the start, during which the prototypes are frozen; 1 of 100 epochs.
    """

    min_scale: Annotated[float, Field(ge=0.01, le=1)] = 0.4
    local_crops: Annotated[int, Field(ge=0, le=32)] = 8
    local_min_scale: Annotated[float, Field(ge=0.01, le=1)] = 0.05
    local_max_scale: Annotated[float, Field(ge=0.01, le=1)] = 0.4
    local_side: Annotated[float, Field(gt=0, le=1)] = 3 / 7
    prototypes: Annotated[int, Field(ge=2)] = 65536
    student_temperature: Annotated[float, Field(ge=0.01, le=1)] = 0.1
    first_temperature: Annotated[float, Field(ge=0.01, le=1)] = 0.04
    temperature: Annotated[float, Field(ge=0.01, le=1)] = 0.07
    rise: Probability = 0.1
    momentum: Annotated[float, Field(ge=0, le=1)] = 0.996
    centre_momentum: Annotated[float, Field(ge=0, le=1)] = 0.9
    frozen: Probability = 0.01


class Head(nn.Module):
    """Three layers, normalisation to unit length, and cosine similarities with K prototypes: (B, width) -> (B, K)."""

    def __init__(self, width: int, prototypes: int) -> None:
        super().__init__()
        widths = (width, HIDDEN, HIDDEN, BOTTLENECK)
        layers = [nn.Linear(*pair) for pair in pairwise(widths)]
        self.layers = nn.Sequential(layers[0], nn.GELU(), layers[1], nn.GELU(), layers[2])
        self.prototypes = nn.Parameter(torch.empty(prototypes, BOTTLENECK))
        for weight in (*(layer.weight for layer in layers), self.prototypes):
            nn.init.trunc_normal_(weight, std=0.02)
        for layer in layers:
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, frozen: bool = False) -> Tensor:
        """Cosine similarities; if `frozen`, the prototypes have a gradient of zero."""
        # Zero and not None, since distributed training requires a gradient for every parameter.
        prototypes = self.prototypes.detach() + 0 * self.prototypes if frozen else self.prototypes
        return linear(normalize(self.layers(features), dim=1), normalize(prototypes, dim=1))


class Method(TwoViews):
    """A student that sees all crops, a teacher that sees the large ones, and cross-entropy between their outputs.

    With t(x) = softmax((T(x) - c) / tau_t) of the teacher and s(x) = softmax(S(x) / tau_s) of the student (Eq. 3):
    L = mean over large crops x and crops x' other than x of -sum over k of t(x)_k log s(x')_k. The centre c is a
    running mean of T. The teacher is a moving average of the student, and its encoder is exported.
    """

    Parameters = DinoOptions
    reads_batch = True
    options: DinoOptions
    centre: Tensor  # (K,) float32

    def __init__(self, setting: Setting, options: DinoOptions) -> None:
        """Build student and teacher."""
        super().__init__(setting, options)
        with seeded_weights(setting.seed):
            self.head = Head(self.width, options.prototypes)
        self.teacher = copy.deepcopy(nn.Sequential(self.encoder, self.head)).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(options.prototypes))

    def begin(self) -> None:
        """Copy the initial weights to the teacher."""
        self.teacher[0].load_state_dict(self.encoder.state_dict())

    def after_step(self, update: int, updates: int) -> None:
        """Update the teacher."""
        student = nn.Sequential(self.encoder, self.head)
        follow(self.teacher, student, cosine_momentum(self.options.momentum, update, updates))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Leave the prototypes out of the decay, which would move them while they are frozen."""
        prototypes = self.head.prototypes
        others = [one for one in self.parameters() if one is not prototypes]
        return [ParameterGroup(others), ParameterGroup([prototypes], decay=0.0)]

    @property
    def exported(self) -> nn.Module:
        """The teacher's encoder."""
        return self.teacher[0]

    def crops(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Large crops (2B, 1, S, S), or of side `size`, and small ones (B x local_crops, 1, T, T), ordered by crop."""
        options, images = self.options, reduced(images, self.options.size)
        large = apply_views(images, draw_views(GLOBAL * len(images), options, generator), options.max_sigma)
        if not options.local_crops:
            return large, None
        local = options.model_copy(update={"min_scale": options.local_min_scale})
        drawn = draw_views(options.local_crops * len(images), local, generator, options.local_max_scale)
        return large, apply_views(images, drawn, options.max_sigma, round(options.local_side * images.shape[-1]))

    def _losses(self, batch: PretextBatch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Losses (B,), the teacher's outputs (2, B, K) and the large crops."""
        options, done = self.options, batch.update / max(1, batch.updates)
        large, small = self.crops(batch.images, generator)
        sides = [large] if small is None else [large, small]
        features = torch.cat([self.encoder(crops) for crops in sides])
        count = len(batch.images)
        told = self.head(features, done < options.frozen).float().view(-1, count, options.prototypes)
        with torch.no_grad():
            said = self.teacher(large).float().view(GLOBAL, count, -1)
        rise = min(1.0, done / options.rise) if options.rise else 1.0
        temperature = options.first_temperature + rise * (options.temperature - options.first_temperature)
        with torch.autocast(large.device.type, enabled=False):
            losses = cross_entropies(said - self.centre, told, temperature, options.student_temperature)
        return losses, said, large

    def step(self, batch: PretextBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss; also updates the centre with the teacher's mean output over the joined batch."""
        losses, said, _ = self._losses(batch, generator)
        mean, _ = joint_mean(said.mean((0, 1)), len(batch.images))
        self.centre.lerp_(mean, 1 - self.options.centre_momentum)
        return losses.mean(), {}

    def validate(self, batch: PretextBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Loss of each slice, the loss of equal outputs, and the metrics of `compared` for the teacher's features."""
        losses, _, large = self._losses(batch, generator)
        found = self.compared(large, self.exported(large).float(), losses)
        return found | {"loss_chance": torch.full_like(losses, math.log(self.options.prototypes))}

    def pictures(self, batch: PretextBatch, generator: torch.Generator) -> dict[str, Picture]:
        """Large crops, and enlarged small ones."""
        images = reduced(batch.images, self.options.size)
        large, small = self.crops(batch.images, generator)
        shown = list(large.view(GLOBAL, *images.shape).unbind())
        names = ["slice", *["large crop"] * GLOBAL]
        if small is not None:
            enlarged = nn.functional.interpolate(small, images.shape[-2:])
            shown += enlarged.view(-1, *images.shape)[:SHOWN].unbind()
            names += ["small crop"] * min(SHOWN, self.options.local_crops)
        return {"crops": Picture(torch.cat([images, *shown], 1), tuple(names))}


def cross_entropies(said: Tensor, told: Tensor, said_temperature: float, told_temperature: float) -> Tensor:
    """Cross-entropies (B,) between a teacher's outputs on G crops (G, B, K) and a student's on V >= G (V, B, K).

    Means over all pairs of different crops; the student's first G crops are the teacher's.
    """
    wanted, found = (said / said_temperature).softmax(2), log_softmax(told / told_temperature, 2)
    losses = -torch.einsum("gbk,vbk->gvb", wanted, found)
    number = torch.arange(len(told), device=told.device)
    other = number[: len(said), None] != number
    return losses[other].mean(0)
