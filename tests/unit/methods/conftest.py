"""Small networks on one thread, and ResNets of few blocks."""

from tests.one_thread import one_thread  # noqa: F401 - a fixture
from tests.shallow_networks import shallow_networks  # noqa: F401 - a fixture
