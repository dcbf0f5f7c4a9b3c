"""Which epochs are evaluated, so that evaluation takes a small share of a training."""

SHARE = 0.1  # of a run's compute that evaluations before the last may take
FORWARD = 1 / 3  # of a training step


def affordable_evaluations(evaluations: int, *, trained: int, evaluated: int) -> int:
    """Bound the number of evaluations of a run, so that they take at most `SHARE` of its compute; at least 1.

    The last evaluation happens in any case and does not count: a fine-tuning takes its predictions from it, a
    pretraining its metrics.

    Args:
        evaluations: how many are wanted.
        trained: slices trained on in all epochs.
        evaluated: slices of one evaluation.
    """
    return min(evaluations, 1 + int(SHARE * trained / (FORWARD * evaluated)))


def evaluated_epochs(epochs: int, evaluations: int) -> list[int]:
    """Epochs (from 1) to evaluate after: all, or `evaluations` of them, evenly spread and the last among them."""
    count = min(epochs, evaluations)
    return [-(-epochs * place // count) for place in range(1, count + 1)]
