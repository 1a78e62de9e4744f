from __future__ import annotations

import pytest
from tests.golden.cases import NETWORKS, Case, load


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> Case:
    return load(request.param)
