"""A saved and loaded training continues as if it had not stopped."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import warnings
import zipfile

import keras
import numpy as np
import pytest

import rigl.keras as sparse
from tests import combinations
from tests.keras import small

ROOT = pathlib.Path(__file__).parents[2]
BACKEND = keras.backend.backend()


def make(method, **settings):
  keras.utils.set_random_seed(1)
  model = small.network()
  optimizer = small.optimizer(method, **settings)
  optimizer.build(model.trainable_variables)
  return small.compiled(model, optimizer), optimizer


def train(model, first, last):
  x, labels = small.data(24)
  batches = slice(32 * first, 32 * last)
  model.fit(x[batches], labels[batches], batch_size=32, shuffle=False, verbose=0)


def state(model):
  return small.values([*model.trainable_variables, *model.optimizer.variables])


def by_model_file(model, method, folder):
  del method
  model.save(folder / 'model.keras')
  return keras.models.load_model(folder / 'model.keras')


def by_weights(model, method, folder):
  path = str(folder / 'model.weights.h5')
  model.save_weights(path)
  other, _ = make(method)
  other.load_weights(path)
  return other


def by_checkpoint(model, method, folder):
  import tensorflow as tf

  path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(folder / 'model'))
  other, optimizer = make(method)
  tf.train.Checkpoint(model=other, optimizer=optimizer).restore(path).assert_consumed()
  return other


WAYS = [by_model_file, by_weights, *([by_checkpoint] if BACKEND == 'tensorflow' else [])]


@pytest.mark.parametrize('way, method', combinations.thinned(WAYS, small.METHODS))
def test_training_goes_on_bit_identical(method, way, tmp_path):
  model, _ = make(method)
  train(model, 0, 12)
  loaded = way(model, method, tmp_path)
  for got, expected in zip(state(loaded), state(model)):
    np.testing.assert_array_equal(got, expected)
  for one in (model, loaded):
    train(one, 12, 24)
  assert len(state(loaded)) == len(state(model))
  for got, expected in zip(state(loaded), state(model)):
    np.testing.assert_array_equal(got, expected)


def test_masks_are_saved_once_and_as_bool(tmp_path):
  import h5py

  model, _ = make('rigl')
  model.save(tmp_path / 'model.keras')
  with zipfile.ZipFile(tmp_path / 'model.keras') as archive:
    archive.extract('model.weights.h5', tmp_path)
  found = []

  def visit(name, node):
    if isinstance(node, h5py.Dataset) and node.dtype == bool:
      found.append(node.shape)

  with h5py.File(tmp_path / 'model.weights.h5') as file:
    file.visititems(visit)
  assert found == list(zip(small.SIZES, small.SIZES[1:]))


@pytest.mark.parametrize('method', small.METHODS)
def test_config_round_trip(method):
  optimizer = small.optimizer(method, custom_sparsities={'dense': 0.5}, filters=['dense'], seed=4)
  copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
  assert type(copy) is type(optimizer)
  assert copy.get_config() == optimizer.get_config()
  assert copy.method == optimizer.method


@keras.saving.register_keras_serializable('tests')
def only_wide(variable):
  return len(variable.shape) > 1 and variable.shape[1] > 5


def test_a_filter_that_is_a_function_is_saved(tmp_path):
  model, optimizer = make('rigl', filters=only_wide)
  model.save(tmp_path / 'model.keras')
  loaded = keras.models.load_model(tmp_path / 'model.keras')
  for got, expected in zip(small.masks(loaded.optimizer), small.masks(optimizer)):
    np.testing.assert_array_equal(got, expected)
  assert len(loaded.optimizer.kernels) == len(optimizer.kernels) == 2


def test_whole_paths_still_fit_a_model_that_is_loaded(tmp_path):
  # Where they lack the name of a Sequential.
  model = small.network()
  first, _, last = (v.path for v in model.trainable_variables[::2])
  optimizer = small.optimizer('rigl', sparsity={first: 0.5, last: 0.75})
  optimizer.build(model.trainable_variables)
  small.compiled(model, optimizer).save(tmp_path / 'model.keras')
  loaded = keras.models.load_model(tmp_path / 'model.keras')
  assert [k.sparsity for k in loaded.optimizer.kernels] == [0.5, 0.75]
  for got, expected in zip(small.masks(loaded.optimizer), small.masks(optimizer)):
    np.testing.assert_array_equal(got, expected)


def test_given_masks_come_back_from_the_file(tmp_path):
  model = small.network()
  optimizer = sparse.Scratch(
    small.sgd(), mask_init={v.path: np.eye(*v.shape) for v in model.trainable_variables}
  )
  optimizer.build(model.trainable_variables)
  small.compiled(model, optimizer).save(tmp_path / 'model.keras')
  loaded = keras.models.load_model(tmp_path / 'model.keras')
  for mask in loaded.optimizer.get_masks().values():
    np.testing.assert_array_equal(mask, np.eye(*mask.shape) > 0)


def test_weights_of_another_optimizer_keep_their_zeros(tmp_path):
  model, optimizer = make('rigl')
  path = str(tmp_path / 'model.weights.h5')
  small.compiled(model, small.sgd())
  model.save_weights(path)
  before = small.kernels(model)
  other, _ = make('rigl', seed=5)
  with warnings.catch_warnings(record=True) as warned:
    warnings.simplefilter('always')
    other.load_weights(path)
  assert any('zeros that the weights have' in str(w.message) for w in warned)
  for mask, kernel, expected in zip(small.masks(other.optimizer), small.kernels(other), before):
    np.testing.assert_array_equal(kernel, expected)
    assert np.all(mask[kernel != 0])


@pytest.mark.filterwarnings('ignore:.*`quantize` method')
def test_int8_keeps_the_zeros():
  model, _ = make('rigl')
  before = small.kernels(model)
  model.quantize('int8')
  after = [next(w for w in layer.get_weights() if w.ndim == 2) for layer in model.layers]
  for got, expected in zip(after, before):
    got = got if got.shape == expected.shape else got.T
    assert np.all(got[expected == 0] == 0)


# --- Processes ----------------------------------------------------------------


def run(code, **environment):
  """Runs Python code with this backend in a process of its own."""
  return subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(code)],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT), 'KERAS_BACKEND': BACKEND, **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finished(code, **environment):
  process = run(code, **environment)
  out, errors = process.communicate()
  assert process.returncode == 0, errors[-3000:]
  return out


def test_a_model_is_loaded_without_rigl(tmp_path):
  model, _ = make('rigl')
  model.save(tmp_path / 'model.keras')
  out = finished(f"""
      import sys
      sys.modules['rigl'] = None
      import keras
      model = keras.models.load_model(r'{tmp_path}/model.keras', compile=False)
      print(sum(int((v != 0).sum()) for v in model.get_weights()))
      """)
  assert int(out) == sum(np.sum(v != 0) for v in model.get_weights())


TRAINING = """
    import os, signal, sys
    import keras
    from tests.keras import small

    class Killed(keras.callbacks.Callback):
      def on_train_batch_end(self, batch, logs=None):
        if os.environ['KILL'] == f'{self.epoch} {batch}':
          os.kill(os.getpid(), signal.SIGKILL)

      def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    keras.utils.set_random_seed(1)
    model = small.network()
    optimizer = small.optimizer(os.environ['METHOD'])
    optimizer.build(model.trainable_variables)
    small.compiled(model, optimizer)
    x, labels = small.data(8)
    folder = os.environ['FOLDER']
    model.fit(x, labels, batch_size=32, shuffle=False, verbose=0, epochs=3,
              callbacks=[keras.callbacks.BackupAndRestore(folder + '/backup'),
                         Killed()])
    import numpy as np
    np.savez(folder + '/end.npz', *small.values(
        [*model.trainable_variables, *optimizer.variables]))
"""


@pytest.mark.parametrize('method', ['rigl', pytest.param('dnw', marks=pytest.mark.slow)])
def test_a_killed_fit_goes_on_from_its_backup(method, tmp_path, monkeypatch):
  """In another process, this one, and ends as one that was not killed."""
  folders = {name: tmp_path / name for name in ('whole', 'killed')}
  for folder in folders.values():
    folder.mkdir()
  process = run(TRAINING, KILL='1 5', METHOD=method, FOLDER=str(folders['killed']))
  _, errors = process.communicate()
  assert process.returncode == -signal.SIGKILL, errors[-3000:]
  assert list(folders['killed'].iterdir()) == [folders['killed'] / 'backup']
  monkeypatch.setenv('KILL', '')
  monkeypatch.setenv('METHOD', method)
  for folder in folders.values():
    monkeypatch.setenv('FOLDER', str(folder))
    keras.utils.clear_session(free_memory=False)  # Layers have the names that they have there.
    exec(textwrap.dedent(TRAINING), {})
  ends = [np.load(folder / 'end.npz') for folder in folders.values()]
  assert len(ends[0].files) > 10
  for name in ends[0].files:
    np.testing.assert_array_equal(ends[0][name], ends[1][name])


@pytest.mark.skipif(BACKEND != 'jax', reason='TensorFlow is needed elsewhere')
def test_training_on_jax_does_without_tensorflow():
  out = finished("""
      import sys
      sys.modules['tensorflow'] = None
      import rigl
      from tests.keras import small
      model = small.network()
      optimizer = small.optimizer('rigl')
      small.compiled(model, optimizer)
      x, labels = small.data(12)
      model.fit(x, labels, batch_size=32, verbose=0,
                callbacks=[rigl.keras.SparsityLogger()])
      small.check_zeros(model, optimizer)
      rigl.keras.summary(model)
      print(round(rigl.keras.sparsity_of(model), 2))
      """)
  assert out.split()[-1] == str(small.SPARSITY)


MIRRORED = """
    import os
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
    import numpy as np
    import tensorflow as tf
    import keras
    from tests.keras import small

    device, = tf.config.list_physical_devices('CPU')
    tf.config.set_logical_device_configuration(
        device, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])
    for method in os.environ['METHODS'].split():
      found = []
      for scope in (strategy, tf.distribute.get_strategy()):
        with scope.scope():
          keras.utils.set_random_seed(1)
          model = small.network()
          optimizer = small.optimizer(method, small.sgd(momentum=0.5))
          optimizer.build(model.trainable_variables)
          small.compiled(model, optimizer, jit_compile=False)
        x, labels = small.data(20)
        model.fit(x, labels, batch_size=32, shuffle=False, verbose=0)
        small.check_zeros(model, optimizer)
        found.append((small.masks(optimizer),
                      small.values(model.trainable_variables)))
        if scope is strategy:
          for kernel in optimizer.kernels:
            for variable in (kernel.variable, kernel.mask):
              first, second = (v.numpy() for v in variable.value.values)
              np.testing.assert_array_equal(first, second)
      for a, b in zip(found[0][0], found[1][0]):
        np.testing.assert_array_equal(a, b, method)
      for a, b in zip(found[0][1], found[1][1]):
        np.testing.assert_allclose(a, b, atol=1e-6, err_msg=method)
      print(method)
"""


@pytest.mark.skipif(BACKEND != 'tensorflow', reason='TensorFlow has strategies')
@pytest.mark.parametrize(
  'methods',
  ['rigl snip dnw prune', pytest.param('set momentum static scratch', marks=pytest.mark.slow)],
)
def test_replicas_are_one_device(methods):
  out = finished(MIRRORED, METHODS=methods)
  assert out.splitlines()[-4:] == methods.split()
