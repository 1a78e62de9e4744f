from __future__ import annotations

import pytest
from tests.helpers.golden_cases import NETWORKS, Case, load


@pytest.fixture(scope="session", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> Case:
    return load(request.param)
