"""Random numbers that are the same bits in every library and on every device.

Each number is a hash of its position in the tensor, the seed and the step. The
hash uses int32, which wraps around in the same way in numpy, TensorFlow, XLA,
JAX and PyTorch. Their own generators of random floats differ from one another.
Floats are made from the hash by exact operations.
"""

from __future__ import annotations

import math
from typing import Any, Sequence

from rigl.core import arrays
from rigl.core.arrays import Array
from rigl.core.rows import Rows

# (seed, step): an integer from seeding.stable_seed, and an integer scalar,
# either a number or a tensor.
Seed = tuple[int, Any]

# Mask of the lower byte of each half of an int32.
_EVEN_BYTES = 0x00FF00FF
# Standard deviation of 2**16 * (sum of four uniform bytes).
_SUM_STDDEV = 2**16 * math.sqrt(4 * (2**16 - 1) / 12)


def _signed(number: int) -> int:
  """The int32 with the bits of a uint32."""
  return (number + 2**31) % 2**32 - 2**31


# Multipliers of the hash. _SPREAD, an odd number near 2**32 / golden ratio,
# separates consecutive positions; _MIX makes each bit change half of the others
# (from C. Wellons' search for hashes of low bias).
_SPREAD = _signed(0x9E3779B1)
_MIX = (_signed(0x7FEB352D), _signed(0x846CA68B))


def _mixed(xp: Any, x: Array, key: Array) -> Array:
  """Hashes int32 `x` with a key; every bit depends on all bits of both."""
  x = xp.bitwise_xor(x, xp.unsigned_right_shift(x, 16)) * _MIX[0]
  x = xp.bitwise_xor(x, key)
  x = xp.bitwise_xor(x, xp.unsigned_right_shift(x, 15)) * _MIX[1]
  return xp.bitwise_xor(x, xp.unsigned_right_shift(x, 16))


def _bits(rows: Rows, seeds: Sequence[Seed]) -> Array:
  """int32 [rows, width], uniform over all values; a seed for each layer."""
  xp = rows.xp
  # Seed and step are hashed once per layer.
  stable = xp.asarray([_signed(number) for number, _ in seeds], 'int32')
  steps = xp.stack([xp.reshape(xp.asarray(step, 'int32'), ()) for _, step in seeds])
  first = _mixed(xp, steps * _SPREAD, stable)
  second = _mixed(xp, first + _SPREAD, stable)
  return _mixed(xp, rows.positions * _SPREAD + rows.spread(first), rows.spread(second))


def uniform(like: Array, seed: Seed) -> Array:
  """U[0, 1) in steps of 2 ** -24, float32, of the shape and in the library of `like`."""
  xp = arrays.of(like)
  rows = Rows(xp, [like.shape])
  [drawn] = rows.split(
    xp.asarray(xp.unsigned_right_shift(_bits(rows, [seed]), 8), 'float32') * 2.0**-24
  )
  return drawn


def near_normal(like: Array, seed: Seed) -> Array:
  """Close to N(0, 1), float32, of the shape and in the library of `like`.

  Sums of four uniform numbers: the density is within 0.02 of the normal one,
  and values end at 3.5 standard deviations. Exactly normal numbers need
  logarithms and cosines, whose last bit differs between devices.
  """
  [drawn] = _sums_of_four([like], [seed], 1.0 / _SUM_STDDEV)
  return drawn


def noise(likes: Sequence[Array], seeds: Sequence[Seed], stddev: float) -> list[Array]:
  """Noise to add to scores to break ties, float32; none for a `stddev` of 0.

  As `near_normal`, but the standard deviation is within a factor of 1.42 of
  `stddev`, because the scale is a power of 2. So the product is exact, and
  compilers that fuse it with the addition give the same bits as others.
  """
  scale = 2.0 ** round(math.log2(stddev / _SUM_STDDEV)) if stddev else 0.0
  return _sums_of_four(likes, seeds, scale)


def _sums_of_four(likes: Sequence[Array], seeds: Sequence[Seed], scale: float) -> list[Array]:
  """float32 [...]: `scale` times centred sums of four random bytes.

  Hashing is most of the work, so each hash gives two numbers: with p and q the
  sums of two bytes each, p + q and p - q are uncorrelated.
  """
  xp = arrays.of(likes[0])
  sizes = [arrays.size(like) for like in likes]
  rows = Rows(xp, [((n + 1) // 2,) for n in sizes])
  bits = _bits(rows, seeds)
  # q * 2 ** 16 + p, both of mean 0.
  sums = (bits & _EVEN_BYTES) + (xp.unsigned_right_shift(bits, 8) & _EVEN_BYTES) - _EVEN_BYTES
  # (p + q) * 2 ** 16 + p and (p - q) * 2 ** 16 - p modulo 2 ** 32. The last
  # p is negligible, but makes ties rare.
  halves = [
    rows.split(xp.asarray(sums * factor, 'float32') * scale) for factor in (2**16 + 1, 2**16 - 1)
  ]
  return [
    xp.reshape(xp.concatenate(both, 0)[:n], like.shape)
    for like, n, both in zip(likes, sizes, zip(*halves))
  ]
