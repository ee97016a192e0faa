"""Size and speed of sparse networks for inference, as ratios.

    python benchmarks/inference.py resnet50 mobilenet --sparsity=0.9,0.95

Weights and masks are random: size and speed do not depend on their values,
except for units that die in training. Prints, for each network, distribution
and sparsity, the ratio of the file sizes of dense and sparse network, and the
ratio of their times, measured alternately in one process. `--plot=PATH` plots
both over the sparsity.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

import rigl.keras
from rigl.inference import benchmarking, exporting
from rigl.micronet import formatting

L = keras.layers


def _lenet(size: int) -> keras.Model:
  del size
  return keras.Sequential(
    [keras.Input((784,)), L.Dense(300, 'relu'), L.Dense(100, 'relu'), L.Dense(10)]
  )


def _application(name: str):
  def make(size: int) -> keras.Model:
    return getattr(keras.applications, name)(
      weights=None, input_shape=(size, size, 3), classifier_activation=None
    )

  return make


def _conv(x: Any, n: int, kernel: int = 3, strides: int = 1) -> Any:
  return L.Conv2D(n, kernel, strides, 'same', use_bias=False)(x)


def _normalized(x: Any) -> Any:
  return L.ReLU()(L.BatchNormalization()(x))


def _resnet18(size: int) -> keras.Model:
  inputs = keras.Input((size, size, 3))
  x = L.MaxPooling2D(3, 2, 'same')(_normalized(_conv(inputs, 64, 7, 2)))
  for n, first in ((64, 1), (128, 2), (256, 2), (512, 2)):
    for strides in (first, 1):
      y = _conv(_normalized(_conv(x, n, strides=strides)), n)
      if strides > 1:
        x = L.BatchNormalization()(_conv(x, n, 1, strides))
      x = L.ReLU()(L.Add()([L.BatchNormalization()(y), x]))
  return keras.Model(inputs, L.Dense(1000)(L.GlobalAveragePooling2D()(x)))


def _wrn_16_4(size: int) -> keras.Model:
  """The network of the CIFAR script; its images are always 32x32."""
  del size
  inputs = keras.Input((32, 32, 3))
  x = _conv(inputs, 16)
  for n, first in ((64, 1), (128, 2), (256, 2)):
    for strides, is_wider in ((first, True), (1, False)):
      y = _normalized(x)
      x = _conv(y, n, 1, strides) if is_wider else x
      y = _conv(_normalized(_conv(y, n, strides=strides)), n)
      x = L.Add()([x, y])
  x = L.GlobalAveragePooling2D()(_normalized(x))
  return keras.Model(inputs, L.Dense(10)(x))


def _transformer(size: int) -> keras.Model:
  """A block with 128 tokens of 256 features and 4 heads."""
  del size
  inputs = x = keras.Input((128, 256))
  heads = [L.Permute((2, 1, 3))(L.Reshape((128, 4, 64))(L.Dense(256)(x))) for _ in range(3)]
  query, key, value = heads
  scores = keras.ops.softmax(keras.ops.matmul(query, keras.ops.transpose(key, (0, 1, 3, 2))) / 8)
  y = L.Permute((2, 1, 3))(keras.ops.matmul(scores, value))
  x = L.LayerNormalization()(x + L.Dense(256)(L.Reshape((128, 256))(y)))
  y = L.Dense(256)(L.Dense(1024, 'relu')(x))
  return keras.Model(inputs, L.LayerNormalization()(x + y))


NETWORKS = {
  'lenet': _lenet,
  'mobilenet': _application('MobileNet'),
  'mobilenet_v2': _application('MobileNetV2'),
  'resnet18': _resnet18,
  'resnet50': _application('ResNet50'),
  'transformer': _transformer,
  'vgg16': _application('VGG16'),
  'wrn_16_4': _wrn_16_4,
}


def make_sparse(model: keras.Model, sparsity: float, distribution: str) -> None:
  """Gives a model random masks and non-trivial normalization.

  Args:
    model: changed in place.
    sparsity: sparsity of the sparse layers.
    distribution: see `rigl.keras.layer_sparsities`.
  """
  generator = np.random.default_rng(0)
  sparsities = rigl.keras.layer_sparsities(model, sparsity, distribution)
  for variable in model.variables:
    values: np.ndarray = np.asarray(variable.value).copy()
    if 'variance' in variable.path or 'gamma' in variable.path:
      values = generator.uniform(0.5, 1.5, values.shape)
    elif values.ndim == 1:
      values = generator.normal(0, 0.3, values.shape)
    if share := sparsities.get(variable.path):
      n_zeros = round(share * values.size)
      values = values / np.sqrt(1 - share)
      values.ravel()[generator.permutation(values.size)[:n_zeros]] = 0
    variable.assign(values.astype('float32'))


def measure(
  model: keras.Model, stem: str, n_threads: int, batch: int, seconds: float
) -> dict[str, float]:
  """Ratios of file sizes and times.

  Args:
    model: the model to export.
    stem: path of the exported files, without suffix.
    n_threads: threads of all engines.
    batch: examples per call.
    seconds: how long to measure.
  """
  path, dense, other = (f'{stem}{ending}.tflite' for ending in ('', '_dense', '_int8'))
  exported = exporting.export(model, path)
  exporting.write_file(dense, exported.dense)
  int8 = exporting.export(dense, other, 'int8')
  records = benchmarking.benchmark(path, dense, [n_threads], batch, seconds)
  ratios = {(r['engine'], r['network']): r['ratio'] for r in records}
  n_dense = len(exported.dense)
  return {
    'smaller': n_dense / len(exported.sparse),
    'gzipped': n_dense / len(gzip.compress(exported.sparse)),
    'int8': n_dense / len(int8.sparse),
    'int8 gzipped': n_dense / len(gzip.compress(int8.sparse)),
    'LiteRT': ratios['LiteRT', 'sparse'],
    # NaN for networks with operations that the engine lacks.
    'rigl': ratios.get(('rigl', 'sparse'), float('nan')),
    'milliseconds': 1000 * records[0]['seconds'],
    'load': os.getloadavg()[0],
  }


def _rows(arguments: argparse.Namespace, folder: str) -> list[dict[str, Any]]:
  rows = []
  for name in arguments.networks:
    for distribution in arguments.distribution.split(','):
      for sparsity in map(float, arguments.sparsity.split(',')):
        model = NETWORKS[name](arguments.size)
        make_sparse(model, sparsity, distribution)
        stem = os.path.join(folder, f'{name}_{distribution}_{sparsity:g}')
        rows.append(
          {
            'network': name,
            'distribution': distribution,
            'sparsity': sparsity,
            **measure(model, stem, arguments.threads, arguments.batch, arguments.seconds),
          }
        )
        print(rows[-1], file=sys.stderr)
        keras.backend.clear_session()
  return rows


def _table(rows: list[dict[str, Any]]) -> str:
  forms = {
    'network': '{}',
    'distribution': '{}',
    'sparsity': '{:g}',
    'LiteRT': '{:.2f}x',
    'rigl': '{:.2f}x',
    'milliseconds': '{:.3g}',
    'load': '{:.1f}',
  }
  return formatting.text_table(
    list(rows[0]),
    [[forms.get(key, '{:.1f}x').format(value) for key, value in row.items()] for row in rows],
    n_left=2,
  )


def _plot(rows: list[dict[str, Any]], path: str) -> None:
  """Plots the speed of the faster engine and the sizes of the files."""
  figure = Figure(figsize=(9, 3.6), layout='constrained')
  speed, size = figure.subplots(1, 2)
  lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
  for row in rows:
    lines.setdefault((row['network'], row['distribution']), []).append(row)
  names = list(dict.fromkeys(name for name, _ in lines))
  for (name, distribution), points in lines.items():
    zeros = [point['sparsity'] for point in points]
    style = {
      'color': f'C{names.index(name)}',
      'marker': 'o',
      'linestyle': '-' if distribution == 'uniform' else '--',
      'label': f'{name}, {distribution}',
    }
    speed.plot(zeros, [np.nanmax([point['LiteRT'], point['rigl']]) for point in points], **style)
    size.plot(zeros, [point['smaller'] for point in points], **style)
  for axes, title in (
    (speed, 'times faster than LiteRT dense'),
    (size, 'times smaller than dense, float32'),
  ):
    axes.axhline(1, color='grey', linewidth=0.8)
    axes.set_yscale('log', base=2)
    axes.yaxis.set_major_formatter('{x:g}')
    axes.set(title=title, xlabel='sparsity')
  figure.legend(*speed.get_legend_handles_labels(), loc='outside right upper', fontsize='small')
  figure.savefig(path, dpi=100)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('networks', nargs='+', choices=NETWORKS)
  parser.add_argument('--sparsity', default='0.8,0.9,0.95')
  parser.add_argument('--distribution', default='uniform', help='one or more, with commas')
  parser.add_argument('--size', type=int, default=224, help='of images, where there is a choice')
  parser.add_argument('--threads', type=int, default=1)
  parser.add_argument('--batch', type=int, default=1, help='examples of a call')
  parser.add_argument('--seconds', type=float, default=10.0)
  parser.add_argument('--plot', metavar='PATH', help='draw a picture, too')
  parser.add_argument('--folder', help='keep the files there')
  return parser


def main() -> None:
  arguments = _parser().parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    if arguments.folder:
      os.makedirs(arguments.folder, exist_ok=True)
    rows = _rows(arguments, arguments.folder or temporary)
  print(_table(rows))
  if arguments.plot:
    _plot(rows, arguments.plot)


if __name__ == '__main__':
  main()
