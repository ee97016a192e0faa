"""Time of a RigL mask update, compared with an implementation that sorts.

    python benchmarks/mask_update.py [--sizes 10000 100000 ...]

Both get the same scores with noise, in the same session, and must give the same
mask. The other implementation sorts all scores with tf.math.top_k and scatters
the ranks back, once to drop and once to grow. Only the ratio carries over to
other machines.
"""

from __future__ import annotations

import argparse

import numpy as np
import timing

from rigl.compat import tf
from rigl.core import mask_math, scores, stateless_random

SPARSITY = 0.9
DROP_FRACTION = 0.3


def sorted_top_n(score: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
  """bool mask of the n highest scores, by a full sort and a scatter."""
  flat = tf.reshape(score, [-1])
  _, order = tf.math.top_k(flat, k=tf.size(flat))
  ranks = tf.scatter_nd(order[:, None], tf.range(tf.size(flat)), tf.shape(flat))
  return tf.reshape(ranks < n, tf.shape(score))


def sorting_drop_and_grow(
  mask: tf.Tensor, score_drop: tf.Tensor, score_grow: tf.Tensor, drop_fraction: float
) -> tf.Tensor:
  """The same mask as mask_math.drop_and_grow."""
  active = mask > 0
  n_ones = tf.reduce_sum(tf.cast(active, tf.int32))
  n_prune = mask_math.n_to_drop(n_ones, drop_fraction)
  lowest = tf.fill(tf.shape(mask), float('-inf'))
  kept = sorted_top_n(tf.where(active, score_drop, lowest), n_ones - n_prune)
  grown = sorted_top_n(tf.where(kept, lowest, score_grow), n_prune)
  return tf.cast(tf.logical_or(kept, grown), mask.dtype)


def measure(size: int, repeats: int) -> tuple[float, float]:
  """(seconds of drop_and_grow, seconds of the sort) for one layer."""
  rng = np.random.RandomState(0)
  with tf.Graph().as_default():
    feeds = {
      name: tf.placeholder(tf.float32, [size], name) for name in ('weights', 'gradient', 'mask')
    }
    variables = {
      name: tf.Variable(value, use_resource=True, trainable=False) for name, value in feeds.items()
    }
    mask = variables['mask'].read_value()
    noisy = scores.magnitude(mask, variables['weights'].read_value())
    noisy += stateless_random.noise(noisy, (1, 2), 1e-5)
    growth = scores.gradient_magnitude(variables['gradient'].read_value())
    ours = mask_math.drop_and_grow(mask, noisy, growth, DROP_FRACTION).mask
    theirs = sorting_drop_and_grow(mask, noisy, growth, DROP_FRACTION)
    with tf.Session() as session:
      session.run(
        [v.initializer for v in variables.values()],
        {
          feeds['weights']: rng.randn(size),
          feeds['gradient']: rng.randn(size),
          feeds['mask']: rng.rand(size) > SPARSITY,
        },
      )
      np.testing.assert_array_equal(*session.run([ours, theirs]))
      seconds = timing.medians_in_turns(
        {
          name: lambda op=op: timing.seconds_of(lambda: session.run(op))
          for name, op in (('ours', ours.op), ('theirs', theirs.op))
        },
        repeats,
      )
      return seconds['ours'], seconds['theirs']


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--sizes',
    type=int,
    nargs='+',
    metavar='N',
    default=[10_000, 100_000, 1_000_000, 2_400_000, 10_000_000],
    help='weights of a layer (default: %(default)s)',
  )
  parser.add_argument(
    '--repeats',
    type=int,
    default=11,
    metavar='N',
    help='runs of each, in turns (default: %(default)s)',
  )
  arguments = parser.parse_args()
  print('   weights   selection        sort   ratio')
  for size in arguments.sizes:
    ours, theirs = measure(size, arguments.repeats)
    print(f'{size:10,d} {1e3 * ours:8.2f} ms {1e3 * theirs:8.2f} ms {theirs / ours:6.1f}x')


if __name__ == '__main__':
  main()
