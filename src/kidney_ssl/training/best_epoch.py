"""Evaluation of the classifier after each epoch, and the choice of the epoch that is kept."""

import warnings
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from kidney_ssl.errors import InputError
from kidney_ssl.models import processes
from kidney_ssl.training.batches import Slices, ordered_batches

if TYPE_CHECKING:
    from lightning_fabric import Fabric

EVALUATED = ("validation", "test")


def evaluated_epochs(epochs: int, evaluations: int) -> list[int]:
    """Epochs (from 1) to evaluate after: all, or `evaluations` of them, evenly spread and the last among them."""
    count = min(epochs, evaluations)
    return [-(-epochs * place // count) for place in range(1, count + 1)]


class BestEpoch:
    """Evaluates after the epochs of `due` and keeps the best: the loop's `EpochEnd`."""

    def __init__(
        self,
        model: nn.Module,
        data: Mapping[str, Slices],
        fabric: "Fabric",
        batch_size: int,
        label: str,
        *,
        due: Collection[int],
    ) -> None:
        self.model, self.data, self.fabric, self.batch_size, self.label = model, data, fabric, batch_size, label
        self.due = due
        self.labels = {name: data[name].labels.cpu().numpy() for name in EVALUATED}
        self.ranked = len(np.unique(self.labels["validation"])) == 2
        if not self.ranked:
            warnings.warn(
                f"{label}: validation slices are of one class; the lowest validation loss selects", stacklevel=3
            )
        self.score = -np.inf
        self.epoch = 0
        self.weights: dict[str, Tensor] = {}
        self.probabilities: dict[str, np.ndarray] = {}
        # Of every evaluated epoch, for the thesis's protocol and its null; no choice here looks at them.
        self.tested: list[np.ndarray] = []

    def __call__(self, epoch: int) -> dict[str, float]:
        """Figures of validation and test as the network stands; keeps it if validation is better than before."""
        if epoch not in self.due:
            return {}
        from sklearn.metrics import accuracy_score, f1_score, roc_auc_score  # noqa: PLC0415 - a second of imports

        logits = {name: self._logits(name, epoch) for name in EVALUATED}
        self.tested.append(torch.sigmoid(logits["test"]).numpy())
        positive = {name: logits[name].numpy() >= 0 for name in logits}  # probability of at least 0.5
        true = self.labels
        loss = float(binary_cross_entropy_with_logits(logits["validation"], torch.tensor(true["validation"]).double()))
        auroc = float(roc_auc_score(true["validation"], logits["validation"])) if self.ranked else float("nan")
        score = auroc if self.ranked else -loss
        if score > self.score:
            self.score, self.epoch = score, epoch
            self.weights = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
            self.probabilities = {name: torch.sigmoid(values).numpy() for name, values in logits.items()}
        return {
            "validation_loss": loss,
            "validation_auroc": auroc,
            "validation_accuracy": float(accuracy_score(true["validation"], positive["validation"])),
            "test_accuracy": float(accuracy_score(true["test"], positive["test"])),
            # Without tumor in the test part there is none to find.
            "test_f1": float(f1_score(true["test"], positive["test"])) if true["test"].any() else float("nan"),
        }

    def probabilities_of(self, name: str) -> np.ndarray:
        """Probabilities (N,) float64 of a part as the network stands."""
        return torch.sigmoid(self._logits(name, self.epoch)).numpy()

    @torch.inference_mode()
    def _logits(self, name: str, epoch: int) -> Tensor:
        """(N,) float64 on the CPU, in the order of rows; several processes take turns at the batches."""
        self.model.eval()
        data = self.data[name]
        batches = ordered_batches(torch.arange(len(data)), self.batch_size)
        found = torch.zeros(len(data), dtype=torch.float64, device=data.device)
        with self.fabric.autocast():
            for rows in batches[processes.rank() :: processes.count()]:
                found[rows.to(data.device)] = self.model(data.batch(rows).images)[:, 0].double()
        logits = processes.total(found).cpu()
        if not logits.isfinite().all():
            raise InputError(f"{self.label}: {name} logits are not finite after epoch {epoch}; lower the learning rate")
        return logits

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far."""
        probabilities = {name: torch.from_numpy(values) for name, values in self.probabilities.items()}
        return {
            "score": float(self.score),
            "epoch": self.epoch,
            "weights": self.weights,
            "probabilities": probabilities,
            "tested": [torch.from_numpy(values) for values in self.tested],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the best epoch so far from a checkpoint."""
        self.score, self.epoch, self.weights = state["score"], state["epoch"], state["weights"]
        self.probabilities = {name: values.numpy() for name, values in state["probabilities"].items()}
        self.tested = [values.numpy() for values in state["tested"]]
