"""Sparse matrices given by their entries, and their products with dense ones: the sums over edges."""

import warnings
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

with warnings.catch_warnings():
    # PyTorch says once in a process that the format is in beta; the products used here have been there since 1.9.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1), check_invariants=False)


class SparseMatrix:
    """A matrix by its entries; entries at the same place add up.

    On the CPU products use the compressed format, which is sorted once for all of them. Elsewhere, and in compiled graphs,
    they are gathers and index-adds, which never wait for the device.

    Args:
        row (`torch.Tensor` of shape `(entries,)` int64): Row of each entry.
        column (`torch.Tensor` of shape `(entries,)` int64): Column of each entry.
        value (`torch.Tensor` of shape `(entries,)`): The entries; the compressed format has no gradient for them.
        shape: Numbers of rows and columns.
    """

    def __init__(self, row: Tensor, column: Tensor, value: Tensor, shape: tuple[int, int]) -> None:
        self.row, self.column, self.value, self.shape = row, column, value, shape

    @cached_property
    def transposed(self) -> "SparseMatrix":
        """The transposed matrix."""
        return SparseMatrix(self.column, self.row, self.value, (self.shape[1], self.shape[0]))

    @cached_property
    def compressed(self) -> Tensor:
        """The matrix in compressed sparse row format."""
        row, order = self.row.sort()
        starts = torch.searchsorted(row, torch.arange(self.shape[0] + 1, device=row.device))
        return torch.sparse_csr_tensor(starts, self.column[order], self.value[order], self.shape, check_invariants=False)

    def product(self, dense: Tensor) -> Tensor:
        """The product with a dense matrix (columns, width), of shape `(rows, width)`."""
        on_cpu = dense.device.type == "cpu" and not torch.compiler.is_compiling()
        if on_cpu and not self.value.requires_grad and dense.dtype in (torch.float32, torch.float64):
            return _CompressedProduct.apply(dense, self)
        gathered = dense.index_select(0, self.column) * self.value.unsqueeze(-1)
        return dense.new_zeros(self.shape[0], dense.shape[1]).index_add(0, self.row, gathered)


class _CompressedProduct(torch.autograd.Function):
    """A product whose backward pass is a product too: PyTorch's own would transpose the matrix each time."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: SparseMatrix) -> Tensor:
        ctx.matrix = matrix
        return matrix.compressed @ dense

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _CompressedProduct.apply(gradient, ctx.matrix.transposed), None
