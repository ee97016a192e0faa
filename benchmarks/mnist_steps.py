"""The cost of sparse training on LeNet-300-100: steps and the whole script.

    python benchmarks/mnist_steps.py [--mnist=FOLDER] [--epochs=N]

Prints three ratios, all measured in one run:

* the step time of RigL (mask updates included, Delta T = 100) and of fixed
  masks, as multiples of dense training;
* RigL as a multiple of fixed masks;
* steps/s of the whole MNIST script, with its hooks, logs and the test after
  each epoch, as a fraction of a bare tf.function loop over the same network,
  masks, optimizer and batches; on each --loop that TensorFlow has, with the
  seconds until the end of the first epoch.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from typing import Callable, Sequence

import numpy as np
import timing

from rigl.compat import tf, tf2
from rigl.core import checks, distributions
from rigl.mnist import mnist_data, mnist_input, mnist_model
from rigl.training import config as config_lib
from rigl.training import factory, mask_init, tpu_estimator

BATCH_SIZE = 100
SPARSITY = 0.98
CUSTOM = {'layer2': SPARSITY * 0.9, 'layer3': 0.0}


class GraphSteps:
  """Runs training steps of one method in its own session."""

  def __init__(self, method: str, images: np.ndarray, labels: np.ndarray):
    config = config_lib.SparsityConfig(
      training_method=method,
      end_sparsity=SPARSITY,
      drop_fraction=0.3,
      drop_fraction_anneal='constant',
      maskupdate_end_step=-1,
    )
    with tf.Graph().as_default() as graph:
      batches = mnist_input.train_dataset(images, labels, BATCH_SIZE, 0, 10**7, seed=0)
      iterator = tf.data.make_initializable_iterator(batches)
      loss, _ = mnist_model.mnist_network_fc(
        iterator.get_next(), model_pruning=config.method.uses_masks
      )
      step = tf.train.get_or_create_global_step()
      inner = factory.make_inner_optimizer('momentum', 0.01, 0.9, True)
      self._train_op = factory.make_train_op(
        factory.make_optimizer(config, inner, custom_sparsity_map=CUSTOM),
        loss + tf.losses.get_regularization_loss(),
        step,
      )
      scaffold = mask_init.make_scaffold(config, CUSTOM)
      self._session = tf.Session(graph=graph)
      self._session.run([tf.global_variables_initializer(), iterator.initializer])
      if scaffold.init_fn:
        scaffold.init_fn(self._session)

  def seconds(self, n_steps: int) -> float:
    begin = time.perf_counter()
    for _ in range(n_steps):
      self._session.run(self._train_op)
    return time.perf_counter() - begin

  def close(self) -> None:
    self._session.close()


METHODS = ('baseline', 'scratch', 'rigl')


def compare_steps(
  images: np.ndarray, labels: np.ndarray, methods: Sequence[str], rounds: int
) -> dict[str, float]:
  """Median milliseconds per step; sessions are made in the order of methods.

  The methods alternate in rounds of 101 iterations, which contain exactly one
  mask update of RigL at Delta T = 100.
  """
  runs = {m: GraphSteps(m, images, labels) for m in methods}
  milliseconds = timing.medians_in_turns(
    {m: lambda run=run: 1e3 * run.seconds(101) / 101 for m, run in runs.items()}, rounds
  )
  for run in runs.values():
    run.close()
  return milliseconds


def bare_loop(images: np.ndarray, labels: np.ndarray) -> Callable[[int], float]:
  """A function n -> seconds of n fixed-mask steps in a plain tf.function."""
  rng = np.random.RandomState(0)
  sizes = ((784, 300), (300, 100), (100, 10))
  sparsities = (SPARSITY, *CUSTOM.values())
  masks = [
    tf2.Variable(distributions.random_mask(shape, s, rng)) for shape, s in zip(sizes, sparsities)
  ]
  weights = [tf2.Variable(rng.uniform(-0.1, 0.1, shape).astype('f')) for shape in sizes]
  biases = [tf2.Variable(np.zeros(shape[1], 'f')) for shape in sizes]
  variables = weights + biases
  slots = [tf2.Variable(tf2.zeros_like(v)) for v in variables]

  @tf2.function
  def step(inputs, targets):
    with tf2.GradientTape() as tape:
      outputs, penalty = inputs, 0.0
      for i, (w, m, b) in enumerate(zip(weights, masks, biases)):
        outputs = tf2.matmul(outputs, w * m) + b
        penalty += 1e-4 * tf2.nn.l2_loss(w)
        if i < 2:
          outputs = tf2.nn.relu(outputs)
      loss = penalty + tf2.reduce_mean(
        tf2.nn.sparse_softmax_cross_entropy_with_logits(targets, outputs)
      )
    gradients = tape.gradient(loss, variables)
    for variable, slot, gradient in zip(variables, slots, gradients):
      tf2.raw_ops.ResourceApplyMomentum(
        var=variable.handle,
        accum=slot.handle,
        lr=0.01,
        grad=gradient,
        momentum=0.9,
        use_nesterov=True,
      )
    return loss

  batches = iter(mnist_input.train_dataset(images, labels, BATCH_SIZE, 0, 10**7, seed=0))

  def seconds(n_steps: int) -> float:
    begin = time.perf_counter()
    for _ in range(n_steps):
      step(*next(batches))
    return time.perf_counter() - begin

  seconds(100)
  return seconds


def script_speed(mnist: str, n_epochs: int, n_batches: int, loop: str) -> tuple[float, float]:
  """(seconds to the end of the first epoch, steps/s after it) of the script."""
  command = [
    sys.executable,
    '-m',
    'rigl.mnist.mnist_train_eval',
    '--training_method=scratch',
    f'--num_epochs={n_epochs}',
    f'--loop={loop}',
  ]
  if mnist:
    command.append(f'--mnist={mnist}')
  begin = time.perf_counter()
  with tempfile.TemporaryDirectory() as folder:
    process = subprocess.Popen(
      [*command, f'--save_path={os.path.join(folder, "run")}'], stdout=subprocess.PIPE, text=True
    )
    epoch_ends = [
      time.perf_counter() for line in process.stdout or () if re.match(r'epoch +\d+/', line)
    ]
    if process.wait():
      raise RuntimeError(f'{" ".join(command)} failed; its error is above.')
  # From the end of one test to the end of the last, tests included.
  rate = (n_epochs - 1) * n_batches / (epoch_ends[-1] - epoch_ends[0])
  return epoch_ends[0] - begin, rate


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--mnist', default='', metavar='FOLDER', help='folder of the IDX files; else as in the script'
  )
  parser.add_argument(
    '--epochs',
    type=int,
    default=6,
    metavar='N',
    help='epochs of the whole script (default: %(default)s)',
  )
  parser.add_argument(
    '--rounds',
    type=int,
    default=7,
    metavar='N',
    help='runs of each session, in turns (default: %(default)s)',
  )
  parser.add_argument(
    '--orders',
    type=int,
    default=9,
    metavar='N',
    help='times that all sessions are made anew (default: %(default)s)',
  )
  parser.add_argument(
    '--scripts',
    type=int,
    default=5,
    metavar='N',
    help='runs of the script on each loop, between two bare loops each (default: %(default)s)',
  )
  arguments = parser.parse_args()
  if arguments.epochs < 2:
    parser.error('--epochs must be at least 2: the first is not timed.')
  data = mnist_data.load_mnist(
    checks.expanded_path('--mnist', arguments.mnist or '/tmp/data'), explicit=bool(arguments.mnist)
  )
  images = mnist_input.flat_pixels(data.train_images)
  labels = data.train_labels

  # The first session is a few percent faster, for any method.
  orders = [
    compare_steps(images, labels, METHODS[i % 3 :] + METHODS[: i % 3], arguments.rounds)
    for i in range(arguments.orders)
  ]
  print(
    'step time, Delta T = 100, updates included; medians over '
    f'{len(orders)} times that all sessions were made'
  )
  for method in METHODS:
    value = np.median([ms[method] for ms in orders])
    ratio = np.median([ms[method] / ms['baseline'] for ms in orders])
    print(f'  {method:9s} {value:6.3f} ms  {ratio:5.3f} x dense')
  ratios = sorted(ms['rigl'] / ms['scratch'] for ms in orders)
  print(f'  RigL / fixed masks: {np.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})')

  bare = bare_loop(images, labels)
  n_batches = len(images) // BATCH_SIZE
  n_steps = (arguments.epochs - 1) * n_batches
  for loop in config_lib.LOOPS:
    if loop == 'session' or tpu_estimator.is_available():
      fractions, starts = [], []
      for _ in range(arguments.scripts):
        bare_seconds = bare(n_steps)
        start, rate = script_speed(arguments.mnist, arguments.epochs, n_batches, loop)
        bare_seconds += bare(n_steps)
        fractions.append(rate * bare_seconds / (2 * n_steps))
        starts.append(start)
      print(
        f'steps/s of the script, --loop={loop} / bare loop: {np.median(fractions):.2f} '
        f'({min(fractions):.2f} to {max(fractions):.2f}); '
        f'first epoch after {np.median(starts):.1f} s'
      )


if __name__ == '__main__':
  main()
