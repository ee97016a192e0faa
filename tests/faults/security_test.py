"""Untrusted files are only read: none of their content is executed."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

from rigl import checkpoint_files, gin_configs
from rigl.cifar_resnet import cifar_data
from rigl.compat import tf
from rigl.imagenet_resnet import imagenet_data
from rigl.mnist import mask_records, mnist_data
from rigl.training import checkpoints
from rigl.training.config import SparsityConfig
from tests import tiny_cifar, tiny_imagenet, tiny_tfds


class Evil:
  """Leaves a file when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


@pytest.fixture
def trace(tmp_path):
  """The path that appears when something runs."""
  path = tmp_path / 'it_ran'
  yield path
  assert not path.exists()


def test_the_trap_works(tmp_path):
  pickle.loads(pickle.dumps(Evil(tmp_path / 'it_ran')))
  assert (tmp_path / 'it_ran').exists()


# --- Pickles -----------------------------------------------------------------


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_in_place_of_any_file(protocol, trace, tmp_path):
  content = pickle.dumps({'data': Evil(trace), 'labels': [0]}, protocol)
  path = tmp_path / 'file'
  path.write_bytes(content)
  with pytest.raises(ValueError):
    cifar_data.parse_python_batch(content, 'data_batch_1')
  with pytest.raises(ValueError):
    mnist_data.read_idx(path, 1)
  with pytest.raises(ValueError):
    mask_records.MaskRecords.load(path)
  with pytest.raises(ValueError):
    imagenet_data.count_records(str(path))
  for suffix in ('index', 'data-00000-of-00001'):
    (tmp_path / f'model.ckpt-1.{suffix}').write_bytes(content)
  with pytest.raises(ValueError, match='model.ckpt-1'):
    checkpoint_files.read_tensors(str(tmp_path / 'model.ckpt-1'), ['global_step'])


def test_array_of_objects_among_mask_records(trace, tmp_path):
  path = tmp_path / 'masks.npz'
  np.savez(
    path,
    version=np.array(1),
    iterations=np.array([0]),
    **{'layer1/mask': np.array([Evil(trace)], object), 'layer1/shape': np.array([1])},
  )
  with pytest.raises(ValueError, match='masks.npz'):
    mask_records.MaskRecords.load(path)


def test_pickle_as_a_picture(trace, tmp_path):
  records = [tiny_imagenet.make_record(pickle.dumps(Evil(trace)), 1)]
  tiny_imagenet.write_part(tmp_path, 'train', records, 1)
  with pytest.raises(ValueError, match='train-00000'):
    imagenet_data.find_data(str(tmp_path), num_train_images=1, num_eval_images=1, num_classes=5)


# --- Data prepared by TensorFlow Datasets -------------------------------------


def prepare_mnist(data_dir):
  pictures = [(np.zeros((28, 28, 1), np.uint8), i) for i in range(3)]
  return tiny_tfds.write(
    data_dir,
    'mnist',
    '3.0.1',
    (28, 28, 1),
    'png',
    10,
    {'train': pictures, 'test': pictures},
    shard_length=2,
  )


PREPARED = {
  'mnist': (prepare_mnist, mnist_data.load_mnist),
  'cifar': (
    lambda data_dir: tiny_cifar.write_tfds(data_dir, tiny_cifar.make_images(7, 3)),
    cifar_data.load_cifar,
  ),
  'imagenet': (
    lambda data_dir: tiny_imagenet.write_tfds(data_dir, 3, 2),
    lambda folder: tiny_imagenet.find(folder, 3, 2),
  ),
}


@pytest.mark.parametrize('name', PREPARED)
def test_module_that_a_description_names(name, module_that_must_not_run, tmp_path):
  prepare, read = PREPARED[name]
  folder = prepare(tmp_path)
  read(folder)
  tiny_tfds.name_a_module(folder, module_that_must_not_run)
  with pytest.raises(ValueError, match=f'names {module_that_must_not_run}.Im'):
    read(folder)


# --- Checkpoints -------------------------------------------------------------


def test_graph_beside_a_checkpoint_is_not_read(tmp_path):
  """Only tensors are: a graph could write files when it runs."""
  with tf.Graph().as_default(), tf.Session() as session:
    step = tf.train.get_or_create_global_step()
    session.run(tf.global_variables_initializer())
    prefix = tf.train.Saver([step]).save(session, f'{tmp_path}/model.ckpt-0')
  for name in (f'{prefix}.meta', f'{tmp_path}/graph.pbtxt'):
    with open(name, 'wb') as file:
      file.write(b'rubbish')
  assert checkpoints.latest_step(str(tmp_path)) == 0
  with tf.Graph().as_default():
    step = tf.train.get_or_create_global_step()
    increment = tf.assign_add(step, 1)
    with tf.train.MonitoredTrainingSession(checkpoint_dir=str(tmp_path)) as session:
      assert session.run(increment) == 1


# --- Gin ---------------------------------------------------------------------

IMPORTS = [
  'import {}',
  'from {} import x',
  'import {} as y',
  '  import {}',
  'import \\\n {}',
  'SparsityConfig.seed = 1\nimport {}',
  'SparsityConfig.seed = (\n1)\nfrom {} import x',
  '\n\f\nimport {}',
  '"""\n"""\nimport {}',
  '# \\\nimport {}',
  'SparsityConfig:\n  import {}',
]
INCLUDES = [
  "include '{}'",
  'include "{}"',
  "include r'{}'",
  "include u'{}'",
  "include '''{}'''",
  'include """{}"""',
  "include \\\n  '{}'",
  "  include '{}'",
  "include '' '{}'",
  "include ('{}')",
  "SparsityConfig.seed = 1\ninclude r'{}'",
]


def read(paths=(), bindings=()):
  return gin_configs.read(paths, bindings, [SparsityConfig])


@pytest.mark.parametrize('text', IMPORTS)
def test_import_however_it_is_written(text, module_that_must_not_run, tmp_path):
  text = text.format(module_that_must_not_run)
  with pytest.raises(ValueError):
    read(bindings=[text])
  path = tmp_path / 'a.gin'
  path.write_text(text)
  with pytest.raises(ValueError, match='a.gin'):
    read([str(path)])


@pytest.mark.parametrize('text', INCLUDES)
def test_include_however_it_is_written(text, module_that_must_not_run, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'evil.gin').write_text(f'import {module_that_must_not_run}')
  (tmp_path / 'middle.gin').write_text(text.format('evil.gin'))
  for path in ('evil.gin', 'middle.gin'):
    with pytest.raises(ValueError):
      read(bindings=[text.format(path)])
  with pytest.raises(ValueError):
    read(['middle.gin'])


@pytest.mark.parametrize(
  'value',
  [
    '@os.system()',
    '@os.system',
    '@gin.singleton()',
    '%macro',
    '__import__("os")',
    'open("/etc/passwd")',
    '[@print()]',
    '{1: %m}',
    'lambda: 1',
    '1 if 1 else 2',
    'f"{1}"',
  ],
)
def test_value_that_is_more_than_a_literal(value):
  with pytest.raises(ValueError):
    read(bindings=[f'SparsityConfig.seed = {value}'])


def test_good_files_still_include_each_other(tmp_path):
  inner = tmp_path / 'ein Wört 名.gin'
  inner.write_text('SparsityConfig.seed = 3')
  outer = tmp_path / 'b.gin'
  outer.write_text(f"include r'{inner}'\nSparsityConfig.end_sparsity = \\\n  0.5")
  assert read([str(outer)]) == {(SparsityConfig, 'seed'): 3, (SparsityConfig, 'end_sparsity'): 0.5}
