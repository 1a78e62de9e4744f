"""What holds for all tests."""

import torch

# Convolutions of many groups in float64 meet at a barrier for each group: on a busy machine two
# threads take minutes where one takes seconds.
torch.set_num_threads(1)
