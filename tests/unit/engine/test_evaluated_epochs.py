"""Which epochs are evaluated."""

import pytest

from kidney_ssl.engine.evaluated_epochs import affordable_evaluations, evaluated_epochs


@pytest.mark.parametrize(
    ("epochs", "evaluations", "expected"),
    [(3, 5, [1, 2, 3]), (5, 5, [1, 2, 3, 4, 5]), (33, 5, [7, 14, 20, 27, 33]), (6, 4, [2, 3, 5, 6]), (9, 1, [9])],
)
def test_evaluated_epochs_are_evenly_spread_and_end_with_the_last(epochs, evaluations, expected):
    assert evaluated_epochs(epochs, evaluations) == expected


@pytest.mark.parametrize(
    ("wanted", "trained", "evaluated", "expected"),
    [
        (5, 10_000, 100, 5),
        (40, 10_000, 100, 31),  # 30 of them take 30 x 100 / 3 = 1,000 slices' worth, the last is the result itself
        (5, 2216, 378, 2),  # the phantom study
        (5, 10, 1000, 1),
    ],
)
def test_evaluations_before_the_last_take_at_most_a_tenth_of_the_training(wanted, trained, evaluated, expected):
    found = affordable_evaluations(wanted, trained=trained, evaluated=evaluated)
    assert found == expected
    assert (found - 1) * evaluated / 3 <= 0.1 * trained
    assert found == wanted or found * evaluated / 3 > 0.1 * trained
