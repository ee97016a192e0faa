"""Layer-wise sparsities, random masks and their statistics, on variables.

`rigl.core.distributions` does the arithmetic, on {name: shape}. This module
applies it to mask variables: anything with `.name` and `.shape`.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

import numpy as np

from rigl.compat import tf
from rigl.core import distributions, layer_names

SparsityMap = Optional[Mapping[str, float]]
NameFn = Callable[[str], str]

get_n_zeros = distributions.get_n_zeros


def get_stats(*args: Any, **kwargs: Any) -> Any:
  """`rigl.micronet.keras_counting.get_stats`; only a call loads the counter."""
  from rigl.micronet import keras_counting

  return keras_counting.get_stats(*args, **kwargs)


def mask_extract_name_fn(mask_name: str) -> str:
  """The layer a mask belongs to: 'block1/conv/mask:0' -> 'block1/conv'.

  The ':0' may be missing. A mask outside of all scopes, 'mask:0', belongs to
  the layer ''.

  Raises:
    ValueError: `mask_name` is not that of a mask.
  """
  layer = layer_names.layer_of_mask(mask_name)
  if layer is None:
    raise ValueError(f'{mask_name!r} is not the name of a mask, <layer>/mask:0.')
  return layer


def calculate_sparsity(masks: Iterable[tf.Variable]) -> tf.Tensor:
  """Share of zeros in 0/1 masks, all together, float32 scalar; 0 for no mask."""
  masks = list(masks)
  if not masks:
    return tf.constant(0.0)
  n_ones = tf.add_n([tf.reduce_sum(tf.cast(tf.not_equal(mask, 0), tf.int64)) for mask in masks])
  size = sum(mask.shape.num_elements() for mask in masks)
  return tf.cast(1.0 - tf.cast(n_ones, tf.float64) / size, tf.float32)


def get_mask_random_numpy(
  mask_shape: Sequence[int], sparsity: float, random_state: Optional[np.random.RandomState] = None
) -> np.ndarray:
  """A random 0/1 mask with exactly floor(sparsity * size) zeros.

  Drawn by `random_state`, or by numpy's global generator.
  """
  return distributions.random_mask(mask_shape, sparsity, random_state or np.random)


def get_mask_random(
  mask: tf.Variable,
  sparsity: float,
  dtype: tf.DType,
  random_state: Optional[np.random.RandomState] = None,
) -> tf.Tensor:
  """`get_mask_random_numpy` of the shape of `mask`, as a tensor of `dtype`."""
  values = get_mask_random_numpy(mask.shape.as_list(), sparsity, random_state)
  return tf.constant(values, dtype=dtype)


def _by_layer(all_masks: Iterable[Any], extract_name_fn: NameFn):
  """({layer name: shape}, {layer name: mask name}) of the masks."""
  shapes: dict[str, tuple[int, ...]] = {}
  mask_names: dict[str, str] = {}
  for mask in all_masks:
    layer = extract_name_fn(mask.name)
    if mask_names.setdefault(layer, mask.name) != mask.name:
      raise ValueError(
        f'{mask_names[layer]} and {mask.name} have one layer name, '
        f'{layer!r}; extract_name_fn must tell them apart.'
      )
    shapes[layer] = tuple(mask.shape.as_list())
  return shapes, mask_names


def get_sparsities_erdos_renyi(
  all_masks: Iterable[Any],
  default_sparsity: float,
  custom_sparsity_map: SparsityMap,
  include_kernel: bool,
  extract_name_fn: NameFn = mask_extract_name_fn,
  erk_power_scale: float = 1.0,
) -> dict[str, float]:
  """`get_sparsities` by Erdos-Renyi (ER) or, if `include_kernel`, ERK."""
  return get_sparsities(
    all_masks,
    'erdos_renyi_kernel' if include_kernel else 'erdos_renyi',
    default_sparsity,
    custom_sparsity_map,
    extract_name_fn,
    erk_power_scale,
  )


def get_sparsities_uniform(
  all_masks: Iterable[Any],
  default_sparsity: float,
  custom_sparsity_map: SparsityMap,
  extract_name_fn: NameFn = mask_extract_name_fn,
) -> dict[str, float]:
  """`get_sparsities` with the default sparsity in all layers outside the map."""
  return get_sparsities(all_masks, 'random', default_sparsity, custom_sparsity_map, extract_name_fn)


def get_sparsities_str(all_masks: Iterable[Any], default_sparsity: float) -> dict[str, float]:
  """`get_sparsities` of a ResNet-50 as published with STR (arXiv 2002.03231)."""
  return get_sparsities(all_masks, 'str', default_sparsity, None)


def get_sparsities(
  all_masks: Iterable[Any],
  method: str,
  default_sparsity: float,
  custom_sparsity_map: SparsityMap,
  extract_name_fn: NameFn = mask_extract_name_fn,
  erk_power_scale: float = 1.0,
) -> dict[str, float]:
  """How sparse each layer is to be.

  Args:
    all_masks: variables with `.name` and `.shape`.
    method: random (uniform), erdos_renyi, erdos_renyi_kernel or str.
    default_sparsity: sparsity of all layers outside the map together,
      in [0, 1].
    custom_sparsity_map: {layer name: sparsity} of exceptions.
    extract_name_fn: mask name -> layer name.
    erk_power_scale: exponent of the raw densities of erdos_renyi_kernel.

  Returns:
    {mask name: sparsity}.

  Raises:
    ValueError: unknown method, unknown layer in the map, two masks of one
      layer name, or a sparsity outside [0, 1]; names it.
  """
  shapes, mask_names = _by_layer(all_masks, extract_name_fn)
  sparsities = distributions.get_sparsities(
    shapes, method, default_sparsity, custom_sparsity_map, erk_power_scale
  )
  return {mask_names[layer]: s for layer, s in sparsities.items()}


def get_mask_init_fn(
  all_masks: Iterable[tf.Variable],
  method: str,
  default_sparsity: float,
  custom_sparsity_map: SparsityMap,
  mask_fn: Callable[..., tf.Tensor] = get_mask_random,
  erk_power_scale: float = 1.0,
  extract_name_fn: NameFn = mask_extract_name_fn,
) -> tf.Operation:
  """An op that assigns every mask a fresh one of its sparsity, see `get_sparsities`.

  `mask_fn` is (mask, sparsity, dtype) -> tensor. The default draws all masks
  from one generator, seeded by the seed of tf.set_random_seed.
  """
  all_masks = list(all_masks)
  if mask_fn is get_mask_random:
    # The seed of tf.set_random_seed, or a constant: numpy's default differs
    # between processes.
    seed = tf.random.get_seed(0)[0] if tf.executing_eagerly() else tf.get_default_graph().seed or 0
    mask_fn = functools.partial(mask_fn, random_state=np.random.RandomState(seed % 2**32))
  sparsities = get_sparsities(
    all_masks, method, default_sparsity, custom_sparsity_map, extract_name_fn, erk_power_scale
  )
  return tf.group(
    *(
      mask.assign(mask_fn(mask, sparsities[mask.name], mask.dtype.base_dtype)) for mask in all_masks
    )
  )
