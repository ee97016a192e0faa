"""What sparse training costs on a WideResNet: time and memory, as ratios.

    python benchmarks/cifar_steps.py [--depth 16 --width 4 --batch_size 128]

Every method runs in a process of its own, so that its peak memory is its own.
A step's time is the median over ordinary steps plus 1/100 of what an update
step takes more (Delta T = 100), and is given as a multiple of that of fixed
masks. The bound on memory is 5 % above fixed masks plus one copy of the masked
gradients.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

METHODS = ('scratch', 'rigl', 'set', 'momentum')
DELTA_T = 100


def measure(method: str, depth: int, width: int, batch_size: int,
            n_steps: int) -> dict[str, float]:
  """Seconds of ordinary and of update steps, and peak memory, in MB."""
  from rigl.cifar_resnet import resnet_train_eval
  from rigl.compat import tf
  from rigl.model_pruning import pruning
  from rigl.training import config as config_lib
  from rigl.training import factory, mask_init

  # Only the step of the update differs: with a long interval every step is
  # ordinary, with a short one every second or each is an update step.
  intervals = {'ordinary': 10**6, 'update': 1}
  times = {}
  for kind, frequency in intervals.items():
    config = config_lib.SparsityConfig(
        training_method=method, end_sparsity=0.9, maskupdate_end_step=-1,
        maskupdate_begin_step=0, maskupdate_frequency=frequency,
        mask_init_method='erdos_renyi_kernel')
    cifar = resnet_train_eval.CifarConfig(
        resnet_depth=depth, resnet_width=width)
    rng = np.random.RandomState(0)
    with tf.Graph().as_default():
      images = tf.constant(rng.randn(batch_size, 32, 32, 3), tf.float32)
      labels = tf.constant(rng.randint(10, size=batch_size), tf.int32)
      step, _, _, _ = resnet_train_eval.build_model(
          'train', images, labels, method, 10, depth, width, cifar)
      inner = factory.make_inner_optimizer('momentum', 0.01, 0.9, True)
      with tf.control_dependencies(
          tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train_op = factory.make_train_op(
            config, factory.make_optimizer(config, inner),
            tf.losses.get_total_loss(), step)
      scaffold = mask_init.make_scaffold(config)
      n_masked = sum(m.shape.num_elements() for m in pruning.get_masks())
      with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        scaffold.init_fn(session)
        seconds = []
        for _ in range(n_steps + 3):
          before = session.run(step)
          begin = time.perf_counter()
          session.run(train_op)
          taken = time.perf_counter() - begin
          # RigL takes turns: of its steps only those that stay are updates.
          if kind == 'ordinary' or method != 'rigl' or (
              session.run(step) == before):
            seconds.append(taken)
        times[kind] = float(np.median(seconds[2:]))
        if method == 'scratch':
          times['update'] = times['ordinary']
          break
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  return {**times, 'peak_mb': peak, 'gradients_mb': 4 * n_masked / 2**20}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--depth', type=int, default=16)
  parser.add_argument('--width', type=int, default=4)
  parser.add_argument('--batch_size', type=int, default=128)
  parser.add_argument('--steps', type=int, default=8)
  parser.add_argument('--method', choices=METHODS)
  arguments = parser.parse_args()
  size = (arguments.depth, arguments.width, arguments.batch_size,
          arguments.steps)
  if arguments.method:
    print(json.dumps(measure(arguments.method, *size)))
    return
  results = {}
  for method in METHODS:
    output = subprocess.run(
        [sys.executable, __file__, '--method', method,
         *(f'--{k}={v}' for k, v in vars(arguments).items() if v is not None)],
        capture_output=True, text=True, check=True).stdout
    results[method] = json.loads(output.splitlines()[-1])
  fixed = results['scratch']
  allowed = 1.05 * (fixed['peak_mb'] + fixed['gradients_mb'])
  print('method     ordinary    update   amortised / fixed masks'
        '   peak memory / allowed')
  for method, r in results.items():
    amortised = r['ordinary'] + (r['update'] - r['ordinary']) / DELTA_T
    print(f'{method:9s} {r["ordinary"]:7.3f} s {r["update"]:7.3f} s '
          f'{amortised / fixed["ordinary"]:16.3f} '
          f'{r["peak_mb"] / allowed:24.2f}')


if __name__ == '__main__':
  main()
