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
# Factors of q * 2 ** 16 + p. Modulo 2 ** 32 they make (p + q) * 2 ** 16 + p of it, for the first
# half of a tensor, and (p - q) * 2 ** 16 - p. The last p is negligible, but makes ties rare.
_HALVES = (2**16 + 1, 2**16 - 1)
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


def _bits(xp: Any, positions: Array, stable: Array, step: Array) -> Array:
  """int32 of the shape of `positions`, uniform over all values; a hash of the three."""
  # Seed and step, which have fewer elements, are hashed first.
  first = _mixed(xp, step * _SPREAD, stable)
  second = _mixed(xp, first + _SPREAD, stable)
  return _mixed(xp, positions * _SPREAD + first, second)


def _bits_of(xp: Any, n: int, seed: Seed) -> Array:
  """int32 [n], uniform over all values, for one layer."""
  stable, step = seed
  # Vectors, since scalars of numpy warn when they wrap around.
  return _bits(
    xp,
    xp.ordinals(n),
    xp.asarray([_signed(stable)], 'int32'),
    xp.reshape(xp.asarray(step, 'int32'), (1,)),
  )


def uniform(like: Array, seed: Seed) -> Array:
  """U[0, 1) in steps of 2 ** -24, float32, of the shape and in the library of `like`."""
  xp = arrays.of(like)
  bits = xp.unsigned_right_shift(_bits_of(xp, arrays.size(like), seed), 8)
  return xp.reshape(xp.asarray(bits, 'float32') * 2.0**-24, like.shape)


def near_normal(like: Array, seed: Seed) -> Array:
  """Close to N(0, 1), float32, of the shape and in the library of `like`.

  Sums of four uniform numbers: the density is within 0.02 of the normal one,
  and values end at 3.5 standard deviations. Exactly normal numbers need
  logarithms and cosines, whose last bit differs between devices.
  """
  return _sums_of_four(like, seed, 1.0 / _SUM_STDDEV)


def noise(like: Array, seed: Seed, stddev: float) -> Array:
  """Noise to add to scores to break ties, float32.

  As `near_normal`, but the standard deviation is within a factor of 1.42 of
  `stddev`, because the scale is a power of 2. So the product is exact, and
  compilers that fuse it with the addition give the same bits as others.

  Args:
    like: tensor of the shape and the library of the result.
    seed: see `Seed`.
    stddev: standard deviation; 0 for no noise.
  """
  return _sums_of_four(like, seed, _noise_scale(stddev))


def joined_noise(rows: Rows, seeds: Sequence[Seed], stddev: float) -> Array:
  """`noise` of layers that form a matrix, float32 [rows, width].

  The same numbers, although each takes a hash of its own: to compile the two
  halves of each layer takes longer than to hash twice.
  """
  xp = rows.xp
  half = rows.spread(xp.asarray([(size + 1) // 2 for size in rows.sizes], 'int32'))
  in_second = rows.positions >= half
  positions = xp.where(in_second, rows.positions - half, rows.positions)
  factors = xp.where(in_second, *(xp.asarray(n, 'int32') for n in reversed(_HALVES)))
  stable = rows.spread(xp.asarray([_signed(number) for number, _ in seeds], 'int32'))
  steps = rows.spread(xp.stack([xp.reshape(xp.asarray(step, 'int32'), ()) for _, step in seeds]))
  sums = _two_sums(xp, _bits(xp, positions, stable, steps))
  return xp.asarray(sums * factors, 'float32') * _noise_scale(stddev)


def _noise_scale(stddev: float) -> float:
  return 2.0 ** round(math.log2(stddev / _SUM_STDDEV)) if stddev else 0.0


def _two_sums(xp: Any, bits: Array) -> Array:
  """q * 2 ** 16 + p, where p and q are centred sums of two random bytes each."""
  return (bits & _EVEN_BYTES) + (xp.unsigned_right_shift(bits, 8) & _EVEN_BYTES) - _EVEN_BYTES


def _sums_of_four(like: Array, seed: Seed, scale: float) -> Array:
  """float32 [...]: `scale` times centred sums of four random bytes.

  Hashing is most of the work, so each hash gives two numbers: with p and q the
  sums of two bytes each, p + q and p - q are uncorrelated.
  """
  xp = arrays.of(like)
  size = arrays.size(like)
  sums = _two_sums(xp, _bits_of(xp, (size + 1) // 2, seed))
  halves = [xp.asarray(sums * n, 'float32') * scale for n in _HALVES]
  return xp.reshape(xp.concatenate(halves, 0)[:size], like.shape)
