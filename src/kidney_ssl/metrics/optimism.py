"""Control of `optimism`: the gain on OTHER test cases from choosing the epoch on test cases.

`optimism` chooses the epoch and measures its metric on the same slices. Here the test cases are halved at random: the
epoch is chosen on one half, and its metric on the other half is compared with the selected epoch's on that half. A
difference that remains is a truly better epoch; the rest of `optimism` is luck with these slices.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kidney_ssl.errors import InputError, one_line
from kidney_ssl.metrics.csvfile import RERUN
from kidney_ssl.statistics.arms import ArmPredictions
from kidney_ssl.statistics.resampling import metric_values
from kidney_ssl.statistics.result import Estimate

HALVINGS = 1000
SEED = 0
TOLERANCE = 1e-4  # tolerance between a probability as float32 and as text


def read_epochs(path: Path, probabilities: np.ndarray, evaluated: Sequence[int], selected: int) -> np.ndarray:
    """Read the test slices' probabilities after every evaluated epoch, (E, N) float32.

    Args:
        path: the .npy file.
        probabilities: (N,) of the selected epoch, in the same order.
        evaluated: the E epochs.
        selected: index of the selected epoch, from 0.

    Raises:
        InputError: the file is missing or has another shape, or its selected epoch has other probabilities.
    """
    try:
        epochs: np.ndarray = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(str(error))}); {RERUN}") from error
    if epochs.shape != (len(evaluated), len(probabilities)):
        raise InputError(
            f"{path}: shape {epochs.shape} is not ({len(evaluated)} evaluated epochs, {len(probabilities)} test "
            f"slices); {RERUN}"
        )
    if not np.allclose(epochs[selected], probabilities, rtol=0, atol=TOLERANCE):
        raise InputError(f"{path}: epoch {evaluated[selected]} has other probabilities than the predictions; {RERUN}")
    return epochs


def split_half(
    cases: np.ndarray,
    label: np.ndarray,
    epochs: np.ndarray,
    selected: int,
    *,
    halvings: int = HALVINGS,
    seed: int = SEED,
) -> dict[str, Any]:
    """Repeatedly choose the epoch on one half of the test cases and measure it on the other.

    Of C cases, C // 2 are used for the choice and the others for measuring. The earliest epoch wins a tie.

    Args:
        cases: (N,) the case of each test slice.
        label: (N,) 0 or 1.
        epochs: see `read_epochs`.
        selected: index of the epoch that the run selected, from 0.
        halvings: number of random halvings.
        seed: seed of the halvings.

    Returns:
        For accuracy and f1: mean, low and high (2.5 and 97.5 % quantiles over the halvings) of the difference, and the
        number of halvings. F1 is undefined in a half without tumor slices; such halvings are left out.
    """
    names, place = np.unique(cases, return_inverse=True)
    count = len(names)
    if count < 2:
        reason = f"{'a single case' if count else 'no case'} in the test part cannot be halved"
        return {name: _undefined(reason) for name in ("accuracy", "f1")}
    arms = tuple(map(str, range(len(epochs))))
    predictions = ArmPredictions(arms, tuple(names), place, label == 1, np.empty(0, str), epochs[:, None])
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(count), (halvings, 1)), axis=1)
    first = order < count // 2  # (R, C)
    return {name: _read_on_the_other(predictions, name, first, selected) for name in ("accuracy", "f1")}


def _read_on_the_other(predictions: ArmPredictions, metric: str, first: np.ndarray, selected: int) -> dict[str, Any]:
    chosen_on, read_on = (metric_values(predictions, metric, half).T for half in (first, ~first))  # (R, E)
    defined = ~(np.isnan(chosen_on[:, 0]) | np.isnan(read_on[:, 0]))
    chosen_on, read_on = chosen_on[defined], read_on[defined]
    if not len(read_on):
        return _undefined("no tumor slice in one of the halves, however the test cases are halved")
    best = chosen_on.argmax(axis=1)
    gained = read_on[np.arange(len(best)), best] - read_on[:, selected]
    low, high = np.quantile(gained, [0.025, 0.975])
    return {"mean": float(gained.mean()), "low": low, "high": high, "halvings": len(gained)}


def _undefined(reason: str) -> dict[str, Any]:
    return dict.fromkeys(("mean", "low", "high"), Estimate(reason=reason)) | {"halvings": 0}
