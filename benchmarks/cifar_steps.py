"""The cost of sparse training on a WideResNet: time and memory, as ratios.

    python benchmarks/cifar_steps.py [--depth 16 --width 4 --batch_size 128]

Every method runs in separate processes, to measure its own peak memory: one for
ordinary steps, one for steps that update masks. The time per step is the median
over ordinary steps plus 1/100 of the extra time of an update step (Delta T =
100), as a multiple of that of fixed masks. The bound on memory is 5 % above
fixed masks plus one copy of the masked gradients.
"""

from __future__ import annotations

import argparse

import numpy as np
import timing

METHODS = ('scratch', 'rigl', 'set', 'momentum')
DELTA_T = 100
# Steps between mask updates: none, or at every opportunity.
FREQUENCY = {'ordinary': 10**6, 'update': 1}


def measure(method: str, kind: str, depth: int, width: int, batch_size: int, n_steps: int) -> None:
  """Prints seconds per step, peak memory and masked gradients in MB."""
  from rigl.cifar_resnet import cifar_config, cifar_experiment
  from rigl.compat import tf
  from rigl.model_pruning import pruning
  from rigl.training import config as config_lib
  from rigl.training import factory, mask_init

  tf.disable_eager_execution()
  config = config_lib.SparsityConfig(
    training_method=method,
    end_sparsity=0.9,
    maskupdate_end_step=-1,
    maskupdate_begin_step=0,
    maskupdate_frequency=FREQUENCY[kind],
    mask_init_method='erdos_renyi_kernel',
  )
  cifar = cifar_config.CifarConfig(resnet_depth=depth, resnet_width=width)
  rng = np.random.RandomState(0)
  images = tf.constant(rng.randn(batch_size, 32, 32, 3), tf.float32)
  labels = tf.constant(rng.randint(10, size=batch_size), tf.int32)
  step, _, _, _ = cifar_experiment.build_model(
    'train', images, labels, method, 10, depth, width, cifar
  )
  inner = factory.make_inner_optimizer('momentum', 0.01, 0.9, True)
  train_op = factory.make_train_op(
    factory.make_optimizer(config, inner), tf.losses.get_total_loss(), step
  )
  scaffold = mask_init.make_scaffold(config)
  n_masked = sum(m.shape.num_elements() for m in pruning.get_masks())
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    scaffold.init_fn(session)
    seconds = timing.median_step(session, train_op, step, n_steps, method, kind == 'update')
  timing.print_figures(
    seconds=seconds, peak_mb=timing.peak_megabytes(), gradients_mb=4 * n_masked / 2**20
  )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--depth', type=int, default=16, metavar='N', help='of the WideResNet (default: %(default)s)'
  )
  parser.add_argument(
    '--width', type=int, default=4, metavar='N', help='of the WideResNet (default: %(default)s)'
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    default=128,
    metavar='N',
    help='images in a batch (default: %(default)s)',
  )
  parser.add_argument(
    '--steps', type=int, default=8, metavar='N', help='steps that are timed (default: %(default)s)'
  )
  parser.add_argument('--method', choices=METHODS, help=argparse.SUPPRESS)
  parser.add_argument('--kind', choices=FREQUENCY, help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.method:
    measure(
      arguments.method,
      arguments.kind,
      arguments.depth,
      arguments.width,
      arguments.batch_size,
      arguments.steps,
    )
    return
  options = [
    f'--{name}={getattr(arguments, name)}' for name in ('depth', 'width', 'batch_size', 'steps')
  ]

  def apart(method: str, kind: str) -> dict[str, float]:
    return timing.figures_of_process(__file__, f'--method={method}', f'--kind={kind}', *options)

  fixed = apart('scratch', 'ordinary')
  allowed = 1.05 * (fixed['peak_mb'] + fixed['gradients_mb'])
  print(
    'method     ordinary    update   amortised / fixed masks'
    '   peak memory / fixed masks   / allowed'
  )
  for method in METHODS:
    results = (
      {'ordinary': fixed, 'update': fixed}
      if method == 'scratch'
      else {kind: apart(method, kind) for kind in FREQUENCY}
    )
    ordinary, update = (results[kind]['seconds'] for kind in FREQUENCY)
    peak = max(r['peak_mb'] for r in results.values())
    amortised = ordinary + (update - ordinary) / DELTA_T
    print(
      f'{method:9s} {ordinary:7.3f} s {update:7.3f} s '
      f'{amortised / fixed["seconds"]:16.3f} '
      f'{peak / fixed["peak_mb"]:21.3f} {peak / allowed:21.3f}',
      flush=True,
    )


if __name__ == '__main__':
  main()
