"""The cost of RigL's mask updates on ResNet-50 (25.5 M weights), as ratios.

    python benchmarks/imagenet_steps.py [--batch_size 32] [--steps 3]

Each figure comes from a separate process, to measure its own peak memory:
training steps of the dense network, of fixed masks and of RigL (ordinary steps
and steps that update masks), and the update of all masks alone, by the
selection of the library and by one that sorts (see mask_update.py).
"""

from __future__ import annotations

import argparse

import numpy as np
import timing

STEPS = {
  'dense step': ('baseline', 10**6),
  'fixed masks step': ('scratch', 10**6),
  'RigL step': ('rigl', 10**6),
  'RigL update step': ('rigl', 1),
}
UPDATES = {'update alone': False, 'update alone, sorting': True}


def build(method: str, images, frequency: int):
  """ResNet-50 and the optimizer of a method; (logits, config, optimizer)."""
  from rigl.imagenet_resnet import resnet_model
  from rigl.training import config as config_lib
  from rigl.training import factory

  config = config_lib.SparsityConfig(
    training_method=method,
    end_sparsity=0.9,
    maskupdate_end_step=-1,
    maskupdate_frequency=frequency,
    mask_init_method='erdos_renyi_kernel',
  )
  network = resnet_model.resnet_v1_(
    50,
    1000,
    'threshold' if config.method.uses_masks else 'baseline',
    data_format='channels_last',
    weight_decay=1e-4,
  )
  optimizer = factory.make_optimizer(
    config, factory.make_inner_optimizer('momentum', 0.01, 0.9, True)
  )
  return network(images, True), config, optimizer


def measure_step(method: str, frequency: int, batch_size: int, n_steps: int) -> float:
  """Seconds of a training step."""
  from rigl.compat import tf
  from rigl.training import factory, mask_init

  tf.disable_eager_execution()
  rng = np.random.RandomState(0)
  images = tf.Variable(rng.randn(batch_size, 224, 224, 3).astype('f'), trainable=False)
  labels = tf.constant(rng.randint(1000, size=batch_size), tf.int32)
  logits, config, optimizer = build(method, images, frequency)
  tf.losses.sparse_softmax_cross_entropy(labels, logits)
  step = tf.train.get_or_create_global_step()
  train_op = factory.make_train_op(optimizer, tf.losses.get_total_loss(), step)
  scaffold = mask_init.make_scaffold(config)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    if scaffold.init_fn:
      scaffold.init_fn(session)
    return timing.median_step(session, train_op, step, n_steps, method, frequency == 1)


def measure_update(sorts: bool, n_steps: int) -> float:
  """Seconds of drop-and-grow of all layers, for given gradients."""
  from rigl.compat import tf
  from rigl.core import mask_math
  from rigl.training import mask_init

  tf.disable_eager_execution()
  if sorts:
    import mask_update

    def top_k_masks(scores, n, eligible=None):
      return [
        mask_update.sorted_top_n(tf.where(e, s, tf.fill(tf.shape(s), float('-inf'))), n_)
        for s, n_, e in zip(scores, tf.unstack(n), eligible)
      ]

    mask_math.top_k_masks = top_k_masks
  _, config, optimizer = build('rigl', tf.zeros([1, 224, 224, 3]), 1)
  gradients = {
    w.name: tf.Variable(tf.random.normal(w.shape, seed=i), trainable=False)
    for i, w in enumerate(optimizer.get_weights())
  }
  optimizer.dense_gradient = lambda w: gradients[w.name].read_value()
  step = tf.train.get_or_create_global_step()
  update = optimizer.apply_gradients(
    [(gradients[w.name].read_value(), w) for w in optimizer.get_weights()], step
  )
  [last] = [v for v in tf.global_variables() if v.op.name == 'last_mask_update_step']
  back = tf.group(last.assign(-1), step.assign(0))
  scaffold = mask_init.make_scaffold(config)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    scaffold.init_fn(session)
    session.run(back)
    # With a schedule, every second run would train.
    return timing.median_seconds(
      lambda: session.run(update), n_steps, lambda: session.run(back) is None
    )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    default=32,
    metavar='N',
    help='images in a batch (default: %(default)s)',
  )
  parser.add_argument(
    '--steps', type=int, default=3, metavar='N', help='steps that are timed (default: %(default)s)'
  )
  parser.add_argument('--what', choices=[*STEPS, *UPDATES], help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.what:
    if arguments.what in STEPS:
      seconds = measure_step(*STEPS[arguments.what], arguments.batch_size, arguments.steps)
    else:
      seconds = measure_update(UPDATES[arguments.what], arguments.steps)
    timing.print_figures(seconds=seconds, peak_mb=timing.peak_megabytes())
    return
  options = [f'--batch_size={arguments.batch_size}', f'--steps={arguments.steps}']
  dense = None
  print('                           time   / dense step   peak memory   / dense step')
  for what in (*STEPS, *UPDATES):
    result = timing.figures_of_process(__file__, f'--what={what}', *options)
    dense = dense or result
    print(
      f'{what:22s} {result["seconds"]:7.3f} s '
      f'{result["seconds"] / dense["seconds"]:14.3f} '
      f'{result["peak_mb"]:10.0f} MB '
      f'{result["peak_mb"] / dense["peak_mb"]:14.3f}',
      flush=True,
    )


if __name__ == '__main__':
  main()
