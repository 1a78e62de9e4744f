"""A tiny detector of red, on three generators, for several analyses."""

import pytest
from tests.helpers import tiny


@pytest.fixture(scope="session")
def red_root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return tiny.tree(folder, ("seen", "other", "third"), images=9)


@pytest.fixture(scope="session")
def red_subject(red_root):
    """Read-only: its passes are shared by all tests."""
    return tiny.subject(red_root)
