"""VICReg (Bardes et al. 2022): two views agree, no feature is constant, and features are uncorrelated."""

from typing import Annotated

from lightly.loss.vicreg_loss import VICRegLoss
from pydantic import Field

from kidney_ssl.methods.barlow_twins import Decorrelation, ProjectorOptions
from kidney_ssl.methods.base import Setting

EPSILON = 1e-4  # added to variances, as in the paper


class VicregOptions(ProjectorOptions):
    """Options of VICReg, with those of its expander (a projector) and views.

    Attributes:
        invariance: lambda, weight of the squared distance of two views.
        variance: mu, weight of the hinge that keeps the standard deviation of each feature above 1.
        covariance: nu, weight of the covariances between features.
    """

    invariance: Annotated[float, Field(ge=0)] = 25.0
    variance: Annotated[float, Field(ge=0)] = 25.0
    covariance: Annotated[float, Field(ge=0)] = 1.0


class Method(Decorrelation):
    """An encoder, an expander (the projector of Barlow Twins), and the loss over the batch's embeddings.

    With Z and Z' (B, D) the embeddings of first and second views, and sd(j), cov over the batch with B - 1 (Eq. 6):
    L = lambda mean (Z - Z')^2 + mu (v(Z) + v(Z')) / 2 + nu (c(Z) + c(Z')),
    v(Z) = mean over j of max(0, 1 - sqrt(sd(j)^2 + 1e-4)), c(Z) = sum over i != j of cov(i, j)^2 / D.
    Half of mu, and the mean over all entries of the squared distance, are as in the authors' code.
    """

    Parameters = VicregOptions
    options: VicregOptions

    def __init__(self, setting: Setting, options: VicregOptions) -> None:
        """Build the network."""
        super().__init__(setting, options)
        self.loss = VICRegLoss(options.invariance, options.variance, options.covariance, eps=EPSILON)

    def constant(self, width: int) -> float:
        """See `Decorrelation.constant`: they agree and have no covariance, so only the hinge remains."""
        return self.options.variance * (1 - EPSILON**0.5)
