"""The patch embedding as one matrix product.

It is a convolution whose stride is its kernel: each patch is multiplied once with the whole weight, and kernels made
for overlapping windows are slow at that. The weight keeps its published shape.
"""

import types

import torch
import torch.nn.functional as F


def use_linear_patches(projection: torch.nn.Conv3d) -> None:
    """On this instance alone, and below its `__call__`, on which sharded weights hang their hooks."""
    assert projection.stride == projection.kernel_size
    assert projection.padding == (0, 0, 0)
    projection.forward = types.MethodType(_product, projection)


def _product(self: torch.nn.Conv3d, patches: torch.Tensor) -> torch.Tensor:
    """[P, channels, t, p, p] to [P, width, 1, 1, 1], as the convolution would give it."""
    product = F.linear(patches.flatten(1), self.weight.flatten(1), self.bias)
    return product[:, :, None, None, None]
