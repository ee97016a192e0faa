"""Removes unused pixels and neurons from a sparse fully connected network.

A unit (input pixel or neuron) is used only if a path of active connections
leads from an input through it to an output. Removing all others shrinks the
matrices. "Rigging the Lottery", https://arxiv.org/abs/1911.11134, Table 2,
gives the remaining sizes and bytes of LeNet-300-100.

All functions take the masks of consecutive layers, 0/1 arrays [n_in, n_out],
which stay unchanged. They raise ValueError for others.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

_BYTES_PER_PARAMETER = 4
_BITS_PER_BYTE = 8


def get_compressed_fc(masks: Sequence[np.ndarray]) -> tuple[list[float], list[int]]:
  """Measures a fully connected network without its unconnected units.

  Returns:
    The sparsity of each layer's remaining matrix (1.0 where nothing remains),
    and the remaining units [n_inputs, n_hidden_1, ..., n_outputs].
  """
  compressed = compress_masks(masks)
  sparsities = [1.0 - float(mask.mean()) if mask.size else 1.0 for mask in compressed]
  sizes = [mask.shape[0] for mask in compressed] + [compressed[-1].shape[1]]
  return sparsities, sizes


def compressed_size_bytes(masks: Sequence[np.ndarray]) -> int:
  """The bytes that the network takes without its unconnected units.

  Counts 4 bytes per active weight, 4 per bias of a remaining neuron and, to
  tell which weights are active, one bit per entry of the remaining matrices,
  rounded up to bytes per layer.
  """
  size = 0
  for mask in compress_masks(masks):
    n_parameters = np.count_nonzero(mask) + mask.shape[1]
    bitmask = -(-mask.size // _BITS_PER_BYTE)
    size += _BYTES_PER_PARAMETER * n_parameters + bitmask
  return size


def compress_masks(masks: Sequence[np.ndarray]) -> list[np.ndarray]:
  """The masks without the rows and columns of unconnected units.

  Returns:
    bool arrays [n_in_kept, n_out_kept], one for each layer.
  """
  kept = connected_units(masks)
  return [
    np.asarray(mask, bool)[np.ix_(rows, columns)]
    for mask, rows, columns in zip(masks, kept[:-1], kept[1:])
  ]


def connected_units(masks: Sequence[np.ndarray]) -> list[np.ndarray]:
  """The units on a path from an input to an output.

  These remain when units without incoming or without outgoing connections are
  removed repeatedly. Two sweeps find them. Note:

  - A neuron without incoming connections is removed although its output may not
    be 0: it is the constant relu(bias), which can be folded into the biases of
    the next layer without changing any output of the network.
  - Outputs are never removed: the logit of an output without connections is its
    bias, so the network can still predict its class.

  Returns:
    bool arrays, True for a unit that stays: one [n_in] for the inputs, then one
    [n_out] for each layer.
  """
  active = _validated(masks)
  from_inputs = [np.ones(active[0].shape[0], bool)]
  for mask in active:
    from_inputs.append(np.any(mask[from_inputs[-1]], axis=0))
  to_outputs = [np.ones(active[-1].shape[1], bool)]
  for mask in reversed(active):
    to_outputs.append(np.any(mask[:, to_outputs[-1]], axis=1))
  to_outputs.reverse()
  inner = [a & b for a, b in zip(from_inputs[:-1], to_outputs[:-1])]
  return [*inner, to_outputs[-1]]


def _validated(masks: Sequence[np.ndarray]) -> list[np.ndarray]:
  """The masks as bool matrices; raises ValueError unless they are such."""
  if not len(masks):
    raise ValueError('Expected the mask of at least one layer, found none.')
  active: list[np.ndarray] = []
  for index, mask in enumerate(masks):
    mask = np.asarray(mask)
    if mask.ndim != 2:
      raise ValueError(
        f'Expected the mask of layer {index} to have shape [n_in, n_out], found {mask.shape}.'
      )
    if active and active[-1].shape[1] != mask.shape[0]:
      raise ValueError(
        f'The mask of layer {index} has {mask.shape[0]} rows, but the layer '
        f'before has {active[-1].shape[1]} neurons.'
      )
    others = mask[~np.isin(mask, (0, 1))]
    if others.size:
      raise ValueError(
        f'Expected the mask of layer {index} to hold only 0 and 1, found {others[0]}.'
      )
    active.append(mask.astype(bool))
  return active
