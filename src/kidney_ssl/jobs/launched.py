"""Environment variables by which launchers tell processes their rank; shells and containers may inherit them."""

import os

# Set by torchrun, and by a stage that starts the other processes itself.
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "TORCHELASTIC_RUN_ID")


def train_alone() -> None:
    """Remove the variables, so that libraries do not take this process for one of several."""
    for name in VARIABLES:
        os.environ.pop(name, None)
