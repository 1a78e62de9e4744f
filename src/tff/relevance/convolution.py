"""One convolution and its transpose for any weight: what every rule for convolutions is made of."""

from __future__ import annotations

from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F


class Convolution:
    """The geometry of a `Conv2d` (stride, padding, dilation, groups) without its weights.

    Padding may be numbers, or "same" as TensorFlow has it (`timm.layers.Conv2dSame`: the odd pixel
    goes behind). Reflecting or circular padding is refused: its transpose is another one.
    """

    def __init__(self, module: nn.Conv2d) -> None:
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            raise NotImplementedError(
                f"relevance through a convolution with padding={module.padding!r}, "
                f"padding_mode={module.padding_mode!r} is not supported; pad with zeros"
            )
        self.same = isinstance(module, Conv2dSame)
        self.kernel, self.stride = module.kernel_size, module.stride
        self.padding, self.dilation = module.padding, module.dilation
        self.groups = module.groups

    def apply(self, a: Tensor, weight: Tensor) -> Tensor:
        """W * a, without bias: (B, C, H, W) -> (B, C', H', W')."""
        padded = F.pad(a, self._edges(a)) if self.same else a
        return F.conv2d(padded, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def transpose(self, q: Tensor, weight: Tensor, like: Tensor) -> Tensor:
        """T(w, q): the transposed convolution, of the shape of the input `like`."""
        left, right, top, bottom = self._edges(like) if self.same else (0, 0, 0, 0)
        height, width = like.shape[-2:]
        # Rows and columns behind the last stride were never seen; they come back as 0.
        behind = [
            (size + 2 * pad - dilation * (kernel - 1) - 1) % stride
            for size, pad, dilation, kernel, stride in zip(
                (height + top + bottom, width + left + right),
                self.padding,
                self.dilation,
                self.kernel,
                self.stride,
                strict=True,
            )
        ]
        back = F.conv_transpose2d(
            q, weight, None, self.stride, self.padding, behind, self.groups, self.dilation
        )
        return back[..., top : top + height, left : left + width] if self.same else back

    def _edges(self, a: Tensor) -> tuple[int, int, int, int]:
        """Zeros on the left, right, top and bottom under TensorFlow's "same" padding."""
        edges: list[int] = []
        for axis in (1, 0):
            size, stride = a.shape[2 + axis], self.stride[axis]
            reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            edges += [total // 2, total - total // 2]
        left, right, top, bottom = edges
        return left, right, top, bottom
