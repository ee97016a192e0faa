"""How many weights each layer keeps: uniform, Erdos-Renyi (kernel), STR.

Every distribution maps the shapes of the masked layers and one default sparsity
to a sparsity per layer:

    >>> shapes = {'conv': (3, 3, 16, 32), 'fc': (512, 10)}
    >>> get_sparsities(shapes, 'random', 0.9)
    {'conv': 0.9, 'fc': 0.9}

A layer of `size` weights at sparsity s has exactly floor(s * size) zeros, see
`get_n_zeros`. A custom sparsity map fixes the sparsity of some layers and takes
them out of the distribution: the other layers alone meet the default sparsity.
This module needs numpy only.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from typing import Optional, Union

import numpy as np

from rigl import str_sparsities
from rigl.core import checks

Shapes = Mapping[str, Sequence[int]]
CustomMap = Optional[Mapping[str, float]]

DISTRIBUTIONS = ('random', 'erdos_renyi', 'erdos_renyi_kernel', 'str')


def get_n_zeros(size: int, sparsity: float) -> int:
  """Returns floor(sparsity * size) in float64: 100 weights at 0.29 have 28."""
  return math.floor(float(sparsity) * int(size))


def random_mask(
  shape: Sequence[int],
  sparsity: float,
  random_state: Union[np.random.RandomState, types.ModuleType],
) -> np.ndarray:
  """Draws a float32 mask with exactly `get_n_zeros` zeros at random positions.

  Shuffles a flat array of zeros followed by ones, once: the state of the
  generator determines the mask.

  Raises:
    ValueError: if the sparsity is outside [0, 1].
  """
  checks.in_unit_interval('sparsity', sparsity)
  # As bytes, which stay in the cache: twice as fast, with the same draws.
  flat = np.ones(math.prod(shape), dtype=bool)
  flat[: get_n_zeros(flat.size, sparsity)] = False
  random_state.shuffle(flat)
  return flat.reshape(tuple(shape)).astype(np.float32)


def uniform(
  shapes: Shapes, default_sparsity: float, custom_sparsity_map: CustomMap = None
) -> dict[str, float]:
  """Gives every layer the default sparsity, except those in the custom map.

  Arguments and result are those of `get_sparsities`.

  Raises:
    ValueError: on a sparsity outside [0, 1] or a custom key that names no
      layer.
  """
  custom = _validated_custom_map(shapes, default_sparsity, custom_sparsity_map)
  return {name: custom.get(name, float(default_sparsity)) for name in shapes}


def erdos_renyi(
  shapes: Shapes,
  default_sparsity: float,
  custom_sparsity_map: CustomMap = None,
  include_kernel: bool = False,
  power_scale: float = 1.0,
) -> dict[str, float]:
  """Distributes the weights as in an Erdos-Renyi random graph.

  The density of a layer is eps * p. Erdos-Renyi (SET, Nature Comm. 2018) has
  p = (n_in + n_out) / (n_in * n_out) from the last two dimensions; the kernel
  variant, ERK (https://arxiv.org/abs/1911.11134, section 3), uses the sum over
  the product of all dimensions. One eps makes the layers together hold as many
  weights as `uniform` gives them. Where a density passes 1, the layer (or
  layers) of the largest p become dense and eps is solved again for the others.

  Args:
    shapes: layer name -> shape of its weights.
    default_sparsity: overall sparsity of the layers outside the custom map.
    custom_sparsity_map: layer name -> sparsity of layers left out of the
      equation. 0 makes a layer dense.
    include_kernel: True for ERK.
    power_scale: exponent of p, for ERK only: 0 gives equal densities, larger
      values move weights to the small layers. Plain Erdos-Renyi ignores it.

  Returns:
    layer name -> sparsity, in the order of `shapes`.

  Raises:
    ValueError: on a sparsity outside [0, 1], a custom key that names no layer,
      a shape the distribution is not defined for, or a power_scale for which
      the densities are not finite.
  """
  custom = _validated_custom_map(shapes, default_sparsity, custom_sparsity_map)
  free = {name: shape for name, shape in shapes.items() if name not in custom}
  sizes = {name: math.prod(shape) for name, shape in free.items()}
  densities = _erdos_renyi_densities(
    sizes,
    _raw_probabilities(free, include_kernel, power_scale),
    budget=sum(size - get_n_zeros(size, default_sparsity) for size in sizes.values()),
    power_scale=power_scale,
  )
  return {name: custom[name] if name in custom else 1.0 - densities[name] for name in shapes}


def str_published(
  shapes: Shapes, default_sparsity: float, custom_sparsity_map: CustomMap = None
) -> dict[str, float]:
  """Looks the sparsities of ResNet-50 up in the table published with STR.

  Args:
    shapes: layer name -> shape of its weights. The names are those of the
      ResNet-50 training graph, see `rigl.str_sparsities.LAYER_NAMES`; layers
      may be missing, for instance an unmasked first one.
    default_sparsity: overall sparsity as published, for example 0.9805.
    custom_sparsity_map: layer name -> sparsity. An entry replaces the
      published value (the 2020 implementation checked its name and then
      ignored it) and may name a layer that the table does not hold.

  Returns:
    layer name -> sparsity, in the order of `shapes`.

  Raises:
    ValueError: on an overall sparsity that is not published, a layer that
      ResNet-50 does not have, or a wrong custom map.
  """
  custom = _validated_custom_map(shapes, default_sparsity, custom_sparsity_map)
  overall = str_sparsities.find_overall_sparsity(float(default_sparsity))
  published = str_sparsities.read_table()[overall]
  missing = [name for name in shapes if name not in {**published, **custom}]
  if missing:
    raise ValueError(
      f'The STR table holds ResNet-50 only, not the layers {missing}; its '
      f'names look like {str_sparsities.LAYER_NAMES[0]!r}. Use one of '
      f'{DISTRIBUTIONS[:-1]} for other networks.'
    )
  return {name: {**published, **custom}[name] for name in shapes}


def get_sparsities(
  shapes: Shapes,
  method: str,
  default_sparsity: float,
  custom_sparsity_map: CustomMap = None,
  erk_power_scale: float = 1.0,
) -> dict[str, float]:
  """Distributes the sparsity over the layers by the named method.

  Args:
    shapes: layer name -> shape of its weights.
    method: one of `DISTRIBUTIONS`; 'random' is the uniform distribution.
    default_sparsity: sparsity to reach with the layers outside the custom map.
    custom_sparsity_map: layer name -> sparsity. 0 makes a layer dense.
    erk_power_scale: exponent of 'erdos_renyi_kernel'; the others ignore it.

  Returns:
    layer name -> sparsity, in the order of `shapes`.

  Raises:
    ValueError: on an unknown method, and as the distributions themselves.
  """
  checks.one_of('Sparsity distribution', method, DISTRIBUTIONS)
  if method == 'random':
    return uniform(shapes, default_sparsity, custom_sparsity_map)
  if method == 'str':
    return str_published(shapes, default_sparsity, custom_sparsity_map)
  return erdos_renyi(
    shapes,
    default_sparsity,
    custom_sparsity_map,
    include_kernel=method == 'erdos_renyi_kernel',
    power_scale=erk_power_scale,
  )


def _validated_custom_map(
  shapes: Shapes, default_sparsity: float, custom_sparsity_map: CustomMap
) -> dict[str, float]:
  """Checks the common arguments; returns the map with float values."""
  checks.in_unit_interval('The default sparsity', default_sparsity)
  custom = {name: float(sparsity) for name, sparsity in (custom_sparsity_map or {}).items()}
  unknown = sorted(set(custom) - set(shapes))
  if unknown:
    raise ValueError(
      f'The custom sparsity map names {unknown}, but the masked layers are {list(shapes)}.'
    )
  for name, sparsity in custom.items():
    checks.in_unit_interval(f'The custom sparsity of {name!r}', sparsity)
  return custom


def _raw_probabilities(
  shapes: Shapes, include_kernel: bool, power_scale: float
) -> dict[str, float]:
  """Returns p of each layer, see `erdos_renyi`."""
  n_dims = 1 if include_kernel else 2
  raw = {}
  for name, shape in shapes.items():
    if len(shape) < n_dims or min(shape) < 1:
      raise ValueError(
        f'Layer {name!r} of shape {tuple(shape)} has no Erdos-Renyi density: '
        f'{n_dims} or more dimensions of at least 1 are needed. Give it a '
        f'custom sparsity.'
      )
    if include_kernel:
      try:
        raw[name] = (sum(shape) / math.prod(shape)) ** power_scale
      except OverflowError:
        raw[name] = math.inf
    else:
      n_in, n_out = shape[-2:]
      raw[name] = (n_in + n_out) / (n_in * n_out)
  return raw


def _erdos_renyi_densities(
  sizes: Mapping[str, int], raw: Mapping[str, float], budget: int, power_scale: float
) -> dict[str, float]:
  """Solves for eps with densities capped at 1.

  The budget cannot run out: a layer is capped only if its share of the budget
  exceeds its size, so a positive budget is left for the others.

  Args:
    sizes: layer name -> number of weights.
    raw: layer name -> p.
    budget: number of weights that all layers keep together.
    power_scale: exponent of p, for the error.

  Returns:
    layer name -> density in [0, 1].

  Raises:
    ValueError: if p is zero or infinite in float64.
  """
  if budget == sum(sizes.values()):
    # Exactly dense: eps would give densities that round to less than 1.
    return dict.fromkeys(sizes, 1.0)
  densities: dict[str, float] = {}
  open_layers = list(sizes)
  while open_layers:
    weight = sum(raw[name] * sizes[name] for name in open_layers)
    if not 0.0 < weight < math.inf:
      raise ValueError(
        f'No finite densities reach the {budget} weights to keep with a '
        f'power scale of {power_scale}. Use a value closer to 1.'
      )
    eps = budget / weight
    largest = max(raw[name] for name in open_layers)
    if eps * largest <= 1.0:
      densities.update((name, eps * raw[name]) for name in open_layers)
      break
    for name in [name for name in open_layers if raw[name] == largest]:
      densities[name] = 1.0
      budget -= sizes[name]
      open_layers.remove(name)
  return densities
