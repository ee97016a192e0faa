"""Each operation of rigl.core.arrays in each library, against numpy."""

from __future__ import annotations

import fractions
import pathlib
import re

import numpy as np
import pytest

from rigl.compat import tf2
from rigl.core import arrays
from tests import execution_modes

CORE = pathlib.Path(arrays.__file__).parent
X = np.array([[-1.5, 0.0, -0.0, 2.0], [3.25, -7.0, np.nan, np.inf]], 'f')
Y = np.array([[1.0, -2.0, 0.0, 2.0], [9.0, -7.5, 1.0, -np.inf]], 'f')
INTS = np.array([0, 1, -1, 2**31 - 1, -(2**31), 123456789], 'i')
FLAGS = np.array([True, False, True, True])
PRIME = 0x735A2D97

# name: (function of the operations and tensors, inputs, expected)
OPERATIONS = {
  'abs': (lambda xp, x: xp.abs(x), [X], np.abs(X)),
  'argsort': (
    lambda xp, x: xp.asarray(xp.argsort(x), 'int32'),
    [np.array([2.0, 1.0, 2.0, 1.0], 'f')],
    np.array([1, 3, 0, 2], 'i'),
  ),
  'asarray cuts': (
    lambda xp, x: xp.asarray(x, 'int32'),
    [np.array([1.9, -1.9], 'f')],
    np.array([1, -1], 'i'),
  ),
  'asarray of bool': (lambda xp, x: xp.asarray(x, 'float32'), [FLAGS], FLAGS.astype('f')),
  'asarray rounds to even': (
    lambda xp, x: xp.asarray(x, 'float32'),
    [np.array([2**24 + 1, 2**24 + 3], 'i')],
    np.array([2**24, 2**24 + 4], 'f'),
  ),
  'bits': (lambda xp, x: xp.bits(x), [X], X.view('i')),
  'bitwise_xor': (lambda xp, x: xp.bitwise_xor(x, 0x0F0F0F0F), [INTS], INTS ^ 0x0F0F0F0F),
  'bool operators': (lambda xp, x: ~x | (x & x), [FLAGS], np.ones(4, bool)),
  'cast_like': (lambda xp, x, y: xp.cast_like(x, y), [FLAGS, X], FLAGS.astype('f')),
  'clip': (lambda xp, x: xp.clip(x, 0.0, 1.0), [X[0]], np.clip(X[0], 0.0, 1.0)),
  'concatenate': (lambda xp, x, y: xp.concatenate([x, y], 0), [X, Y], np.concatenate([X, Y])),
  'cos': (lambda xp, x: xp.cos(x), [X[0]], np.cos(X[0])),
  'count': (lambda xp, x: xp.count(x), [FLAGS], np.array(3, 'i')),
  'count of rows': (
    lambda xp, x: xp.count(xp.reshape(x, (2, 2)), 1),
    [FLAGS],
    np.array([1, 2], 'i'),
  ),
  'equal': (lambda xp, x: xp.equal(x, 2), [X], X == 2),
  'integer &': (lambda xp, x: x & 0x00FF00FF, [INTS], INTS & 0x00FF00FF),
  'isnan': (lambda xp, x: xp.isnan(x), [X], np.isnan(X)),
  'max': (lambda xp, x: xp.max(x), [Y], np.array(9.0, 'f')),
  'maximum': (lambda xp, x: xp.maximum(x, 1), [INTS], np.maximum(INTS, 1)),
  'mean': (lambda xp, x: xp.mean(x), [Y[0]], np.array(0.25, 'f')),
  'min': (lambda xp, x: xp.min(x), [Y[0]], np.array(-2.0, 'f')),
  'minimum': (
    lambda xp, x, y: xp.minimum(x, y),
    [INTS, INTS[::-1].copy()],
    np.minimum(INTS, INTS[::-1]),
  ),
  'not_equal': (lambda xp, x, y: xp.not_equal(x, y), [X, Y], X != Y),
  'ordinals': (lambda xp, x: xp.ordinals(arrays.size(x)), [X], np.arange(8, dtype='i')),
  'power': (lambda xp, x: xp.power(x, 3.0), [X[0]], X[0] ** 3),
  'products wrap around': (lambda xp, x: x * PRIME, [INTS], INTS * np.int32(PRIME)),
  'reshape': (lambda xp, x: xp.reshape(x, (-1,)), [X], X.ravel()),
  'round': (
    lambda xp, x: xp.round(x),
    [np.array([0.5, 1.5, -2.6], 'f')],
    np.array([0.0, 2.0, -3.0], 'f'),
  ),
  'sign': (lambda xp, x: xp.sign(x), [X[0]], np.sign(X[0])),
  'split': (
    lambda xp, x: xp.concatenate(xp.split(x, [1, 0, 3])[::-1], 0),
    [FLAGS],
    FLAGS[[1, 2, 3, 0]],
  ),
  'std': (lambda xp, x: xp.std(x), [np.array([1.0, 3.0, 1.0, 3.0], 'f')], np.array(1.0, 'f')),
  'sum': (lambda xp, x: xp.sum(x, 1), [Y], Y.sum(1)),
  'take': (lambda xp, x, y: xp.take(x, y), [Y[0], np.array([3, 0], 'i')], Y[0][[3, 0]]),
  'unsigned_right_shift': (
    lambda xp, x: xp.unsigned_right_shift(x, 5),
    [INTS],
    (INTS.view('u4') >> 5).view('i'),
  ),
  'where': (lambda xp, c, x, y: xp.where(c, x, y), [FLAGS, X, Y], np.where(FLAGS, X, Y)),
  'zeros_like': (lambda xp, x: xp.zeros_like(x), [X], np.zeros_like(X)),
  'repeat_while': (
    lambda xp, x: xp.repeat_while(
      lambda state: state[1][0] < 4,
      lambda state: (state[0] * 2 + 1, state[1] + 1),
      (x, xp.ordinals(1)),
    )[0],
    [INTS],
    INTS * 16 + 15,
  ),
  'stack': (lambda xp, x, y: xp.stack([x, y]), [X, Y], np.stack([X, Y])),
  'unstack': (lambda xp, x: xp.concatenate(xp.unstack(x), 0), [X], X.reshape(-1)),
  'any': (lambda xp, x: xp.any(x), [FLAGS], np.any(FLAGS)),
}


def check(mode, function, inputs, expected):
  with np.errstate(over='ignore'):
    [got] = execution_modes.run(
      mode, lambda *tensors: [function(arrays.of(tensors[0]), *tensors)], *inputs
    )
  assert got.dtype == expected.dtype
  np.testing.assert_allclose(got, expected, rtol=3e-7)


@pytest.mark.parametrize('mode', execution_modes.EVERYWHERE)
@pytest.mark.parametrize('name', OPERATIONS)
def test_operation(name, mode):
  check(mode, *OPERATIONS[name])


def test_every_operation_in_use_is_tested():
  source = ''.join(path.read_text() for path in CORE.glob('*.py'))
  used = set(re.findall(r'\bxp\.(\w+)', source)) | set(
    re.findall(r'arrays\.of\([^()]*\)\.(\w+)', source)
  )
  tested = {word for name in OPERATIONS for word in name.split()}
  assert used - tested == {'library', 'is_graph'}


@pytest.mark.parametrize('number', [3, 2.5, True, np.float32(1)])
def test_numbers_belong_to_numpy(number):
  assert arrays.of(number).library == 'numpy'


def test_variables_are_read():
  variable = tf2.Variable([1.0, 2.0])
  assert arrays.of(variable).library == 'tensorflow'
  assert arrays.size(variable) == 2


def test_variables_of_keras_are_read():
  keras = pytest.importorskip('keras', minversion='3')
  variable = keras.Variable([1.0, -2.0])
  xp = arrays.of(variable)
  np.testing.assert_array_equal(np.asarray(xp.abs(xp.asarray(variable))), [1.0, 2.0])


def test_anything_else_is_named():
  with pytest.raises(TypeError, match='Fraction.*JAX'):
    arrays.of(fractions.Fraction(1))
