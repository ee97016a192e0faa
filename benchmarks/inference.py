"""How much smaller and faster sparse networks of keras.applications are.

    python benchmarks/inference.py resnet50 mobilenet --sparsity=0.9,0.95

Weights and masks are random, which is all that size and speed depend on, apart
from units that training leaves dead. Prints, for each network and sparsity,
bytes of the dense .tflite file as a multiple of those of the sparse one, and
how many times longer LiteRT takes for the dense network, in turn in one
process.
"""

from __future__ import annotations

import argparse
import gzip
import os
import tempfile

import keras
import numpy as np

import rigl.keras
from rigl.inference import benchmarking, exporting
from rigl.micronet import formatting


def _lenet(size: int) -> keras.Model:
  del size
  return keras.Sequential([
      keras.Input((784,)), keras.layers.Dense(300, 'relu'),
      keras.layers.Dense(100, 'relu'), keras.layers.Dense(10)])


def _application(name: str):
  def make(size: int) -> keras.Model:
    return getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classifier_activation=None)
  return make


NETWORKS = {
    'lenet': _lenet, 'mobilenet': _application('MobileNet'),
    'mobilenet_v2': _application('MobileNetV2'),
    'resnet50': _application('ResNet50'), 'vgg16': _application('VGG16')}


def make_sparse(model: keras.Model, sparsity: float, distribution: str) -> None:
  """Gives a model random masks, and normalization that does something.

  Args:
    model: changed in place.
    sparsity: of the layers that the distribution makes sparse.
    distribution: see `rigl.keras.layer_sparsities`.
  """
  generator = np.random.default_rng(0)
  sparsities = rigl.keras.layer_sparsities(model, sparsity, distribution)
  for variable in model.variables:
    values = np.asarray(variable.value).copy()
    if 'variance' in variable.path or 'gamma' in variable.path:
      values = generator.uniform(0.5, 1.5, values.shape)
    elif values.ndim == 1:
      values = generator.normal(0, 0.3, values.shape)
    if share := sparsities.get(variable.path):
      n_zeros = round(share * values.size)
      values = values / np.sqrt(1 - share)
      values.ravel()[generator.permutation(values.size)[:n_zeros]] = 0
    variable.assign(values.astype('float32'))


def measure(model: keras.Model, n_threads: int, seconds: float) -> list[str]:
  """The cells of one row of the table.

  Args:
    model: to be exported and timed.
    n_threads: threads of all engines.
    seconds: how long to measure.
  """
  with tempfile.TemporaryDirectory() as folder:
    path, dense = (os.path.join(folder, name) for name in ('sparse', 'dense'))
    exported = exporting.export(model, f'{path}.tflite')
    exporting.write_file(dense, exported.dense)
    int8 = exporting.export(model, path, 'int8')
    records = benchmarking.benchmark(
        exported.path, dense, [n_threads], seconds=seconds)
    ratios = {(r['engine'], r['network']): r['ratio'] for r in records}
    n_dense = len(exported.dense)
    smaller = [n_dense / len(data) for data in (
        exported.sparse, gzip.compress(exported.sparse), int8.sparse,
        gzip.compress(int8.sparse))]
    faster = [ratios['LiteRT', 'sparse'], ratios['rigl', 'sparse']]
    return [*(f'{x:.1f}x' for x in smaller), *(f'{x:.2f}x' for x in faster),
            f'{1000 * records[0]["seconds"]:.3g} ms',
            f'{os.getloadavg()[0]:.1f}']


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('networks', nargs='+', choices=NETWORKS)
  parser.add_argument('--sparsity', default='0.8,0.9,0.95')
  parser.add_argument('--distribution', default='uniform')
  parser.add_argument('--size', type=int, default=224)
  parser.add_argument('--threads', type=int, default=1)
  parser.add_argument('--seconds', type=float, default=10.)
  arguments = parser.parse_args()
  rows = []
  for name in arguments.networks:
    for sparsity in map(float, arguments.sparsity.split(',')):
      model = NETWORKS[name](arguments.size)
      make_sparse(model, sparsity, arguments.distribution)
      rows.append([name, f'{sparsity:g}', *measure(
          model, arguments.threads, arguments.seconds)])
      keras.backend.clear_session()
  print(formatting.text_table(
      ['network', 'sparsity', 'smaller', 'gzipped', 'int8', 'int8 gzipped',
       'LiteRT', 'rigl', 'dense', 'load'], rows))


if __name__ == '__main__':
  main()
