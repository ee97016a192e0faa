"""Exported files are small and compute the same as their sources."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest

import rigl.inference
from rigl.compat import tf2
from rigl.inference import cli, litert, names, reports, requirements, sources, tflite_files
from tests.inference import networks

L = keras.layers
ROOT = pathlib.Path(__file__).resolve().parents[2]


def _run(data, batch):
  return litert.LiteRT(data, 'model')(batch)


def _weights(shape, sparsity):
  generator = np.random.default_rng(0)
  return (generator.normal(size=shape) * (generator.random(shape) >= sparsity)).astype(np.float32)


@pytest.mark.parametrize(
  'shape', [(4, 5), (3, 2, 2, 40), (1, 1, 300, 300), (7, 1, 1, 1024), (257, 3, 2, 2)]
)
@pytest.mark.parametrize('sparsity', [0.0, 0.9, 1.0])
@pytest.mark.parametrize('by_rows', [True, False])
def test_packed_weights_are_unpacked(shape, sparsity, by_rows):
  weights = _weights(shape, sparsity)
  sparsity, kept = tflite_files.pack(weights, by_rows)
  np.testing.assert_array_equal(tflite_files.unpack(sparsity, kept, shape, 'w'), weights)


# A tenth of [outputs, inputs] is left: a value of 4 bytes, an index, and for
# each row, or column, 2 bytes for the end of its indices (4 from 2**16 on).
@pytest.mark.parametrize(
  'shape, n_bytes',
  [
    # An index of an input fits into one byte.
    ((1000, 250), 25000 * (4 + 1) + 2 * 1001),
    # That of an output does, so that columns are stored.
    ((250, 1000), 25000 * (4 + 1) + 2 * 1001),
    # Neither does. Rows are the shorter of the two.
    ((500, 1000), 50000 * (4 + 2) + 2 * 501),
    ((1000, 1000), 100000 * (4 + 2) + 4 * 1001),
  ],
)
def test_the_dimension_with_short_indices_is_compressed(shape, n_bytes):
  weights = np.zeros(shape, np.float32)
  weights.ravel()[::10] = 1
  assert tflite_files.n_packed_bytes(tflite_files.pack(weights)) == n_bytes


@pytest.mark.parametrize('quantize', [None, 'int8'])
def test_litert_unpacks_sparse_columns(quantize, tmp_path):
  """Of convolutions and of a dense layer with fewer outputs than inputs."""
  inputs = keras.Input((5, 5, 300))
  x = L.Conv2D(260, 3, activation='relu')(inputs)
  x = L.Conv2D(40, 3, activation='relu')(x)
  model = networks.sparsified(
    keras.Model(inputs, L.Dense(20)(L.Flatten()(L.Conv2D(300, 1)(x)))), 0.9
  )
  batch, wanted = networks.batch_of(model)
  exported = rigl.inference.export(model, tmp_path / 'm.tflite', quantize)
  orders = [
    t.sparsity.traversalOrder.tolist()
    for t in tflite_files.read(exported.sparse, 'model').subgraphs[0].tensors
    if t.sparsity is not None
  ]
  assert sorted(orders) == [[0, 1, 2, 3], [0, 1, 2, 3], [1, 0], [1, 2, 3, 0]]
  networks.assert_close(_run(exported.sparse, batch), wanted, 0.02 if quantize else 1e-5)


def test_equal_vectors_are_stored_once_and_buffers_are_aligned(tmp_path):
  """The schema wants the content of buffers at multiples of 16 bytes."""
  exported = rigl.inference.export(networks.mobilenet(0.9), tmp_path / 'm.tflite', 'int8')
  model = requirements.litert_schema().Model.GetRootAs(exported.sparse)
  starts = [
    model.Buffers(i)._tab.Vector(model.Buffers(i)._tab.Offset(4))
    for i in range(model.BuffersLength())
    if not model.Buffers(i).DataIsNone()
  ]
  assert starts and not any(start % 16 for start in starts)
  graph = model.Subgraphs(0)
  zeros = {}
  for i in range(graph.TensorsLength()):
    quantization = graph.Tensors(i).Quantization()
    if quantization is not None and not quantization.ZeroPointIsNone():
      table = quantization._tab
      zeros.setdefault(quantization.ZeroPointLength(), set()).add(table.Vector(table.Offset(10)))
  assert all(len(places) == 1 for places in zeros.values()), zeros
  assert len(zeros) > 3


def test_unpack_reads_the_blocks_of_the_converter(tmp_path):
  """Weights in blocks of 4 are what TensorFlow's converter writes so."""
  weights = np.random.default_rng(0).normal(size=(16, 64)).astype('f')
  weights[np.arange(16) % 4 != 0, :32] = 0
  weights[:, 32:].reshape(16, 8, 4)[:, ::2] = 0
  layer = tf2.function(lambda x: tf2.matmul(x, weights.T))
  converter = tf2.lite.TFLiteConverter.from_concrete_functions(
    [layer.get_concrete_function(tf2.TensorSpec([1, 64]))]
  )
  converter.optimizations = [tf2.lite.Optimize.EXPERIMENTAL_SPARSITY]
  model = tflite_files.read(converter.convert(), 'model')
  sparse = [t for t in model.subgraphs[0].tensors if t.sparsity is not None]
  assert len(sparse) == 1
  np.testing.assert_array_equal(tflite_files.values_of(model, sparse[0]), weights)


def test_layers_have_short_names_and_constants_none(tmp_path):
  exported = rigl.inference.export(networks.mobilenet(0.9), tmp_path / 'm.tflite')
  model = tflite_files.read(exported.sparse, 'model')
  graph = model.subgraphs[0]
  names = [tensor.name for tensor in graph.tensors if tensor.name]
  dense = tflite_files.read(exported.dense, 'model').subgraphs[0]
  ends = {dense.tensors[int(i)].name for i in (*dense.inputs, *dense.outputs)}
  assert ends < set(names) and len(names) == 28 + 2
  assert {b'conv_pw_1', b'conv_dw_13'} < set(names)


def test_layers_of_a_report_have_the_names_of_the_model(tmp_path):
  block = keras.Sequential([keras.Input((6, 6, 3)), L.Conv2D(4, 3), L.ReLU()])
  x = inputs = keras.Input((6, 6, 3))
  x = L.Flatten()(L.DepthwiseConv2D(2)(L.Conv2D(4, 2)(block(x))))
  for _ in range(3):
    x = L.Dense(4)(x)
  model = keras.Model(inputs, x)
  named = [
    layer.name
    for layer in [block.layers[0], *model.layers]
    if isinstance(layer, (L.Dense, L.Conv2D, L.DepthwiseConv2D))
  ]
  exported = rigl.inference.export(model, tmp_path / 'm.tflite')
  assert [record['layer'] for record in reports.layers(exported)] == named


@pytest.mark.parametrize('quantize, tolerance', [(None, 1e-5), ('int8', 0.02)])
@pytest.mark.parametrize('name', ['lenet', 'mobilenet'])
def test_litert_computes_what_the_model_does(name, quantize, tolerance, tmp_path):
  model = getattr(networks, name)(0.95)
  batch, wanted = networks.batch_of(model, 3)
  exported = rigl.inference.export(model, tmp_path / 'm.tflite', quantize)
  networks.assert_close(_run(exported.sparse, batch), wanted, tolerance)
  assert (tmp_path / 'm.tflite').read_bytes() == exported.sparse


def _dense_net(sizes, weights):
  inputs = x = keras.Input((sizes[0],))
  for i, size in enumerate(sizes[1:]):
    x = L.Dense(size, 'relu' if i < len(sizes) - 2 else None)(x)
  model = keras.Model(inputs, x)
  model.set_weights(weights)
  return model


def _shapes(exported):
  model = tflite_files.read(exported.sparse, 'model')
  return [
    tflite_files.shape_of(model.subgraphs[0].tensors[operator.inputs[1]])
    for operator in model.subgraphs[0].operators
    if tflite_files.operator_name(tflite_files.operator_code(model, operator))
    in ('FULLY_CONNECTED', 'CONV_2D', 'DEPTHWISE_CONV_2D')
  ]


def test_dead_units_are_removed_by_hand(tmp_path):
  """Of 4 hidden units one lives, one is not read, two are constant.

  Unit 0: relu(x0 + 2 x1). Unit 1 is read by nobody. Unit 2 is relu(3) = 3 and
  adds 3 * 5 to the output. Unit 3 is relu(-1) = 0. With x = (1, 1) the output
  is 3 * 7 + 3 * 5 + 1 = 37.
  """
  model = _dense_net(
    [2, 4, 1],
    [
      np.array([[1, 1, 0, 0], [2, 1, 0, 0]]),
      np.array([0, 1, 3, -1]),
      np.array([[7], [0], [5], [4]]),
      np.array([1]),
    ],
  )
  exported = rigl.inference.export(model, tmp_path / 'm.tflite')
  assert exported.n_removed == 3
  assert _shapes(exported) == [(1, 2), (1, 1)]
  assert _run(exported.sparse, np.ones((1, 2), 'f')) == 37


def test_removal_goes_on_until_nothing_is_dead(tmp_path):
  """Unit 1 of layer 2 is not read, so unit 1 of layer 1 is not read either."""
  model = _dense_net(
    [2, 2, 2, 1],
    [np.ones((2, 2)), np.zeros(2), np.eye(2), np.zeros(2), np.array([[1], [0]]), np.zeros(1)],
  )
  exported = rigl.inference.export(model, tmp_path / 'm.tflite')
  assert exported.n_removed == 2
  assert _shapes(exported) == [(1, 2), (1, 1), (1, 1)]


def _conv_net(kind):
  inputs = keras.Input((7, 6, 3))
  x = L.Conv2D(8, 3, activation='relu')(inputs)
  if kind == 'depthwise':
    x = L.DepthwiseConv2D(3, padding='same', activation='relu')(x)
  elif kind == 'pool':
    x = L.MaxPooling2D()(x)
  elif kind == 'residual':
    y = L.Conv2D(8, 1)(x)
    x = L.Add()([x, y])
  if kind == 'flatten':
    x = L.Flatten()(x)
  elif kind == 'mean':
    x = L.GlobalAveragePooling2D()(x)
  else:
    x = L.Conv2D(4, 2, padding='same' if kind == 'same' else 'valid')(x)
    x = L.Flatten()(x)
  return keras.Model(inputs, L.Dense(5)(x))


# How many of 8 channels may go: 0 is unread, 1 constant, 2 is zero. What is
# constant has to stay where some of its readers see zeros around the image.
@pytest.mark.parametrize(
  'kind, n_removed',
  [
    ('valid', 3),
    ('same', 2),
    ('depthwise', 2),
    ('pool', 3),
    ('residual', 0),
    ('flatten', 3),
    ('mean', 3),
  ],
)
def test_channels_are_removed_where_that_is_exact(kind, n_removed, tmp_path):
  model = networks.sparsified(_conv_net(kind), 0.0)
  first = next(v for v in model.variables if v.ndim == 4)
  bias = next(v for v in model.variables if v.shape == (8,))
  kernel, values = np.array(first.value), np.array(bias.value)
  kernel[..., 1:3], values[1], values[2] = 0, 2, -1
  first.assign(kernel)
  bias.assign(values)
  readers = [
    v
    for v in model.variables
    if 'bias' not in v.path and (v is not first) and 'depthwise' not in v.path
  ]
  reader = np.array(readers[0].value)
  reader.reshape(-1, 8, reader.shape[-1])[:, 0] = 0
  readers[0].assign(reader)
  batch, wanted = networks.batch_of(model, 2)
  exported = rigl.inference.export(model, tmp_path / 'm.tflite')
  networks.assert_close(_run(exported.sparse, batch), wanted)
  assert exported.n_removed == n_removed


def test_a_network_without_any_weights_left_is_exported(tmp_path):
  model = networks.sparsified(_conv_net('valid'), 1.0)
  batch, wanted = networks.batch_of(model)
  exported = rigl.inference.export(model, tmp_path / 'm.tflite')
  networks.assert_close(_run(exported.sparse, batch), wanted)


@pytest.mark.parametrize('kind', ['keras', 'saved_model', 'run', 'tflite'])
def test_sources_give_one_network(kind, tmp_path):
  model = networks.lenet(0.9)
  batch, wanted = networks.batch_of(model, 3)
  if kind == 'keras':
    model.save(source := tmp_path / 'm.keras')
  elif kind == 'tflite':
    source = tmp_path / 'dense.tflite'
    source.write_bytes(rigl.inference.export(model, tmp_path / 'm.tflite').dense)
  else:
    # The newest export of a run counts.
    for step, factor in (('9', 0.0), ('10', 1.0)):
      scaled = tf2.Module()
      scaled.serve = tf2.function(
        lambda x, factor=factor: {'logits': factor * model(x), 'other': x},
        input_signature=[tf2.TensorSpec([None, 784])],
      )
      scaled.layers = model
      folder = tmp_path / 'run' / 'export' / step
      tf2.saved_model.save(scaled, str(folder), {'serving_default': scaled.serve})
    source = tmp_path / 'run' if kind == 'run' else folder
  exported = rigl.inference.export(source, tmp_path / 'x.tflite')
  networks.assert_close(_run(exported.sparse, batch), wanted)


def test_sizes_are_what_is_promised(tmp_path):
  """98 % zeros leave 4 + 2 of 4 * 50 bytes: over 12 times smaller."""
  model = networks.lenet(0.98)
  n_bytes = {
    q: len(rigl.inference.export(model, tmp_path / 'm.tflite', q).sparse) for q in (None, 'int8')
  }
  n_dense = 4 * sum(
    v.shape.num_elements() if hasattr(v.shape, 'num_elements') else int(np.prod(v.shape))
    for v in model.variables
  )
  assert n_dense > 12 * n_bytes[None]
  assert n_dense > 19 * n_bytes['int8']


@pytest.mark.parametrize(
  'source, message',
  [
    ('/no/such/folder', 'does not exist. export takes'),
    ('missing.keras', 'missing.keras does not exist'),
    ('missing.tflite', 'Cannot read missing.tflite: No such file'),
    (3, 'export takes a Keras model'),
    (keras.Sequential([L.Dense(3)]), 'needs a keras.Input'),
  ],
)
def test_errors_name_what_is_wrong(source, message, tmp_path):
  with pytest.raises(ValueError, match=re.escape(message)):
    rigl.inference.export(source, tmp_path / 'm.tflite')


def _small_net(policy):
  return keras.Sequential(
    [
      keras.Input((8, 8, 3)),
      L.Conv2D(6, 3, activation='relu', dtype=policy, name='conv'),
      L.BatchNormalization(dtype=policy),
      L.Flatten(dtype=policy),
      L.Dense(5, dtype='float32', name='fc'),
    ]
  )


@pytest.mark.parametrize('policy', ['mixed_bfloat16', 'mixed_float16'])
@pytest.mark.parametrize('saved', [True, False])
def test_mixed_precision_is_exported_in_float32(policy, saved, tmp_path):
  model = networks.sparsified(_small_net(policy), 0.5)
  exact = _small_net('float32')
  exact.set_weights(model.get_weights())
  batch, wanted = networks.batch_of(exact, 3)
  before = model(batch)
  source = model
  if saved:
    model.save(source := tmp_path / 'm.keras')
  exported = rigl.inference.export(source, tmp_path / 'm.tflite')
  networks.assert_close(_run(exported.sparse, batch), wanted)
  assert model.get_layer('conv').dtype_policy.name == policy
  np.testing.assert_array_equal(model(batch), before)


@pytest.mark.parametrize('policy', ['bfloat16', 'float16'])
def test_weights_in_16_bits_are_an_error(policy, tmp_path):
  with pytest.raises(ValueError, match='conv/kernel.* in 16 bits.*mixed_bfloat16'):
    rigl.inference.export(_small_net(policy), tmp_path / 'm.tflite')


def test_a_missing_package_is_an_error_before_the_work(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'ai_edge_litert.schema_py_generated', None)
  monkeypatch.setattr(sources, 'concrete_function', lambda source: pytest.fail('too late'))
  with pytest.raises(ValueError, match='needs the package.*pip install ai-edge-litert'):
    rigl.inference.export(networks.lenet(0.9), tmp_path / 'm.tflite')


@pytest.mark.filterwarnings('ignore:Layer .* does not have a `quantize` method:UserWarning')
def test_a_model_that_keras_has_quantized_is_an_error(tmp_path):
  model = keras.Sequential([keras.Input((20,)), L.Dense(5, name='fc')])
  model.quantize('int8')
  with pytest.raises(ValueError, match="quantize has changed fc.*Export.*before.*'int8'"):
    rigl.inference.export(model, tmp_path / 'm.tflite')


def test_another_backend_of_keras(tmp_path):
  """The command chooses TensorFlow; a program gets an error that names the command."""
  pytest.importorskip('jax')
  networks.lenet(0.9).save(tmp_path / 'm.keras')
  environment = {**os.environ, 'KERAS_BACKEND': 'jax'}
  done = subprocess.run(
    [sys.executable, '-m', 'rigl.inference', 'export', 'm.keras', '--output=m.tflite'],
    cwd=tmp_path,
    env={**environment, 'PYTHONPATH': str(ROOT)},
    check=True,
    capture_output=True,
    text=True,
  )
  assert (tmp_path / 'm.tflite').exists() and 'smaller' in done.stdout
  program = "import rigl.inference; rigl.inference.export('m.keras', 'other.tflite')"
  done = subprocess.run(
    [sys.executable, '-c', program],
    cwd=tmp_path,
    env={**environment, 'PYTHONPATH': str(ROOT)},
    check=False,
    capture_output=True,
    text=True,
  )
  assert 'on TensorFlow, but it runs on jax' in done.stderr.splitlines()[-1]
  assert not (tmp_path / 'other.tflite').exists()


def test_a_keras_file_that_is_none_is_an_error(tmp_path):
  (tmp_path / 'm.keras').write_text('no archive')
  with pytest.raises(ValueError, match='Cannot read .*m.keras'):
    rigl.inference.export(tmp_path / 'm.keras', tmp_path / 'm.tflite')


def _saved(path, signatures):
  module = tf2.Module()
  spec = tf2.TensorSpec([None, 3])
  module.one = tf2.function(lambda a: {'x': a}, [spec])
  module.two_outputs = tf2.function(lambda a: {'x': a, 'y': a}, [spec])
  module.two_inputs = tf2.function(lambda a, b: {'x': a + b}, [spec, spec])
  module.unknown_size = tf2.function(lambda a: {'x': a}, [tf2.TensorSpec([None, None])])
  tf2.saved_model.save(module, path, {name: getattr(module, of) for name, of in signatures.items()})


@pytest.mark.parametrize(
  'signatures, message',
  [
    ({}, 'has no signature serving_default, but none'),
    ({'mine': 'one'}, r"has no signature serving_default, but \['mine'\]"),
    ({'serving_default': 'two_outputs'}, r"outputs \['x', 'y'\], none of which is logits"),
    ({'serving_default': 'two_inputs'}, r"the inputs \['a', 'b'\]; export takes one"),
    ({'serving_default': 'unknown_size'}, r'inputs of the shape \[None\]'),
  ],
)
def test_saved_models_of_another_kind_are_errors(signatures, message, tmp_path):
  _saved(str(tmp_path / 'saved'), signatures)
  with pytest.raises(ValueError, match=message):
    rigl.inference.export(tmp_path / 'saved', tmp_path / 'm.tflite')


def test_layers_of_the_same_name_get_numbers():
  assert names.short_names(['a/x/MatMul', 'b/x/MatMul', 'y/MatMul'], {}) == ['x', 'x_1', 'y']


def test_operations_without_rules_have_no_table(tmp_path):
  inputs = keras.Input((6,))
  model = keras.Model(inputs, L.Dense(3)(L.Activation('tanh')(inputs)))
  exported = rigl.inference.export(model, tmp_path / 'm.tflite')
  assert reports.as_record(exported)['layers'] is None
  assert 'No layers are listed: there is no rule for TANH.' in reports.render(exported)


def test_wrong_settings_are_errors(tmp_path):
  with pytest.raises(ValueError, match='quantize'):
    rigl.inference.export(networks.lenet(0.9), tmp_path / 'm', 'int4')
  sizes = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(2, 3)])
  with pytest.raises(ValueError, match='input of a fixed size'):
    rigl.inference.export(sizes, tmp_path / 'm')
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ValueError, match='neither a SavedModel nor a run'):
    rigl.inference.export(tmp_path / 'empty', tmp_path / 'm')
  two = keras.Input((3,)), keras.Input((3,))
  with pytest.raises(ValueError, match='2 inputs and 1 outputs'):
    rigl.inference.export(keras.Model(two, L.Add()(two)), tmp_path / 'm')


def test_command_line_prints_what_export_saves(tmp_path, capsys):
  model = networks.lenet(0.98)
  model.save(source := tmp_path / 'm.keras')
  output, dense = tmp_path / 'm.tflite', tmp_path / 'dense.tflite'
  arguments = ['export', str(source), f'--output={output}', f'--dense_output={dense}']
  assert cli.main(arguments) == 0
  text = capsys.readouterr().out
  assert f'{dense.stat().st_size:,}' in text
  assert f'{output.stat().st_size:,}' in text
  assert re.search(r'Dense +784x300 +98\.00%', text)
  assert cli.main([*arguments, '--format=json']) == 0
  found = json.loads(capsys.readouterr().out)
  assert found['bytes']['sparse_gzip'] == len(gzip.compress(output.read_bytes(), mtime=0))
  # By the rules, 784 * 300 products, as many sums with the bias, and the ReLU.
  assert found['layers'][0]['dense_flops'] == 2 * 784 * 300 + 300
  assert found['layers'][0]['zeros'] == pytest.approx(0.98)


def test_command_line_errors_are_one_line(tmp_path, capsys):
  with pytest.raises(SystemExit) as stop:
    cli.main(['export', str(tmp_path), f'--output={tmp_path / "m"}'])
  assert stop.value.code == 2
  assert capsys.readouterr().err.startswith('Error: ')


def _behind_a_dead_unit(x):
  return {
    'max pool, ReLU': lambda: L.ReLU()(L.MaxPooling2D(2)(x)),
    'max pool with padding, ReLU6': lambda: L.ReLU(6.0)(L.MaxPooling2D(2, 2, 'same')(x)),
    'average pool, ReLU': lambda: L.ReLU()(L.AveragePooling2D(2)(x)),
    'dense without biases': lambda: L.Dense(3, use_bias=False)(L.Flatten()(x)),
    'two branches': lambda: L.Concatenate()(
      [L.Conv2D(2, 1)(L.DepthwiseConv2D(1)(x)), L.Conv2D(2, 1)(x), L.Conv2D(2, 1)(L.ReLU()(x))]
    ),
    'branches behind a pool': lambda: L.Concatenate()(
      [
        L.Conv2D(2, 1)(y)
        for pooled in [L.MaxPooling2D(2)(x)]
        for y in (pooled, L.DepthwiseConv2D(1)(pooled))
      ]
    ),
  }


@pytest.mark.parametrize('bias', [-1.0, 2.0])
@pytest.mark.parametrize('name', _behind_a_dead_unit(None))
def test_constants_of_dead_units_arrive_as_their_operations_make_them(name, bias, tmp_path):
  inputs = keras.Input((9, 8, 3))
  layer = L.Conv2D(4, 3)
  x = _behind_a_dead_unit(layer(inputs))[name]()
  model = networks.sparsified(keras.Model(inputs, L.Dense(3)(L.Flatten()(x))), 0.2)
  kernel, biases = layer.get_weights()
  kernel[..., 1], biases[1] = 0.0, bias
  layer.set_weights([kernel, biases])
  rigl.inference.export(model, path := tmp_path / 'm.tflite')
  batch, wanted = networks.batch_of(model)
  for engine in ('litert', 'rigl'):
    networks.assert_close(rigl.inference.load(path, engine=engine)(batch), wanted)
