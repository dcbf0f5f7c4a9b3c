"""Standard errors under two crossed random factors, test cases and seeds.

Another study would have other test cases and other trainings. A seed is a replicate of the pretraining, the head, the
order of batches and, at a small budget, the drawn cases. Every seed predicts every case, as every reader reads every
case in a multi-reader study, so seeds take the place of readers in the analysis of Obuchowski and Rockette (1995,
doi:10.1080/03610919508813243) with the degrees of freedom of Hillis (2007, doi:10.1002/sim.2532). A mean over K seeds
has the squared standard error

    cases + max(spread, chance) / K,

where `spread` is the variance of the metric over seeds; `chance` is how much of that the cases explain, since seeds
err on different cases: the variance over seeds within resamples of cases; `cases` is the variance of the mean over
resamples, less chance / K, that is the covariance of two seeds. The plain bootstrap of seeds would be short of
(K - 1) / K of their variance, and the product of both resamplings counts `chance` twice (Owen 2007,
doi:10.1214/07-AOAS122).

Differences are paired by seed: the spread is that of the K differences. This is valid whether seed s of two arms shares
the drawn cases, order and head, or nothing. If arms share nothing it costs half of the degrees of freedom.

Seeds count as independent. If a pretraining has fewer replicates than the study has seeds, several seeds start from the
same replicate. The interval then includes too little of the variation between pretrainings, and with one replicate
none.

Two or three seeds give a poor estimate of their spread. It is therefore combined with the mean spread of all arms (or
of all their pairs), which counts as `PRIOR` degrees of freedom, as in moderated t tests (Smyth 2004,
doi:10.2202/1544-6115.1027). A larger prior would give tighter intervals if all arms vary equally, but too tight ones
for the arm that varies most; see docs/coverage.md.
"""

from dataclasses import dataclass

import numpy as np

PRIOR = 2


@dataclass(frozen=True)
class Pool:
    """The mean spread over seeds of all arms or pairs, and the degrees of freedom that it counts for."""

    spread: float = 0.0
    freedom: int = 0

    @classmethod
    def of(cls, values: np.ndarray, *, pairs: bool) -> "Pool":
        """Pool A arms, or all pairs of them (twice the mean square of arms by seeds), from (A, K, 1 + R)."""
        apart = values[..., 0] - values[..., 0].mean(axis=1, keepdims=True)
        if pairs:
            apart -= apart.mean(axis=0)
        rows, count = len(apart) - pairs, apart.shape[1]
        if count < 2 or rows < 2:
            return cls()
        mean_square = np.sum(np.square(apart)) / (rows * (count - 1))
        return cls(float(mean_square * (1 + pairs)), min(PRIOR, (rows - 1) * (count - 1)))


@dataclass(frozen=True)
class Errors:
    """Standard errors of P metrics or differences."""

    both: np.ndarray  # (P,) over cases and seeds; with one seed over cases alone
    freedom: np.ndarray  # (P,) their degrees of freedom, by Satterthwaite
    cases: np.ndarray  # (P,) over cases alone

    @property
    def seeds(self) -> np.ndarray:
        """What seeds add to the squared errors, as a standard deviation, (P,)."""
        return np.asarray(np.sqrt(np.maximum(self.both**2 - self.cases**2, 0)))


def crossed_errors(values: np.ndarray, *, cases: int, freedom: float, pool: Pool) -> Errors:
    """Compute the standard errors of P means over K seeds.

    Args:
        values: (P, K, 1 + R), of each seed on the test part and on its R resamples.
        cases: number of cases of the test part.
        freedom: degrees of freedom of the error over cases.
        pool: the spread over seeds of all arms or pairs.
    """
    alone = standard_error(values[..., 1:].mean(axis=1), cases)
    return with_seeds(alone, values, cases=cases, freedom=freedom, pool=pool)


def with_seeds(alone: np.ndarray, values: np.ndarray, *, cases: int, freedom: float, pool: Pool) -> Errors:
    """Add seeds to the standard errors over cases only, `alone` (P,); other arguments as for `crossed_errors`."""
    count = values.shape[1]
    if count < 2:
        return Errors(alone, np.full(len(alone), float(freedom)), alone)
    own = np.var(values[..., 0], axis=1, ddof=1)
    chance = np.var(values[..., 1:] - values[..., 1:].mean(axis=1, keepdims=True), axis=2).sum(axis=1) / (count - 1)
    chance *= cases / (cases - 1)
    of_seeds = count - 1 + pool.freedom
    spread = ((count - 1) * own + pool.freedom * pool.spread) / of_seeds
    part = np.maximum(spread, chance) / count
    common = np.maximum(alone**2 - chance / count, 0)
    scale = common**2 / freedom + part**2 / of_seeds
    found = np.divide((common + part) ** 2, scale, out=np.full(len(scale), float(freedom)), where=scale > 0)
    return Errors(np.sqrt(common + part), found, alone)


def standard_error(draws: np.ndarray, cases: int) -> np.ndarray:
    """Standard deviation over resamples (last axis), corrected for the bootstrap's division by C instead of C - 1."""
    return np.asarray(np.std(draws, axis=-1) * np.sqrt(cases / (cases - 1)))
