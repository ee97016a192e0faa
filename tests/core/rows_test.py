"""Layers as the rows of one matrix, by hand and there and back."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.compat import tf2
from rigl.core import arrays, rows

jax = pytest.importorskip('jax')
jnp = jax.numpy

LIBRARIES = {'numpy': np.asarray, 'tensorflow': tf2.constant, 'jax': jnp.asarray}
SHAPES = [(2, 3), (), (4,), (0, 5), (9,)]


@pytest.fixture(params=LIBRARIES)
def tensor(request, monkeypatch):
  monkeypatch.setattr(rows, '_WIDTH', 4)
  return LIBRARIES[request.param]


def layers_of(tensor, dtype='float32'):
  sizes = [int(np.prod(shape)) for shape in SHAPES]
  starts = np.cumsum([0, *sizes])
  return [
    tensor(np.arange(start, start + size).reshape(shape).astype(dtype))
    for shape, size, start in zip(SHAPES, sizes, starts)
  ]


def test_by_hand(tensor):
  layers = layers_of(tensor)
  found = rows.Rows(arrays.of(layers[0]), SHAPES)
  assert found.sizes == [6, 1, 4, 0, 9]
  np.testing.assert_array_equal(
    found.join(layers, 'float32'),
    [
      [0, 1, 2, 3],
      [4, 5, 0, 0],
      [6, 0, 0, 0],
      [7, 8, 9, 10],
      [11, 12, 13, 14],
      [15, 16, 17, 18],
      [19, 0, 0, 0],
    ],
  )
  np.testing.assert_array_equal(found.positions[:, 0], [0, 4, 0, 0, 0, 4, 8])
  np.testing.assert_array_equal(found.positions[1], [4, 5, 6, 7])
  of_layers = tensor(np.array([10, 20, 30, 40, 50], 'int32'))
  np.testing.assert_array_equal(found.spread(of_layers), np.array([[10, 10, 20, 30, 50, 50, 50]]).T)


def test_there_and_back(tensor):
  layers = layers_of(tensor, 'int32')
  found = rows.Rows(arrays.of(layers[0]), SHAPES)
  back = found.split(found.join(layers, 'int32'))
  for layer, one in zip(layers, back):
    assert tuple(one.shape) == tuple(layer.shape)
    np.testing.assert_array_equal(one, layer)


def test_counts_of_each_layer(tensor):
  layers = layers_of(tensor)
  found = rows.Rows(arrays.of(layers[0]), SHAPES)
  chosen = [tensor(np.asarray(layer) % 3 == 0) for layer in layers]
  counts = found.count(found.join(chosen, 'bool'))
  np.testing.assert_array_equal(counts, [np.sum(np.asarray(c)) for c in chosen])
  assert str(np.asarray(counts).dtype) == 'int32'


@pytest.fixture
def mixed_precision():
  """TensorFlow computes products in bfloat16, where the processor can."""
  options = tf2.config.optimizer
  options.set_experimental_options({'auto_mixed_precision_onednn_bfloat16': True})
  yield
  options.set_experimental_options({'auto_mixed_precision_onednn_bfloat16': False})


@pytest.mark.usefixtures('mixed_precision')
def test_counts_are_exact_in_mixed_precision():
  """There is no 1001 in bfloat16."""
  sizes = (1001, 1001)
  found = rows.Rows(arrays.of(tf2.constant(0)), [sizes])
  count = tf2.function(lambda chosen: found.count(found.join([chosen], 'bool')))
  chosen = np.zeros(sizes, bool)
  chosen.flat[:1001] = True
  np.testing.assert_array_equal(count(tf2.constant(chosen)), [1001])


def test_xla_compiles_one_kernel_for_all_layers_of_a_size():
  def halves(matrix):
    found = rows.Rows(arrays.of(matrix), [(rows._WIDTH,)] * 3)
    return [0.5 * layer for layer in found.split(matrix)]

  program = jax.jit(halves).lower(jnp.zeros((3, rows._WIDTH))).compile().as_text()
  # A start that is a constant would make it a kernel of its own.
  assert ' dynamic-slice(' in program
  assert ' slice(' not in program
