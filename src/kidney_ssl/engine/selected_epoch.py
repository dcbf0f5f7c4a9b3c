"""Evaluation of the classifier, and selection of the epoch to keep."""

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from kidney_ssl.engine import processes
from kidney_ssl.engine.batches import Slices, ordered_batches
from kidney_ssl.engine.loop import TrainingContext
from kidney_ssl.errors import InputError
from kidney_ssl.schema import EVALUATED


class SelectedEpoch:
    """Evaluates after the epochs in `due` and keeps the best or the last one; the training loop calls it."""

    STATE = ("score", "epoch", "weights", "probabilities", "tested")  # what a resumed training needs

    def __init__(
        self,
        model: nn.Module,
        data: Mapping[str, Slices],
        context: TrainingContext,
        batch_size: int,
        *,
        due: Collection[int],
        select: str,
    ) -> None:
        self.model, self.data, self.context, self.batch_size = model, data, context, batch_size
        self.due, self.last = due, select == "last"
        self.labels = {name: data[name].labels.cpu().numpy() for name in EVALUATED}
        self.ranked = len(np.unique(self.labels["validation"])) == 2
        if not self.ranked:
            warnings.warn(
                f"{context.label}: validation slices are of one class; the lowest validation loss selects", stacklevel=3
            )
        self.score, self.epoch = -float("inf"), 0  # of the kept epoch; larger scores are better
        self.weights: dict[str, Tensor] = {}
        self.probabilities: dict[str, Tensor] = {}  # (N,) float64 of each part
        # Test probabilities of every evaluated epoch, for the thesis's protocol and its null; never used to select.
        self.tested: list[Tensor] = []

    def __call__(self, epoch: int) -> dict[str, float]:
        """Evaluate the current network on validation and test; keep it if it is the selected one so far."""
        if epoch not in self.due:
            return {}
        from sklearn.metrics import accuracy_score, f1_score, roc_auc_score  # noqa: PLC0415 - a second of imports

        logits = {name: self._logits(name, epoch) for name in EVALUATED}
        self.tested.append(torch.sigmoid(logits["test"]))
        positive = {name: logits[name].numpy() >= 0 for name in logits}  # probability of at least 0.5
        true = self.labels
        loss = float(binary_cross_entropy_with_logits(logits["validation"], torch.tensor(true["validation"]).double()))
        auroc = float(roc_auc_score(true["validation"], logits["validation"])) if self.ranked else float("nan")
        score = auroc if self.ranked else -loss
        if self.last or score > self.score:
            self.score, self.epoch = score, epoch
            self.weights = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
            self.probabilities = {name: torch.sigmoid(values) for name, values in logits.items()}
        return {
            "validation_loss": loss,
            "validation_auroc": auroc,
            "validation_accuracy": float(accuracy_score(true["validation"], positive["validation"])),
            "test_accuracy": float(accuracy_score(true["test"], positive["test"])),
            # F1 is undefined without a tumor in the test part.
            "test_f1": float(f1_score(true["test"], positive["test"])) if true["test"].any() else float("nan"),
        }

    def probabilities_of(self, name: str) -> np.ndarray:
        """Probabilities (N,) float64 of a part by the current network."""
        return torch.sigmoid(self._logits(name, self.epoch)).numpy()

    @torch.inference_mode()
    def _logits(self, name: str, epoch: int) -> Tensor:
        """Logits (N,) float64 on the CPU, in the order of rows; several processes share the batches."""
        self.model.eval()
        data = self.data[name]
        positions = ordered_batches(torch.arange(len(data)), self.batch_size)
        own = positions[processes.rank() :: processes.count()]
        found = torch.zeros(len(data), dtype=torch.float64, device=data.device)
        with self.context.fabric.autocast():
            for at, batch in zip(own, data.batches(own), strict=True):
                found[int(at[0]) : int(at[-1]) + 1] = self.model(batch.images)[:, 0].double()
        logits = processes.total(found).cpu()
        if not logits.isfinite().all():
            raise InputError(
                f"{self.context.label}: {name} logits are not finite after epoch {epoch}; lower the learning rate"
            )
        return logits

    def state_dict(self) -> dict[str, Any]:
        """The selected epoch so far."""
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the selected epoch so far from a checkpoint."""
        vars(self).update(state)
