"""Time to count ResNet-50, from its description and through Keras.

    python benchmarks/counting.py

Prints the fastest of several runs in one process, after a warm-up run:

- description: building the list of operations of ResNet-50, distributing 90 %
  sparsity with ERK, and counting the 54 layers;
- Keras: building `tf.keras.applications.ResNet50`, which counting its layers
  requires. Importing TensorFlow is reported separately.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable

from rigl.core import distributions
from rigl.micronet import architectures, network


def _fastest_seconds(function: Callable[[], object], n_runs: int) -> float:
  function()
  seconds = []
  for _ in range(n_runs):
    start = time.perf_counter()
    function()
    seconds.append(time.perf_counter() - start)
  return min(seconds)


def count_from_description() -> float:
  """Returns the FLOPs of ResNet-50 at 90 % sparsity."""
  resnet = architectures.get_network('resnet50')
  sparsities = distributions.get_sparsities(resnet.shapes, 'erdos_renyi_kernel', 0.9)
  return network.count_network(resnet.weighted_layers, sparsities).flops


def main() -> None:
  argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  ).parse_args()
  description = _fastest_seconds(count_from_description, 50)

  start = time.perf_counter()
  from rigl.compat import tf

  loading = time.perf_counter() - start

  def build() -> None:
    tf.keras.backend.clear_session()
    tf.keras.applications.ResNet50(weights=None)

  keras = _fastest_seconds(build, 5)
  print(f'Python {platform.python_version()}, TensorFlow {tf.__version__}, {os.cpu_count()} CPUs')
  print(f'count from the description   {1e3 * description:9.2f} ms')
  print(
    f'build the Keras model        {1e3 * keras:9.2f} ms   {keras / description:6.0f} times as long'
  )
  print(f'import TensorFlow, once      {1e3 * loading:9.2f} ms')


if __name__ == '__main__':
  main()
