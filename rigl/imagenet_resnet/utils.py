"""The old path of functions that live in `rigl.training`."""

from __future__ import annotations

from rigl.training.checkpoints import initialize_parameters_from_ckpt
from rigl.training.summaries import format_tensors, host_call_fn, mask_summaries

__all__ = ['format_tensors', 'host_call_fn', 'initialize_parameters_from_ckpt', 'mask_summaries']
