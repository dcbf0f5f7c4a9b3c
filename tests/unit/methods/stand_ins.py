"""Methods with state, which stand in for those that a user may write: a queue, a centre, a teacher; and a head."""

import copy
import math

import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax, normalize

from kidney_ssl.engine.processes import joined
from kidney_ssl.methods.base import ParameterGroup, Picture, Pretext
from kidney_ssl.models.resnet import encoder, seeded_weights

WIDTH, QUEUED = 16, 32
# Options under which a wide method is a small one, for tests to which its width tells no more.
NARROW = {
    "barlow_twins": {"expansion": 1},
    "cpc": {"grid": 5, "steps": 3},
    "dino": {"prototypes": 64, "local_crops": 2},
    "moco": {"queue": 64},
    "vicreg": {"expansion": 1},
}


def noisy(images, generator):
    """Images and noise of their own."""
    return images + 0.1 * torch.rand(images.shape, generator=generator, device=images.device)


class Given(nn.Module):
    """A head or teacher that gives what it is told, whatever it sees."""

    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, *_):
        return self.values


class StandIn(Pretext):
    """An encoder and a projection."""

    def __init__(self, setting, options):
        super().__init__(setting, options)
        self.encoder, width = encoder(setting.network, setting.seed, batch_norm_momentum=setting.batch_norm_momentum)
        with seeded_weights(setting.seed):
            self.head = nn.Linear(width, WIDTH)

    def pictures(self, images, generator):
        return {"slices": Picture(images, ("slice",))}


class Queue(StandIn):
    """Two views attract each other; those of earlier batches, which wait in a queue, repel them (He et al. 2020)."""

    def __init__(self, setting, options):
        super().__init__(setting, options)
        with seeded_weights(setting.seed):
            self.register_buffer("queue", normalize(torch.randn(QUEUED, WIDTH), dim=1))

    def _compared(self, images, generator):
        """Losses (B,) and the keys."""
        queries = normalize(self.head(self.encoder(noisy(images, generator))).float(), dim=1)
        with torch.no_grad():
            keys = normalize(self.head(self.encoder(noisy(images, generator))).float(), dim=1)
        logits = torch.cat([(queries * keys).sum(1, keepdim=True), queries @ self.queue.clone().T], 1)
        targets = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return cross_entropy(logits / 0.2, targets, reduction="none"), keys

    def step(self, images, generator):
        losses, keys = self._compared(images, generator)
        self.queue.copy_(torch.cat([self.joined(keys), self.queue])[:QUEUED])
        return losses.mean(), {}

    joined = staticmethod(joined)

    def validate(self, images, generator):
        losses, _ = self._compared(images, generator)
        return {"loss": losses, "loss_chance": torch.full_like(losses, math.log(QUEUED + 1))}


class Centre(StandIn):
    """One view tells the other's cluster, less the running mean of all views (Caron et al. 2021)."""

    def __init__(self, setting, options):
        super().__init__(setting, options)
        self.register_buffer("centre", torch.zeros(WIDTH))

    def _compared(self, images, generator):
        """Losses (B,) and the outputs that the centre is the mean of."""
        told = self.head(self.encoder(noisy(images, generator))).float()
        with torch.no_grad():
            given = self.head(self.encoder(noisy(images, generator))).float()
        return -(((given - self.centre.clone()) / 0.5).softmax(1) * log_softmax(told, 1)).sum(1), given

    def step(self, images, generator):
        losses, given = self._compared(images, generator)
        self.centre.lerp_(self.mean(given), 0.1)
        return losses.mean(), {}

    @staticmethod
    def mean(values):
        return joined(values).mean(0)

    def validate(self, images, generator):
        losses, _ = self._compared(images, generator)
        return {"loss": losses, "loss_chance": torch.full_like(losses, math.log(WIDTH))}


class Teacher(StandIn):
    """A network predicts what its slow teacher says of the next slice (Grill et al. 2020): all of the contract."""

    reads_batch = True

    def __init__(self, setting, options):
        super().__init__(setting, options)
        with seeded_weights(setting.seed):
            self.predictor = nn.Linear(WIDTH, WIDTH)
        self.teacher, self.target = (copy.deepcopy(part).requires_grad_(False) for part in (self.encoder, self.head))

    def begin(self):
        self.teacher.load_state_dict(self.encoder.state_dict())

    def parameter_groups(self):
        network = [*self.encoder.parameters(), *self.head.parameters()]
        return [ParameterGroup(network), ParameterGroup(list(self.predictor.parameters()), rate=10, decay=0)]

    def after_step(self, update, updates):
        newest = 0.1 * (1 + math.cos(math.pi * update / updates)) / 2
        for slow, fast in ((self.teacher, self.encoder), (self.target, self.head)):
            for kept, moved in zip(slow.parameters(), fast.parameters(), strict=True):
                kept.lerp_(moved, newest)
            for kept, moved in zip(slow.buffers(), fast.buffers(), strict=True):
                kept.copy_(moved)

    @property
    def exported(self):
        return self.teacher

    def _distances(self, batch, generator):
        """Squared distances (B,) of the prediction and what the teacher says."""
        above = batch.neighbors[:, 0]
        beside = torch.where(above < 0, batch.rows, above)
        predicted = self.predictor(self.head(self.encoder(noisy(batch.images, generator)))).float()
        with torch.no_grad():
            said = self.target(self.teacher(noisy(batch.read(beside), generator))).float()
        return (normalize(predicted, dim=1) - normalize(said, dim=1)).pow(2).sum(1)

    def step(self, batch, generator):
        return self._distances(batch, generator).mean(), {}

    def validate(self, batch, generator):
        distances = self._distances(batch, generator)
        return {"loss": distances, "loss_chance": torch.full_like(distances, 2.0)}

    def pictures(self, batch, generator):
        return {"slices": Picture(batch.images, ("slice",))}


STAND_INS = {"queue": Queue, "centre": Centre, "teacher": Teacher}


class Decorrelated(StandIn):
    """Features of a batch are to be uncorrelated (Zbontar et al. 2021): statistics of the whole batch."""

    def step(self, images, generator):
        values = self.head(self.encoder(noisy(images, generator))).float()
        return self.correlation(self.joined(values)), {}

    joined = staticmethod(joined)

    @staticmethod
    def correlation(values):
        apart = values - values.mean(0)
        unit = apart / (apart.square().mean(0).sqrt() + 1e-3)
        return ((unit.T @ unit / len(unit)) - torch.eye(WIDTH)).square().sum()

    def validate(self, images, generator):
        raise NotImplementedError


def forgetful(kind, **changed):
    """A method of another kind that does not join the batch."""
    return type(f"Forgetful{kind.__name__}", (kind,), changed)


def alone(rows):
    return rows


FORGETFUL = {
    "queue": forgetful(Queue, joined=staticmethod(alone)),
    "centre": forgetful(Centre, mean=staticmethod(lambda values: values.mean(0))),
    "decorrelated": forgetful(Decorrelated, joined=staticmethod(alone)),
}
