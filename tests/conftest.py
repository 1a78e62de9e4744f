"""What holds for all tests."""

import pytest
import torch

# Convolutions of many groups in float64 meet at a barrier for each group: on a busy machine two
# threads take minutes where one takes seconds.
torch.set_num_threads(1)


@pytest.fixture
def hostile() -> str:
    return "<script>alert('x')</script>\"'&{{ 7 * 7 }}[/bold]"
