"""A stand-in for a GPU: tensors that are on another device as far as torch can tell, although the
CPU computes with them.

What a GPU refuses is refused: operations on tensors of both devices, and `Tensor.numpy`. What makes
the CPU wait for a GPU is counted. The name of the device is torch's `meta`, since CUDA devices
cannot be named without CUDA.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("meta")
COPIES = "aten._to_copy.default", "aten.copy_.default"
READS = (
    "aten._local_scalar_dense.default",  # item, float, bool
    "aten.nonzero.default",
    "aten.masked_select.default",
)
"""Operations whose result, or its shape, the CPU has to know."""


class StandInTensor(Tensor):
    """A tensor on the stand-in.

    Attributes:
        numbers: the tensor on the CPU that has its numbers.
    """

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> StandInTensor:
        made = Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=DEVICE,
        )
        made.numbers = numbers
        return made

    def tolist(self) -> Any:  # torch refuses it for subclasses
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, operation: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"{operation}: outside of the `with` block of StandIn")


class StandIn(TorchDispatchMode):
    """Lets torch compute on the stand-in, in the `with` block.

    Attributes:
        counts: how often the CPU waited for the stand-in (`waits`), the number of transfers to it
            from page-locked memory (`uploads`) and from other memory (`slow uploads`), and of
            operations on it (`operations`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = str(operation), dict(kwargs or {})
        if name == "aten._pin_memory.default":
            pinned = args[0].clone()
            pinned.page_locked = True
            return pinned
        given = kwargs.get("device")
        if StandInTensor not in types and given is None:
            return operation(*args, **kwargs)
        tensors: list[Tensor] = []
        for value in (*args, *kwargs.values()):  # tree_leaves takes twice the time of the operation
            tensors += [each for each in _items(value) if isinstance(each, Tensor)]
        inside = [each for each in tensors if isinstance(each, StandInTensor)]
        outside = [each for each in tensors if not isinstance(each, StandInTensor)]
        if name == "aten.copy_.default":
            is_inside = isinstance(args[0], StandInTensor)
        else:
            is_inside = bool(inside) if given is None else torch.device(given) == DEVICE
        if is_inside and given is not None:
            kwargs["device"] = torch.device("cpu")
        if name in COPIES or name.startswith("aten.index"):  # indices may be on either device
            if is_inside and outside:
                locked = all(getattr(each, "page_locked", False) for each in outside)
                self.counts["uploads" if locked else "slow uploads"] += 1
        elif inside and any(each.ndim for each in outside):
            shapes = [tuple(each.shape) for each in outside]
            raise RuntimeError(f"{name}: tensors of the CPU, {shapes}, and of the stand-in")
        if inside or is_inside:
            self.counts["operations"] += 1
        masks = name.startswith("aten.index") and any(each.dtype == torch.bool for each in inside)
        if inside and (not is_inside or name in READS or masks):
            self.counts["waits"] += 1

        numbers = {key: _numbers(value) for key, value in kwargs.items()}
        result = operation(*map(_numbers, args), **numbers)
        owners = {id(each.numbers): each for each in inside}  # in-place operations return them

        def wrapped(value: Any) -> Any:
            if not is_inside or not isinstance(value, Tensor):
                return value
            known = owners.get(id(value))
            return StandInTensor(value) if known is None else known

        return wrapped(result) if isinstance(result, Tensor) else tree_map(wrapped, result)


def _items(value: Any) -> Sequence[Any]:
    """An argument of an operation as a sequence: the arguments are values and lists of values."""
    return value if isinstance(value, (list, tuple)) else (value,)


def _numbers(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_numbers(each) for each in value]
    return value.numbers if isinstance(value, StandInTensor) else value
