"""A list of submodules of one class, for the type checker: PyTorch's own list forgets the class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Generic, TypeVar, overload

    M = TypeVar("M", bound=nn.Module)

    class ModuleList(nn.ModuleList, Generic[M]):
        """PyTorch's list, with the class of the modules that iterating and indexing give."""

        def __init__(self, modules: Iterable[M] | None = None) -> None: ...
        def __iter__(self) -> Iterator[M]: ...  # noqa: D105 (as PyTorch's)
        @overload
        def __getitem__(self, index: slice) -> ModuleList[M]: ...
        @overload
        def __getitem__(self, index: int) -> M: ...
        def __getitem__(self, index: int | slice) -> M | ModuleList[M]: ...  # noqa: D105 (as PyTorch's)
else:
    ModuleList = nn.ModuleList
