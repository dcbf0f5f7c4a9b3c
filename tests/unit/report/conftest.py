"""Pages without charts."""

import pytest
from markupsafe import Markup


@pytest.fixture
def no_charts(monkeypatch):
    """For tests that look at words and tables alone: charts take half of a page's time."""
    monkeypatch.setattr("kidney_ssl.report.charts._svg", lambda *_: Markup(""))
