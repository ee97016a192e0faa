"""Test errors of LeNet-300-100 on MNIST, of the script and of rigl.keras.

    python benchmarks/keras_mnist.py --mnist=FOLDER [--epochs=20] [--seeds=3]

Both train the same network with the same settings; only initial weights and the
order of the digits differ. Prints a row for each method when it is complete:
mean and standard deviation over the seeds, in %.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any, Sequence

import keras

import rigl.keras
import rigl.mnist
from rigl.core import methods
from rigl.mnist import mnist_data

SPARSITY = 0.98
SECOND_LAYER = 0.9 * SPARSITY
N_BATCHES = 600
FREQUENCY = 100
OPTIMIZERS: dict[type[methods.Method], Any] = {
  optimizer.method_class: optimizer
  for optimizer in (
    rigl.keras.RigL,
    rigl.keras.SET,
    rigl.keras.SNFS,
    rigl.keras.Static,
    rigl.keras.Scratch,
    rigl.keras.SNIP,
    rigl.keras.DNW,
    rigl.keras.GradualPruning,
  )
}
NAMES = [name for name, method in methods.METHODS.items() if method in OPTIMIZERS]


def error_of_script(method: str, epochs: int, seed: int, mnist: str) -> float:
  """Test error after the last epoch of rigl.mnist.mnist_train_eval, in %."""
  end = epochs * N_BATCHES * 3 // 4
  result = rigl.mnist.train(
    method,
    SPARSITY,
    mnist=mnist,
    seed=seed,
    num_epochs=epochs,
    lr_drop_epoch=epochs * 3 // 5,
    maskupdate_frequency=FREQUENCY,
    maskupdate_end_step=end,
    prune_begin_step=0,
    prune_end_step=end,
    pruning_frequency=FREQUENCY,
  )
  tests = [row for row in result.history if row['split'] == 'test']
  return 100.0 * (1.0 - tests[-1]['accuracy'])


def error_of_keras(method: str, epochs: int, seed: int, data: mnist_data.MnistData) -> float:
  """Test error after the last epoch of rigl.keras, in %."""
  keras.utils.set_random_seed(seed)
  n_steps = epochs * N_BATCHES

  def dense(units, name, activation=None):
    # Keras' penalty has no factor 1/2. In the script, the gradient of DNW does
    # not include the penalty of masked layers.
    has_penalty = method != 'dnw' or name == 'layer3'
    return keras.layers.Dense(
      units,
      activation,
      name=name,
      kernel_regularizer=(keras.regularizers.L2(0.5e-4) if has_penalty else None),
    )

  model = keras.Sequential(
    [
      keras.Input((28, 28)),
      keras.layers.Rescaling(1 / 255),
      keras.layers.Flatten(),
      dense(300, 'layer1', 'relu'),
      dense(100, 'layer2', 'relu'),
      dense(10, 'layer3'),
    ]
  )
  rate = keras.optimizers.schedules.PiecewiseConstantDecay(
    [epochs * 3 // 5 * N_BATCHES], [0.2, 0.2 / 3]
  )
  optimizer = OPTIMIZERS[methods.METHODS[method]]
  schedule: dict[str, Any] = {
    'frequency': FREQUENCY,
    'end_step': n_steps * 3 // 4,
    'drop_fraction_anneal': 'cosine',
  }
  model.compile(
    optimizer(
      keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
      sparsity={'layer1/kernel': SPARSITY, 'layer2/kernel': SECOND_LAYER},
      seed=seed,
      **{name: value for name, value in schedule.items() if name in optimizer.hyperparameters()},
    ),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=['accuracy'],
  )
  model.fit(data.train_images, data.train_labels, 100, epochs, verbose=0)
  _, accuracy = model.evaluate(data.test_images, data.test_labels, 1000, verbose=0)
  return 100.0 * (1.0 - accuracy)


def describe(errors: Sequence[float]) -> str:
  spread = statistics.stdev(errors) if len(errors) > 1 else 0.0
  return f'{statistics.mean(errors):.2f} ± {spread:.2f}'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--mnist', required=True, help='folder of the IDX files')
  parser.add_argument('--epochs', type=int, default=20)
  parser.add_argument('--seeds', type=int, default=3)
  parser.add_argument('--methods', nargs='+', choices=NAMES, default=NAMES)
  args = parser.parse_args()
  data = mnist_data.load_mnist(args.mnist, explicit=True)
  print(f'| method | script | rigl.keras on {keras.backend.backend()} |')
  print('|---|---|---|')
  for method in args.methods:
    seeds = range(args.seeds)
    script = [error_of_script(method, args.epochs, seed, args.mnist) for seed in seeds]
    front_end = [error_of_keras(method, args.epochs, seed, data) for seed in seeds]
    print(f'| `{method}` | {describe(script)} | {describe(front_end)} |', flush=True)


if __name__ == '__main__':
  main()
