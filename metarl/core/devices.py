"""Transfers to the device of the learner."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def upload(
    array: np.ndarray,
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    copy: bool = False,
) -> Tensor:
    """Return an array as a tensor on a device.

    A GPU is given the array from page-locked memory. From other memory a transfer would first wait
    for all work that the GPU was given before.

    Args:
        array: the array.
        device: the device.
        dtype: the dtype of the tensor; None is the array's.
        copy: whether the tensor on a CPU is a copy. Otherwise it shares the memory of the array, if
            it also has its dtype.
    """
    tensor = torch.from_numpy(array)
    if device.type != "cpu":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(dtype=dtype or tensor.dtype, copy=copy and device.type == "cpu")
