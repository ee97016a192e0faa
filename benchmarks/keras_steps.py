"""Time of a training step with rigl.keras: RigL, a fixed mask and dense.

    KERAS_BACKEND=jax python benchmarks/keras_steps.py
    KERAS_BACKEND=tensorflow python benchmarks/keras_steps.py --jit_compile
    python benchmarks/keras_steps.py --model=resnet50 --batch_size=8 --steps=20

The three networks train alternately, and ratios are taken within a round.

The first step runs in a process of its own, which has compiled nothing yet: its
time is that of compilation and, with RigL, of a mask update. Building the
optimizer, which chooses the first masks, is timed apart.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from typing import Callable, Mapping, Sequence

import keras
import numpy as np
import timing

import rigl.keras


def convnet(image_size: int) -> keras.Model:
  """A ConvNet of 0.77 million weights at 32 x 32."""
  layers = keras.layers
  return keras.Sequential(
    [
      keras.Input((image_size, image_size, 3)),
      *(
        layer
        for n in (64, 128, 256)
        for layer in (
          layers.Conv2D(n, 3, padding='same', use_bias=False),
          layers.BatchNormalization(),
          layers.ReLU(),
          layers.MaxPooling2D(),
        )
      ),
      layers.GlobalAveragePooling2D(),
      layers.Dense(1024, activation='relu'),
      layers.Dense(128, activation='relu'),
      layers.Dense(10),
    ]
  )


def resnet50(image_size: int) -> keras.Model:
  """keras.applications.ResNet50 with random weights."""
  return keras.applications.ResNet50(
    weights=None, input_shape=(image_size, image_size, 3), classes=1000, classifier_activation=None
  )


MODELS = {'convnet': (convnet, 32), 'resnet50': (resnet50, 64)}


class Trained:
  """A compiled network with its data, to be timed."""

  def __init__(self, make_model, image_size, optimizer, args):
    keras.utils.set_random_seed(0)
    self._batch_size = args.batch_size
    self.model = make_model(image_size)
    self.model.compile(
      optimizer,
      keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      jit_compile=args.jit_compile or 'auto',
    )
    rng = np.random.RandomState(0)
    n = args.batch_size * args.steps
    self._x = rng.rand(n, image_size, image_size, 3).astype('float32')
    self._y = rng.randint(0, 10, n).astype('int32')

  def build(self) -> None:
    self.model.optimizer.build(self.model.trainable_variables)

  def first_step(self) -> None:
    """A step without `fit`, which may take a second to clean up."""
    self.model.train_on_batch(self._x[: self._batch_size], self._y[: self._batch_size])

  def step_time(self, n_steps: int) -> float:
    """Seconds per step."""
    n = n_steps * self._batch_size
    x, y = self._x[:n], self._y[:n]
    return timing.seconds_of(lambda: self.model.fit(x, y, self._batch_size, verbose=0)) / n_steps


def sgd():
  return keras.optimizers.SGD(0.01, momentum=0.9)


# Name of a network -> fn(args) -> its optimizer.
OPTIMIZERS: dict[str, Callable[[argparse.Namespace], keras.optimizers.Optimizer]] = {
  'dense': lambda args: sgd(),
  'fixed mask': lambda args: rigl.keras.Scratch(sgd(), sparsity=args.sparsity),
  'rigl': lambda args: rigl.keras.RigL(
    sgd(), sparsity=args.sparsity, frequency=args.frequency, end_step=10**9
  ),
}


def make_network(name: str, args) -> Trained:
  keras.config.set_dtype_policy(args.dtype)
  make_model, size = MODELS[args.model]
  return Trained(make_model, args.image_size or size, OPTIMIZERS[name](args), args)


def start(name: str, args) -> dict[str, float]:
  """Seconds to build the optimizer and of the first step, in this process."""
  network = make_network(name, args)
  return {
    'build': timing.seconds_of(network.build),
    'first_step': timing.seconds_of(network.first_step),
  }


def ratio_text(rounds: Sequence[Mapping[str, float]], name: str) -> str:
  """Median and range of the ratio to the dense network within a round."""
  ratios = [round_[name] / round_['dense'] for round_ in rounds]
  return f'{statistics.median(ratios):.3f} x dense ({min(ratios):.3f} to {max(ratios):.3f})'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--model', choices=MODELS, default='convnet')
  parser.add_argument('--image_size', type=int, help='that of the model if not given')
  parser.add_argument('--batch_size', type=int, default=32)
  parser.add_argument('--steps', type=int, default=100, help='of each round')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--frequency', type=int, default=100)
  parser.add_argument('--sparsity', type=float, default=0.9)
  parser.add_argument('--dtype', default='float32', help='policy of Keras, such as mixed_bfloat16')
  parser.add_argument('--jit_compile', action='store_true', help='use XLA without GPU too')
  parser.add_argument('--starts', type=int, default=5, help='processes of each network to start')
  parser.add_argument(
    '--start', choices=OPTIMIZERS, help='only start this network, and print its figures'
  )
  args = parser.parse_args()
  if args.start:
    timing.print_figures(**start(args.start, args))
    return
  starts = [
    {
      name: timing.figures_of_process(__file__, *sys.argv[1:], f'--start={name}')
      for name in OPTIMIZERS
    }
    for _ in range(args.starts)
  ]
  trained = {name: make_network(name, args) for name in OPTIMIZERS}
  for network in trained.values():
    network.step_time(args.steps)
  rounds = [
    {name: network.step_time(args.steps) for name, network in trained.items()}
    for _ in range(args.rounds)
  ]
  model = trained['dense'].model
  print(
    f'{args.model}, {model.count_params()} weights, {model.input_shape[1]} pixels a side, batch '
    f'{args.batch_size}, {args.dtype}, Keras {keras.__version__} on {keras.backend.backend()}'
  )
  for name in trained:
    milliseconds = 1e3 * statistics.median(round_[name] for round_ in rounds)
    print(f'{name:10}  {milliseconds:8.2f} ms a step  {ratio_text(rounds, name)}')
  first_steps = [{name: round_[name]['first_step'] for name in trained} for round_ in starts]
  for name in trained:
    build, first = (
      statistics.median(round_[name][part] for round_ in starts) for part in ('build', 'first_step')
    )
    print(
      f'{name:10}  {build:8.2f} s to build, {first:.2f} s first step  '
      f'{ratio_text(first_steps, name)}'
    )
  print(f'peak memory {timing.peak_megabytes() / 1024:.2f} GiB')


if __name__ == '__main__':
  main()
