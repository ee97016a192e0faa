"""Random draws that are the same bits in every library and on every device.

A draw is a hash of integers: the position of the number in the tensor, the seed
and the step. The integers are int32 and wrap around, which they do alike in
numpy, TensorFlow, XLA, JAX and PyTorch, while each of these turns random bits
into floats in a way of its own. Floats are made by operations that are exact.
"""

from __future__ import annotations

import math
from typing import Any, Sequence

from rigl.core import arrays
from rigl.core.arrays import Array

# (int, step): an integer from seeding.stable_seed, and an integer scalar, a
# number or a tensor.
Seed = tuple[int, Any]

# The bytes of an int32 that are the lower ones of its halves.
_EVEN_BYTES = 0x00FF00FF
# Of 65536 times the sum of four bytes.
_SUM_STDDEV = 2**16 * math.sqrt(4 * (2**16 - 1) / 12)


def _signed(number: int) -> int:
  """The int32 of the same 32 bits."""
  return (number + 2**31) % 2**32 - 2**31


# Multipliers of a hash: an odd number near 2**32 divided by the golden ratio,
# which spreads consecutive positions, and two that spread each bit to half of
# the others (C. Wellons' search for hashes of little bias).
_SPREAD = _signed(0x9E3779B1)
_MIX = (_signed(0x7FEB352D), _signed(0x846CA68B))


def _mixed(xp: Any, x: Array, key: Array) -> Array:
  """int32 of the shape of `x`: each number and the key decide every bit."""
  x = xp.bitwise_xor(x, xp.unsigned_right_shift(x, 16)) * _MIX[0]
  x = xp.bitwise_xor(x, key)
  x = xp.bitwise_xor(x, xp.unsigned_right_shift(x, 15)) * _MIX[1]
  return xp.bitwise_xor(x, xp.unsigned_right_shift(x, 16))


def _bits(xp: Any, sizes: Sequence[int],
          seeds: Sequence[Seed]) -> list[Array]:
  """int32 vectors of these sizes, uniform over all values."""
  # What all numbers of a vector share is mixed for all vectors together.
  stable = xp.asarray([_signed(number) for number, _ in seeds], 'int32')
  steps = xp.stack([
      xp.reshape(xp.asarray(step, 'int32'), ()) for _, step in seeds])
  first = _mixed(xp, steps * _SPREAD, stable)
  second = _mixed(xp, first + _SPREAD, stable)
  return [
      _mixed(xp, xp.ordinals(size) * _SPREAD + a, b)
      for size, a, b in zip(sizes, xp.unstack(first), xp.unstack(second))]


def uniform(like: Array, seed: Seed) -> Array:
  """U[0, 1) in steps of 2 ** -24, float32.

  Args:
    like: tensor of the shape and the library of the result.
    seed: see `Seed`.
  """
  xp = arrays.of(like)
  [bits] = _bits(xp, [arrays.size(like)], [seed])
  return xp.reshape(xp.asarray(
      xp.unsigned_right_shift(bits, 8), 'float32') * 2.**-24, like.shape)


def near_normal(like: Array, seed: Seed) -> Array:
  """Close to N(0, 1), float32.

  Sums of four uniform variables, whose density is within 0.02 of the normal
  one and which end at 3.5 standard deviations. Logarithms and cosines, which a
  normal draw takes, differ in the last bit between devices.

  Args:
    like: tensor of the shape and the library of the result.
    seed: see `Seed`.
  """
  [drawn] = _sums_of_four([like], [seed], 1. / _SUM_STDDEV)
  return drawn


def noise(likes: Sequence[Array], seeds: Sequence[Seed],
          stddev: float) -> list[Array]:
  """What is added to scores to decide between equal ones, float32.

  As `near_normal`, but of a standard deviation that is only near `stddev`, by a
  factor of at most 1.42: it is scaled by a power of 2. So nothing is rounded,
  and a compiler that fuses the product with the addition behind it gives the
  same bits as one that does not.

  Args:
    likes: tensors of the shapes and the library of the results.
    seeds: see `Seed`.
    stddev: standard deviation; 0 for no noise.
  """
  scale = 2.**round(math.log2(stddev / _SUM_STDDEV)) if stddev else 0.
  return _sums_of_four(likes, seeds, scale)


def _sums_of_four(likes: Sequence[Array], seeds: Sequence[Seed],
                  scale: float) -> list[Array]:
  """float32 [...], each `scale` times the sum of four random bytes, of mean 0.

  The draw is most of the work, so its bytes are used twice: with p and q the
  sums of two bytes each, p + q and p - q are uncorrelated.
  """
  xp = arrays.of(likes[0])
  sizes = [arrays.size(like) for like in likes]
  drawn = []
  for like, n, bits in zip(
      likes, sizes, _bits(xp, [(n + 1) // 2 for n in sizes], seeds)):
    # q * 2 ** 16 + p, of mean 0 each.
    sums = (bits & _EVEN_BYTES) + (
        xp.unsigned_right_shift(bits, 8) & _EVEN_BYTES) - _EVEN_BYTES
    # (p + q) * 2 ** 16 + p and (p - q) * 2 ** 16 - p, for 2 ** 32 is 0 here.
    # The last p weighs nothing, but makes ties rare.
    both = xp.concatenate([sums * (2**16 + 1), sums * (2**16 - 1)], 0)
    drawn.append(
        xp.reshape(xp.asarray(both[:n], 'float32') * scale, like.shape))
  return drawn
