"""How often the interval of a label equivalence holds the truth, on simulated studies; see docs/learning_curves.md.

`python -m benchmarks.label_equivalence`. The baseline's tumor slices lie 0.25 log(percent) above and the others as much
below 0, in standard deviations; the arm has twice the labels. Slices and cases have effects that all share.
"""

import numpy as np
from scipy.special import expit

from kidney_ssl.statistics.arms import ArmPredictions
from kidney_ssl.statistics.bootstrap import resample
from kidney_ssl.statistics.learning_curves import label_equivalences

PERCENTS = (5, 10, 20, 40, 80)
ASKED = (10, 20)  # whose double is a budget, so that no straight line between budgets misleads
STUDIES, RESAMPLES, SLICES = 200, 400, 20
CLASSES = np.array(["tumor", "kidney", "background"])


def study(cases: int, generator: np.random.Generator) -> dict[int, ArmPredictions]:
    """Draw one study: percent -> predictions of the baseline and the arm."""
    slices = SLICES * cases
    of_case = np.sort(np.append(np.arange(cases), generator.integers(cases, size=slices - cases)))
    kinds = generator.integers(3, size=slices)
    shared = generator.normal(size=slices) + 0.5 * generator.normal(size=cases)[of_case]
    own = 0.5 * generator.normal(size=(2, 1, slices))
    budgets = {}
    for percent in PERCENTS:
        skill = 0.25 * np.log([percent, 2 * percent])[:, None, None]
        budgets[percent] = ArmPredictions(
            arms=("baseline", "arm"),
            names=tuple(f"case_{number:05d}" for number in range(cases)),
            cases=of_case,
            labels=kinds == 0,
            classes=CLASSES[kinds],
            probabilities=expit(shared + own + skill * (2.0 * (kinds == 0) - 1)),
        )
    return budgets


def main() -> None:
    """Print the share of studies whose interval holds the truth."""
    for cases in (30, 100):
        held = dict.fromkeys(ASKED, 0)
        for number in range(STUDIES):
            budgets = study(cases, np.random.default_rng([cases, number]))
            drawn = {
                percent: resample(one, count=RESAMPLES, seed=number, metrics=["auroc"])
                for percent, one in budgets.items()
            }
            found = label_equivalences(drawn, baseline="baseline", metrics=["auroc"])
            for (_, _, percent), one in found.items():
                if percent in held and one.low is not None and one.high is not None:
                    held[percent] += one.low < 2 * percent < one.high
        print(f"{cases} cases: " + ", ".join(f"{100 * held[one] / STUDIES:.1f} % at {one} %" for one in ASKED))


if __name__ == "__main__":
    main()
