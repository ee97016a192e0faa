"""Loading chooses an engine, and tells why it cannot use one."""

from __future__ import annotations

import io
import json
import pathlib
import platform
import shutil
import subprocess
import sys
import time

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies

import rigl.inference
from rigl.compat import tf2
from rigl.inference import benchmarking, cli, loading, steps, timing
from tests import environment
from tests.inference import networks

L = keras.layers


@pytest.fixture
def no_measurement(monkeypatch):
  """Fails if engines are timed."""

  def fail(*args):
    raise AssertionError('timed')

  monkeypatch.setattr(timing, 'seconds_in_turn', fail)


@pytest.fixture(scope='module')
def exported_once(tmp_path_factory):
  model = networks.mobilenet(0.9, 32)
  path = tmp_path_factory.mktemp('exported') / 'm.tflite'
  rigl.inference.export(model, path)
  return model, path


@pytest.fixture
def exported(exported_once, tmp_path):
  """A model and its file, alone in its folder."""
  model, path = exported_once
  return model, pathlib.Path(shutil.copy(path, tmp_path))


@pytest.mark.parametrize('engine', ['rigl', 'litert'])
@pytest.mark.parametrize('n_threads', [1, 2])
def test_engines_agree_on_any_batch(engine, n_threads, exported, no_measurement):
  model, path = exported
  network = rigl.inference.load(path, n_threads, engine)
  assert network.engine == engine
  assert network.input_shape == (32, 32, 3)
  for n in (3, 1, 2):
    batch, wanted = networks.batch_of(model, n)
    networks.assert_close(network(batch), wanted)
  assert network(batch[:0]).shape == (0, 10)
  # Integers and lists are numbers too.
  assert network(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 10)


@pytest.mark.parametrize('faster', ['rigl', 'litert'])
def test_auto_takes_the_faster_engine_and_remembers(faster, exported, monkeypatch):
  _, path = exported
  monkeypatch.setattr(
    timing,
    'seconds_in_turn',
    lambda functions, *_: {name: [1.0 if name == faster else 2.0] * 3 for name in functions},
  )
  assert rigl.inference.load(path).engine == faster
  memory = path.with_name('m.tflite.engine.json')
  (record,) = json.loads(memory.read_text()).values()
  assert record['engine'] == faster
  monkeypatch.setattr(
    timing,
    'seconds_in_turn',
    lambda functions, *_: {name: [2.0 if name == faster else 1.0] * 3 for name in functions},
  )
  assert rigl.inference.load(path).engine == faster
  # Another number of threads may have another answer, and so has a file whose
  # memory is damaged.
  assert rigl.inference.load(path, 2).engine != faster
  memory.write_text('[]')
  assert rigl.inference.load(path).engine != faster


@hypothesis.given(
  strategies.lists(
    strategies.tuples(strategies.floats(1e-6, 1.0), strategies.floats(1e-6, 1.0)), min_size=1
  )
)
def test_auto_is_never_slower_than_litert_in_what_it_measured(rounds):
  """Whatever the times are, in most rounds and by their median ratio."""
  rigl_times, litert_times = zip(*rounds)
  samples = {'rigl': list(rigl_times), 'litert': list(litert_times)}
  chosen = np.array(samples[loading.faster(samples)])
  assert np.median(chosen / np.array(litert_times)) <= 1


@pytest.mark.parametrize(
  'wins, chosen', [(8, 'rigl'), (6, 'rigl'), (5, 'litert'), (4, 'litert'), (0, 'litert')]
)
def test_auto_takes_rigl_if_it_wins_three_of_four_rounds(wins, chosen):
  samples = {'rigl': [1.0] * wins + [3.0] * (8 - wins), 'litert': [2.0] * 8}
  assert loading.faster(samples) == chosen


def test_auto_measures_both(exported, monkeypatch):
  """Measured with the given batch size; each size has its own choice."""
  _, path = exported
  seen = []

  def measured(functions, seconds, n_threads):
    seen.append({name: run().shape for name, run in functions.items()})
    return seconds_in_turn(functions, 0.01, n_threads)

  seconds_in_turn = timing.seconds_in_turn
  monkeypatch.setattr(timing, 'seconds_in_turn', measured)
  for size in (1, 3, 3):
    network = rigl.inference.load(path, batch_size=size)
  assert seen == [{'rigl': (n, 10), 'litert': (n, 10)} for n in (1, 3)]
  records = json.loads(path.with_name('m.tflite.engine.json').read_text())
  assert [set(record['milliseconds']) for record in records.values()] == [{'rigl', 'litert'}] * 2
  assert network.engine == list(records.values())[1]['engine']


def test_a_folder_that_cannot_be_written_does_not_stop_the_choice(exported, monkeypatch, caplog):
  _, path = exported
  monkeypatch.setattr(timing, 'seconds_in_turn', lambda *_: {'rigl': [1.0], 'litert': [2.0]})
  path.with_name('m.tflite.engine.json').mkdir()
  with caplog.at_level('INFO', logger='absl'):
    assert rigl.inference.load(path).engine == 'rigl'
  assert 'the next load measures again' in caplog.text


@pytest.mark.parametrize('content', ['Features : fp asimd\n', None])
def test_processors_without_a_name_have_their_kind(content, monkeypatch):
  def read(path, **_):
    if content is None:
      raise FileNotFoundError(path)
    return io.StringIO(content)

  monkeypatch.setattr(loading, 'open', read, raising=False)
  assert loading._processor() == (platform.processor() or platform.machine())


def test_one_thread_is_timed_by_its_processor_time():
  """Sleeping takes none of it; with more threads the time of day counts."""
  sleep = {'sleep': lambda: time.sleep(0.01)}
  for n_threads, is_counted in ((1, False), (2, True)):
    times = timing.seconds_in_turn(sleep, 0.01, n_threads)['sleep']
    assert (np.median(times) >= 0.01) == is_counted


@pytest.mark.benchmark
@pytest.mark.parametrize(
  'name, sparsity, batch_size',
  [
    ('lenet', 0.5, 1),
    ('lenet', 0.9, 1),
    ('lenet', 0.98, 1),
    ('lenet', 0.98, 100),
    ('mobilenet', 0.3, 1),
    ('mobilenet', 0.7, 1),
    ('mobilenet', 0.95, 1),
  ],
)
def test_auto_is_not_slower_than_litert_dense(name, sparsity, batch_size, tmp_path):
  """In a measurement of its own, by at most 2 %."""
  model = getattr(networks, name)(sparsity)
  exported = rigl.inference.export(model, tmp_path / 'm.tflite')
  (tmp_path / 'dense.tflite').write_bytes(exported.dense)
  batch, _ = networks.batch_of(model, batch_size)
  auto = rigl.inference.load(exported.path, batch_size=batch_size)
  dense = rigl.inference.load(tmp_path / 'dense.tflite', engine='litert')
  samples = timing.seconds_in_turn(
    {'auto': lambda: auto(batch), 'dense': lambda: dense(batch)}, 5.0
  )
  ratios = np.array(samples['auto']) / np.array(samples['dense'])
  assert np.median(ratios) <= 1.02, auto.engine


def test_other_shapes_are_errors(exported, no_measurement):
  _, path = exported
  network = rigl.inference.load(path, engine='rigl')
  for shape in ((32, 32, 3), (1, 3, 32, 32), ()):
    with pytest.raises(ValueError, match=r'\[batch, 32, 32, 3\]'):
      network(np.zeros(shape))


@pytest.mark.parametrize('engine', ['auto', 'rigl'])
def test_unknown_operations_run_on_litert(engine, tmp_path, caplog):
  inputs = keras.Input((6,))
  model = keras.Model(inputs, L.Dense(3)(L.Activation('tanh')(inputs)))
  rigl.inference.export(model, path := tmp_path / 'm.tflite')
  with caplog.at_level('WARNING'):
    network = rigl.inference.load(path, engine=engine)
  assert network.engine == 'litert'
  assert 'does not know TANH' in caplog.text
  caplog.clear()
  timed = benchmarking.benchmark(str(path), seconds=0.01)
  assert {record['engine'] for record in timed} == {'LiteRT', 'LiteRT, no XNNPACK'}
  assert 'does not know TANH' in caplog.text
  batch, wanted = networks.batch_of(model)
  networks.assert_close(network(batch), wanted)


def _check_runs_on_litert(model, path):
  rigl.inference.export(model, path)
  network = rigl.inference.load(path, engine='rigl')
  assert network.engine == 'litert'
  batch, wanted = networks.batch_of(model)
  networks.assert_close(network(batch), wanted)


_ON_SEQUENCES = {
  'dense': lambda x: L.Dense(3)(x),
  'of one': lambda x: L.Dense(3)(x[:, :1]),
  'by column': lambda x: L.Rescaling([1.0, 2.0, 3.0, 4.0])(x),
  'softmax': lambda x: L.Softmax()(x),
  'mean': lambda x: L.GlobalAveragePooling1D()(x),
  'transposed': lambda x: L.Permute((2, 1))(x),
  'convolution': lambda x: L.Conv1D(3, 2)(x),
  'folded': lambda x: L.Conv2D(3, 2)(L.Reshape((3, 2, 4))(x)),
}


_ON_IMAGES = {
  'dense': lambda x: L.Dense(3, 'relu')(x),
  'sequences of channels': lambda x: L.Dense(3)(L.Reshape((4, 4))(L.Conv2D(1, 1)(x))),
  'by row': lambda x: L.Normalization(axis=1, mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0] * 4)(x),
  'by column': lambda x: L.Normalization(axis=2, mean=[1.0, 2.0, 3.0, 4.0], variance=[1.0] * 4)(x),
  'flat': lambda x: x,
  'padded': lambda x: L.ReLU()(L.ZeroPadding2D(1)(x)),
  'padded twice': lambda x: L.MaxPooling2D(3, 1, 'same')(L.ZeroPadding2D(1)(x)),
  'product': lambda x: L.Multiply()([x, L.ReLU()(x)]),
}


@pytest.mark.parametrize('name', _ON_IMAGES)
def test_what_treats_positions_apart_runs_on_litert(name, tmp_path):
  inputs = keras.Input((4, 4, 4))
  outputs = L.Flatten()(_ON_IMAGES[name](inputs))
  model = keras.Model(inputs, outputs if name == 'flat' else L.Dense(2)(outputs))
  _check_runs_on_litert(model, tmp_path / 'm.tflite')


def test_examples_of_a_batch_do_not_mix(tmp_path):
  """Here the converter joins the last reshape and a difference."""
  x = inputs = keras.Input((4, 9, 2))
  x = L.Reshape((1, 1, 2))(L.Softmax()(L.GlobalAveragePooling2D()(x)))
  x = L.Conv2D(1, 3, padding='same')(L.Normalization(-1, mean=[0.1, 0.2], variance=[1.0, 2.0])(x))
  model = networks.sparsified(keras.Model(inputs, L.Dense(3)(L.Flatten()(L.Add()([x, x])))), 0.0)
  rigl.inference.export(model, path := tmp_path / 'm.tflite')
  for engine in ('litert', 'rigl'):
    network = rigl.inference.load(path, engine=engine)
    for n in (1, 3, 2):
      batch, wanted = networks.batch_of(model, n)
      networks.assert_close(network(batch), wanted)


def test_networks_made_for_one_batch_size_run_on_it(tmp_path):
  weights = np.random.default_rng(0).random((6, 2), np.float32)
  network = tf2.function(lambda x: tf2.matmul(tf2.reshape(x, [4, 6]), weights))
  converter = tf2.lite.TFLiteConverter.from_concrete_functions(
    [network.get_concrete_function(tf2.TensorSpec([4, 2, 3]))]
  )
  path = tmp_path / 'm.tflite'
  path.write_bytes(converter.convert())
  loaded = rigl.inference.load(path, engine='litert')
  for seed in (1, 2):
    batch = np.random.default_rng(seed).random((4, 2, 3), np.float32)
    networks.assert_close(loaded(batch), batch.reshape(4, 6) @ weights)


def test_images_too_large_for_the_engine_run_on_litert(exported, monkeypatch, caplog):
  _, path = exported
  monkeypatch.setattr(steps, '_MAX_ARENA', 10)
  with caplog.at_level('WARNING'):
    assert rigl.inference.load(path).engine == 'litert'
  assert 'images as large' in caplog.text


@pytest.mark.parametrize('name', _ON_SEQUENCES)
def test_sequences_run_on_litert(name, tmp_path):
  inputs = keras.Input((6, 4))
  model = keras.Model(inputs, L.Dense(2)(L.Flatten()(_ON_SEQUENCES[name](inputs))))
  _check_runs_on_litert(model, tmp_path / 'm.tflite')


def _int8_file(path):
  network = tf2.function(lambda x: tf2.nn.relu(tf2.matmul(x, tf2.ones([40, 40]))))
  converter = tf2.lite.TFLiteConverter.from_concrete_functions(
    [network.get_concrete_function(tf2.TensorSpec([1, 40]))]
  )
  converter.optimizations = [tf2.lite.Optimize.DEFAULT]
  converter.representative_dataset = lambda: [[np.ones((1, 40), 'f')]] * 3
  converter.inference_input_type = tf2.int8
  converter.inference_output_type = tf2.int8
  path.write_bytes(converter.convert())


@pytest.mark.filterwarnings('ignore:Statistics for quantized inputs')
def test_files_that_compute_in_int8_are_named(tmp_path):
  path = tmp_path / 'm.tflite'
  _int8_file(path)
  with pytest.raises(ValueError, match='does not compute in float32.*int8'):
    rigl.inference.load(path, engine='rigl')
  assert rigl.inference.load(path).engine == 'litert'


@pytest.mark.parametrize('engine', ['auto', 'rigl', 'litert'])
def test_damaged_files_are_value_errors(engine, exported, no_measurement):
  """Truncated, empty, or with overwritten bytes."""
  _, path = exported
  data = path.read_bytes()
  for damaged in (b'', b'hello world', data[:100], data[: len(data) // 2], b'\xff' * 4 + data[4:]):
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match='m.tflite'):
      rigl.inference.load(path, engine=engine)


def test_settings_are_checked(exported):
  _, path = exported
  with pytest.raises(ValueError, match='engine'):
    rigl.inference.load(path, engine='onnx')
  with pytest.raises(ValueError, match='num_threads'):
    rigl.inference.load(path, 0)
  with pytest.raises(ValueError, match='batch_size'):
    rigl.inference.load(path, batch_size=0)
  with pytest.raises(ValueError, match='Cannot read'):
    rigl.inference.load(path.with_name('other.tflite'))


def test_import_is_quick():
  code = (
    'import sys, rigl.inference; print([name for name in ("numba", '
    '"tensorflow", "keras", "ai_edge_litert") if name in sys.modules])'
  )
  found = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert found.stdout.strip() == '[]'


def test_without_numba_litert_runs(exported, monkeypatch, caplog):
  _, path = exported
  monkeypatch.setattr(loading.requirements, 'has_numba', lambda: False)
  monkeypatch.setitem(sys.modules, 'numba', None)
  assert rigl.inference.load(path).engine == 'litert'
  assert 'numba is not installed' in caplog.text
  with pytest.raises(ValueError, match='pip install numba'):
    rigl.inference.load(path, engine='rigl')


def test_benchmark_compares_with_the_dense_network(exported, capsys):
  model, path = exported
  dense = path.with_name('dense.tflite')
  dense.write_bytes(rigl.inference.export(model, path).dense)
  assert (
    cli.main(
      [
        'benchmark',
        str(path),
        f'--against={dense}',
        '--seconds=0.1',
        '--threads=1,2',
        '--format=json',
      ]
    )
    == 0
  )
  records = json.loads(capsys.readouterr().out)
  assert [(r['engine'], r['network'], r['threads']) for r in records] == [
    (engine, network, n)
    for n in (1, 2)
    for engine, network in (
      ('LiteRT', 'dense'),
      ('LiteRT, no XNNPACK', 'dense'),
      ('LiteRT', 'sparse'),
      ('LiteRT, no XNNPACK', 'sparse'),
      ('rigl', 'sparse'),
    )
  ]
  assert records[0]['ratio'] == 1
  assert cli.main(['benchmark', str(path), '--seconds=0.1']) == 0
  assert '1.00x' in capsys.readouterr().out


@pytest.mark.parametrize('threads', ['1,a', '2,', '1.5'])
def test_threads_are_numbers(threads, capsys):
  with pytest.raises(SystemExit):
    cli.main(['benchmark', 'm.tflite', f'--threads={threads}'])
  assert '--threads takes numbers separated by commas, got' in capsys.readouterr().err


def test_benchmark_needs_networks_of_the_same_input(tmp_path):
  paths = []
  for n in (2, 3):
    model = keras.Sequential([keras.Input((n,)), L.Dense(2)])
    paths.append(str(tmp_path / f'{n}.tflite'))
    rigl.inference.export(model, paths[-1])
  with pytest.raises(ValueError, match=r'take different inputs: \[\(2,\), \(3,\)\]'):
    benchmarking.benchmark(*paths, seconds=0.01)


def test_export_of_a_keras_file_prints_no_log(tmp_path):
  networks.lenet(0.9).save(tmp_path / 'm.keras')
  done = subprocess.run(
    [sys.executable, '-m', 'rigl.inference', 'export', 'm.keras', '--output=m.tflite'],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    env=environment.without_log_level(PYTHONPATH=str(pathlib.Path(rigl.__file__).parents[1])),
  )
  assert (done.returncode, done.stderr) == (0, '')
