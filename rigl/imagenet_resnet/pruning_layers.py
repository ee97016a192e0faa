"""The old path of `rigl.model_pruning.sparse_layers`, where the code lives."""

from __future__ import annotations

from rigl.model_pruning.sparse_layers import sparse_conv2d, sparse_fully_connected

__all__ = ['sparse_conv2d', 'sparse_fully_connected']
