"""Exported models: predictions, exact zeros, no masks, atomic folders."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import numpy as np
import pytest

from rigl import checkpoint_files
from rigl.compat import tf, tf2
from rigl.model_pruning import layers, sparse_layers
from rigl.training import checkpoints, export, mask_init, resuming, runner, specs
from rigl.training.config import SparsityConfig
from tests import checkpoint_values, combinations, imagenet_script, networks, sparse_net
from tests.training import one_masked_layer, runner_test

# --- fold_masks: by hand -----------------------------------------------------


def test_masks_go_into_the_weights_of_their_scope():
  values = {
    'a/weights': np.array([[1.0, -2.0], [3.0, 4.0]], np.float32),
    'a/mask': np.array([[1.0, 0.0], [0.0, 1.0]], np.float32),
    'a/threshold': np.float32(0.5),
    'a/biases': np.array([5.0, 6.0], np.float32),
    'net/b/depthwise_weights': np.array([7.0, 8.0, 9.0], np.float32),
    'net/b/mask': np.array([0, 1, 1], np.uint8),
    'c/c/weights': np.array([10.0], np.float32),
    'weights': np.array([-1.0], np.float32),
    'mask': np.array([0.0], np.float32),
    'global_step': np.int64(3),
  }
  folded = checkpoint_files.fold_masks(values)
  assert {name: value.tolist() for name, value in folded.items()} == {
    'a/weights': [[1.0, 0.0], [0.0, 4.0]],
    'a/biases': [5.0, 6.0],
    'net/b/depthwise_weights': [0.0, 8.0, 9.0],
    'c/c/weights': [10.0],
    'weights': [0.0],
    'global_step': 3,
  }
  assert all(folded[name].dtype == values[name].dtype for name in folded)
  # The inputs are left alone, and a dropped -2 is a zero without a sign.
  assert values['a/weights'][0, 1] == -2.0
  assert not np.signbit(folded['a/weights']).any()


@pytest.mark.parametrize('value', [np.float16, tf2.bfloat16.as_numpy_dtype])
def test_types_of_less_precision_stay(value):
  folded = checkpoint_files.fold_masks(
    {'a/weights': np.array([3.0, 5.0], value), 'a/mask': np.array([0.0, 1.0], np.float32)}
  )
  assert folded['a/weights'].dtype == value
  assert folded['a/weights'].astype(np.float32).tolist() == [0.0, 5.0]


@pytest.mark.parametrize(
  'other, words',
  [
    ({}, 'there are 0'),
    ({'a/b/kernel': np.ones([2])}, 'there are 0'),
    ({'b/weights': np.ones([2]), 'a/weights': np.ones([2])}, 'there are 0'),
    ({'a/b/weights': np.ones([2]), 'a/b/depthwise_weights': np.ones([2])}, 'there are 2'),
    ({'a/b/weights': np.ones([3])}, r'is \[2\], but a/b/weights is \[3\]'),
    ({'a/b/weights': np.ones([1, 2])}, r'is \[2\], but .* is \[1, 2\]'),
  ],
)
def test_mask_without_its_weights_is_named(other, words):
  with pytest.raises(ValueError, match=f'The mask a/b/mask .*{words}'):
    checkpoint_files.fold_masks({'a/b/mask': np.ones([2]), **other})


def test_networks_without_masks_are_left_as_they_are():
  values = {'a/kernel': np.array([-0.0, 1.0]), 'a/masked': np.zeros([2])}
  folded = checkpoint_files.fold_masks(values)
  assert set(folded) == set(values)
  assert all(folded[name] is value for name, value in values.items())


# --- Every architecture ------------------------------------------------------

STEP = 17
N_CLASSES = 7


def fully_connected(images, is_training):
  del is_training
  outputs = tf.reshape(images, [-1, 32 * 32 * 3])
  for scope, n_units in (('layer1', 5), ('layer2', 4)):
    outputs = layers.masked_fully_connected(outputs, n_units, scope=scope)
  return layers.masked_fully_connected(outputs, N_CLASSES, activation_fn=None, scope='layer3')


def make_network(network, **arguments):
  if network == 'mnist_fc':
    return fully_connected
  if network.partition('_')[0] != 'wrn':
    arguments['width'] = 0.125
  return networks.make_model(
    network, num_classes=N_CLASSES, **{'pruning_method': 'threshold', **arguments}
  )


# With every kind of block, and layers without masks.
CASES = (
  [
    (network, {})
    for network in (
      'mnist_fc',
      'resnet18',
      'resnet50',
      'mobilenet_v1',
      'mobilenet_v2',
      'vgg_a',
      'wrn_10_1',
    )
  ]
  + [
    (network, {'prune_first_layer': False, 'prune_last_layer': False})
    for network in ('resnet18', 'mobilenet_v1', 'mobilenet_v2', 'vgg_a', 'wrn_10_1')
  ]
  + [(network, {'pruning_method': 'baseline'}) for network in ('mobilenet_v1', 'vgg_a', 'wrn_10_1')]
)


@pytest.fixture
def short(monkeypatch):
  imagenet_script.shorten_networks(monkeypatch)


def jpegs(n):
  """So many encoded 32x32 images."""
  pixels = np.random.RandomState(0).randint(0, 256, [n, 32, 32, 3], np.uint8)
  with tf.Graph().as_default(), sparse_net.quick_session() as session:
    return [session.run(tf.io.encode_jpeg(image)) for image in pixels]


def decode(encoded):
  image = tf.image.decode_jpeg(encoded, channels=3)
  return tf.reshape(tf.cast(image, tf.float32) / 128.0 - 1.0, [32, 32, 3])


def save_random(model, folder):
  """Writes a checkpoint of random values; about a third is masked.

  Returns:
    (prefix, {variable name: value}, JPEGs, images, logits of the images).
  """
  encoded = jpegs(3)
  with tf.Graph().as_default():
    images = tf.stack([decode(image) for image in encoded])
    logits = model(images, False)
    with networks.initialized_session() as session:
      networks.randomize(session)
      step = tf.train.get_or_create_global_step()
      session.run(step.initializer, {step.initializer.inputs[1]: STEP})
      prefix = tf.train.Saver(save_relative_paths=True).save(
        session, os.path.join(folder, 'model.ckpt'), STEP
      )
      values = session.run({v.op.name: v for v in tf.global_variables()})
      return (prefix, values, encoded, *session.run([images, logits]))


def predict(path, inputs):
  """Runs a SavedModel in a session.

  Args:
    path: of the SavedModel.
    inputs: {signature: {input: value}}.

  Returns:
    ({signature: {output: value}}, graph, {variable name: value}).
  """
  outputs = {}
  with tf.Graph().as_default() as graph, sparse_net.quick_session() as session:
    signatures = tf.saved_model.load(session, ['serve'], path).signature_def
    for signature, values in inputs.items():
      definition = signatures[signature]
      assert set(values) == set(definition.inputs)
      outputs[signature] = session.run(
        {name: output.name for name, output in definition.outputs.items()},
        {definition.inputs[name].name: values[name] for name in values},
      )
    return outputs, graph, session.run({v.op.name: v for v in tf.global_variables()})


def predict_with_tensorflow_2(path, inputs):
  """The same outputs and variables, without a session."""
  loaded = tf2.saved_model.load(path)
  outputs = {
    signature: loaded.signatures[signature](
      **{name: tf2.constant(value) for name, value in values.items()}
    )
    for signature, values in inputs.items()
  }
  return (
    {
      signature: {name: value.numpy() for name, value in found.items()}
      for signature, found in outputs.items()
    },
    {v.name.partition(':')[0]: v.numpy() for v in loaded.variables},
  )


def assert_predicts(outputs, logits, atol=1e-5):
  assert set(outputs) == {'logits', 'probabilities', 'classes'}
  np.testing.assert_allclose(outputs['logits'], logits, rtol=1e-5, atol=atol)
  powers = np.exp(logits - logits.max(axis=1, keepdims=True))
  np.testing.assert_allclose(
    outputs['probabilities'], powers / powers.sum(axis=1, keepdims=True), rtol=1e-5, atol=1e-6
  )
  assert outputs['classes'].tolist() == logits.argmax(axis=1).tolist()


def assert_has_no_masks(graph, values, trained):
  """The variables of inference with zeros where masks are, no product left."""
  names = [op.name for op in graph.get_operations() if op.type in ('VarHandleOp', 'VariableV2')]
  assert sorted(names) == sorted(values)
  assert sorted(values) == sorted(
    name for name in trained if not name.endswith(('/mask', '/threshold', 'global_step'))
  )
  assert not any(op.name.endswith('masked_weight') for op in graph.get_operations())
  masks = {
    name[: -len('mask')] + 'weights': value
    for name, value in trained.items()
    if name.endswith('/mask')
  }
  for name, value in values.items():
    mask = masks.pop(name, np.ones_like(value))
    np.testing.assert_array_equal(value, trained[name] * mask, err_msg=name)
    assert not value[mask == 0].tobytes().strip(b'\0')
  assert not masks


def export_random(network, folder, **arguments):
  """Exports a random network.

  Returns:
    (path, {variable name: value} of the checkpoint, {signature: inputs},
    logits of the masked network).
  """
  model = make_network(network, **arguments)
  prefix, trained, encoded, images, logits = save_random(model, folder)
  path = export.export_saved_model(
    lambda x: model(x, False),
    prefix,
    str(folder / 'export'),
    image_shape=[32, 32, 3],
    decode=decode,
  )
  inputs = {'serving_default': {'images': images}, 'predict_jpeg': {'image_bytes': encoded}}
  return path, trained, inputs, logits


@pytest.mark.parametrize('network, arguments', CASES, ids=str)
def test_exported_network_predicts_as_the_masked_one(network, arguments, short, tmp_path):
  path, trained, inputs, logits = export_random(network, tmp_path, **arguments)
  assert path == str(tmp_path / 'export' / str(STEP))
  assert np.abs(logits).max() > 1e-3
  outputs, graph, values = predict(path, inputs)
  for signature in inputs:
    assert_predicts(outputs[signature], logits)
  assert_has_no_masks(graph, values, trained)
  n_zeros = sum((value == 0).sum() for name, value in trained.items() if name.endswith('/mask'))
  assert (n_zeros > 0) == (arguments.get('pruning_method') != 'baseline')
  assert sum((value == 0).sum() for value in values.values()) >= n_zeros


@pytest.mark.parametrize('network', ['mnist_fc', 'mobilenet_v2', 'wrn_10_1'])
def test_tensorflow_2_loads_the_same(network, short, tmp_path):
  path, _, inputs, logits = export_random(network, tmp_path)
  outputs, values = predict_with_tensorflow_2(path, inputs)
  for signature in inputs:
    assert_predicts(outputs[signature], logits)
  _, _, expected = predict(path, {})
  assert set(values) == set(expected)
  for name, value in expected.items():
    np.testing.assert_array_equal(values[name], value, err_msg=name)


# --- Details of the SavedModel -----------------------------------------------


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """(prefix, values, JPEGs, images, logits) of the smallest network."""
  return save_random(fully_connected, tmp_path_factory.mktemp('run'))


def export_small(prefix, folder, **arguments):
  return export.export_saved_model(
    lambda x: fully_connected(x, False),
    prefix,
    str(folder),
    **{'image_shape': (32, 32, 3), **arguments},
  )


def test_without_decode_there_is_one_signature(trained, tmp_path):
  path = export_small(trained[0], tmp_path)
  assert list(tf2.saved_model.load(path).signatures) == ['serving_default']


@pytest.mark.parametrize('n', [0, 1, 3])
def test_batches_of_any_size(n, trained, tmp_path):
  _, _, encoded, images, logits = trained
  path = export_small(trained[0], tmp_path, decode=decode)
  outputs, _, _ = predict(
    path,
    {
      'serving_default': {'images': images[:n]},
      'predict_jpeg': {'image_bytes': np.array(encoded[:n], object)},
    },
  )
  for found in outputs.values():
    assert found['logits'].shape == (n, N_CLASSES)
    np.testing.assert_allclose(found['logits'], logits[:n], rtol=1e-5)


def test_names_of_classes(trained, tmp_path):
  names = ['cat', 'dog', 'naïve', 'd', 'e', 'f', 'g']
  path = export_small(trained[0], tmp_path, class_names=names)
  outputs, _, _ = predict(path, {'serving_default': {'images': trained[3]}})
  found = outputs['serving_default']['class_names']
  assert [name.decode() for name in found] == [names[c] for c in trained[4].argmax(axis=1)]


def test_too_few_names_of_classes_are_an_error(trained, tmp_path):
  with pytest.raises(ValueError, match='2 class_names for 7 classes'):
    export_small(trained[0], tmp_path / 'x', class_names=['a', 'b'])
  assert not (tmp_path / 'x').exists()


def in_bfloat16(images, is_training):
  del is_training
  outputs = tf.reshape(tf.cast(images, tf.bfloat16), [-1, 32 * 32 * 3])
  outputs = sparse_layers.sparse_fully_connected(
    outputs, 5, tf.nn.relu, sparsity_technique='threshold', name='layer1'
  )
  return sparse_layers.sparse_fully_connected(
    outputs, N_CLASSES, sparsity_technique='threshold', name='layer2'
  )


def test_networks_of_bfloat16_give_float32(tmp_path):
  """Their variables are float32, and the layers see casts of them."""
  prefix, trained, _, images, logits = save_random(in_bfloat16, tmp_path)
  path = export.export_saved_model(
    lambda x: in_bfloat16(x, False), prefix, str(tmp_path / 'x'), image_shape=[32, 32, 3]
  )
  outputs, graph, values = predict(path, {'serving_default': {'images': images}})
  assert outputs['serving_default']['logits'].dtype == np.float32
  assert_predicts(outputs['serving_default'], logits.astype(np.float32), atol=1e-5)
  assert_has_no_masks(graph, values, trained)


V1_PROGRAM = """
import sys
from rigl.compat import tf
from tests.training import export_test
tf.disable_v2_behavior()
export_test.export_small(
    sys.argv[1], sys.argv[2], decode=export_test.decode)
"""


def test_exports_with_v2_behaviour_switched_off(trained, tmp_path):
  """Then variables are references and loops have no functions."""
  prefix, values, encoded, images, logits = trained
  subprocess.run(
    [sys.executable, '-c', V1_PROGRAM, prefix, str(tmp_path / 'x')],
    check=True,
    cwd=networks.GOLDENS.parents[1],
  )
  path = str(tmp_path / 'x' / str(STEP))
  inputs = {'serving_default': {'images': images}, 'predict_jpeg': {'image_bytes': encoded}}
  outputs, graph, exported = predict(path, inputs)
  outputs_2, variables_2 = predict_with_tensorflow_2(path, inputs)
  for signature in inputs:
    assert_predicts(outputs[signature], logits)
    assert_predicts(outputs_2[signature], logits)
  assert_has_no_masks(graph, exported, values)
  assert set(variables_2) == set(exported)


# --- Mistakes ----------------------------------------------------------------


def test_checkpoint_of_another_network_is_refused(trained, tmp_path):
  with pytest.raises(ValueError, match='layer4/mask is missing there'):
    export.export_saved_model(
      lambda x: layers.masked_fully_connected(fully_connected(x, False), N_CLASSES, scope='layer4'),
      trained[0],
      str(tmp_path / 'x'),
      image_shape=[32, 32, 3],
    )
  assert not (tmp_path / 'x').exists()


def test_no_checkpoint_is_an_error_that_names_the_path(tmp_path):
  with pytest.raises(ValueError, match='No checkpoint') as error:
    export_small(str(tmp_path / 'model.ckpt-1'), tmp_path / 'x')
  assert 'model.ckpt-1' in str(error.value)


def test_decoded_images_of_another_shape_are_an_error(trained, tmp_path):
  with pytest.raises(ValueError, match='16'):
    export_small(trained[0], tmp_path / 'x', decode=lambda encoded: decode(encoded)[::2])
  assert not (tmp_path / 'x').exists()


def test_a_mask_that_is_used_otherwise_is_named(trained, tmp_path):

  def model(images):
    logits = fully_connected(images, False)
    mask = tf.get_collection('masks')[1]
    return logits + tf.reduce_sum(mask)

  with pytest.raises(ValueError, match='uses layer2/mask elsewhere'):
    export.export_saved_model(model, trained[0], str(tmp_path / 'x'), image_shape=[32, 32, 3])


# --- Complete or absent ------------------------------------------------------


def files(folder):
  """{path: content} of everything below a folder."""
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }


def fail(*arguments, **keywords):
  del arguments, keywords
  raise tf.errors.ResourceExhaustedError(None, None, 'No space left')


def interrupt(*arguments, **keywords):
  del arguments, keywords
  raise KeyboardInterrupt


@pytest.fixture
def full_disk():
  """Nothing can write more than 20,000 bytes to a file."""
  former = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20000, former[1]))
  yield
  resource.setrlimit(resource.RLIMIT_FSIZE, former)


def test_a_full_disk_is_one_error_that_names_the_folder(trained, tmp_path, full_disk):
  del full_disk
  with pytest.raises(OSError, match='Cannot write the exported model') as error:
    export_small(trained[0], tmp_path / 'x')
  message = str(error.value)
  assert str(tmp_path / 'x' / str(STEP)) in message
  assert message.endswith('File too large')
  assert '\n' not in message and 'Node' not in message
  assert not list((tmp_path / 'x').iterdir())


def test_a_folder_that_cannot_be_made_is_named(trained, tmp_path):
  (tmp_path / 'file').touch()
  folder = tmp_path / 'file' / 'x'
  with pytest.raises(OSError, match='Cannot write the exported model') as error:
    export_small(trained[0], folder)
  assert str(folder) in str(error.value)


@pytest.mark.parametrize(
  'where, failure, has_older',
  combinations.thinned(
    ['tf.train.Saver.save', 'tf.saved_model.Builder.save', 'rename'],
    [(fail, OSError), (interrupt, KeyboardInterrupt)],
    [False, True],
  ),
)
def test_failed_exports_leave_nothing(where, failure, has_older, trained, tmp_path, monkeypatch):
  how, error = failure
  folder = tmp_path / 'x'
  if has_older:
    export_small(trained[0], folder)
    (folder / str(STEP) / 'mark').touch()
  before = files(folder)
  if where == 'rename':
    rename = tf.io.gfile.rename

    def rename_or_fail(source, target):
      # The last step only: an older export is out of the way by then.
      return rename(source, target) if 'older' in source + target else how()

    monkeypatch.setattr(tf.io.gfile, 'rename', rename_or_fail)
  else:
    owner = tf.train.Saver if 'Saver' in where else tf.saved_model.Builder
    monkeypatch.setattr(owner, 'save', how)
  with pytest.raises(error):
    export_small(trained[0], folder)
  assert files(folder) == before
  assert sorted(p.name for p in folder.iterdir()) == ([str(STEP)] if has_older else [])


def test_nothing_numbered_is_visible_before_the_end(trained, tmp_path, monkeypatch):
  """A process that is killed while writing leaves what servers overlook."""
  folder, seen = tmp_path / 'x', []
  rename = tf.io.gfile.rename

  def look(source, target):
    seen.append([p.name for p in folder.iterdir()])
    complete.update(files(folder / os.path.basename(source)))
    rename(source, target)

  complete = {}
  monkeypatch.setattr(tf.io.gfile, 'rename', look)
  path = export_small(trained[0], folder)
  assert len(seen) == 1 and len(seen[0]) == 1
  assert not seen[0][0].isdigit()
  assert complete and files(folder) == {
    f'{STEP}/{name}': content for name, content in complete.items()
  }
  assert path == str(folder / str(STEP))


def test_an_export_of_the_same_step_is_replaced_and_others_stay(trained, tmp_path):
  folder = tmp_path / 'x'
  for step in (3, STEP):
    (folder / str(step)).mkdir(parents=True)
    (folder / str(step) / 'mark').touch()
  path = export_small(trained[0], folder)
  assert sorted(p.name for p in folder.iterdir()) == [str(STEP), '3']
  assert (folder / '3' / 'mark').exists()
  assert not (folder / str(STEP) / 'mark').exists()
  assert len(tf2.saved_model.load(path).variables) == 6


# --- ExportModelHook ---------------------------------------------------------


CONFIG = SparsityConfig(
  training_method='rigl', end_sparsity=0.5, maskupdate_frequency=3, maskupdate_end_step=6
)


def make_loop(folder, save_steps):
  """Trains one layer of RigL; masks move at the steps 0, 3 and 6."""

  def model_fn(features, labels, mode):
    loss, train_op, _ = one_masked_layer.build(
      CONFIG, features=features, first_iteration=resuming.iterations_done(str(folder), CONFIG)
    )
    return specs.TrainSpec(loss, train_op, lambda: mask_init.make_scaffold(CONFIG))

  return runner.make_loop(
    specs.Job(model_fn, str(folder), seed=1, save_steps=save_steps, keep_checkpoint_max=0)
  )


class Exports:
  """An export_fn that notes the step and the mask of what it exports."""

  def __init__(self, folder):
    self.steps = []
    self.masks = []
    self._folder = str(folder)

  def __call__(self, prefix):
    values = checkpoint_files.read_tensors(prefix, ['global_step', 'layer/mask'])
    self.steps.append(int(values['global_step']))
    self.masks.append(values['layer/mask'])
    return export.export_saved_model(
      lambda images: layers.masked_fully_connected(images, 4, scope='layer'),
      prefix,
      self._folder,
      image_shape=[6],
    )


def train_and_export(folder, n_iterations, every_n_steps, save_steps=3, last_step=None):
  exports = Exports(folder / 'export')
  hook = export.ExportModelHook(exports, str(folder), every_n_steps, last_step)
  runner.train(
    make_loop(folder, save_steps), runner_test.input_of(n_iterations), saving_listeners=[hook]
  )
  return exports


@pytest.mark.parametrize(
  'every_n_steps, save_steps, steps',
  combinations.quick(
    [
      (3, 3, [3, 6, 7]),
      (1, 3, [3, 6, 7]),
      (2, 3, [3, 6, 7]),
      (4, 3, [6, 7]),
      (6, 3, [6, 7]),
      (7, 3, [7]),
      (100, 3, [7]),
      (2, 1, [2, 4, 6, 7]),
      (5, 1, [5, 7]),
    ],
    (2, 3, [3, 6, 7]),
    (4, 3, [6, 7]),
    (100, 3, [7]),
    (2, 1, [2, 4, 6, 7]),
  ),
)
def test_exports_at_or_after_each_multiple_and_in_the_end(
  every_n_steps, save_steps, steps, tmp_path
):
  exports = train_and_export(tmp_path, 10, every_n_steps, save_steps=save_steps)
  assert exports.steps == steps
  assert sorted(p.name for p in (tmp_path / 'export').iterdir()) == sorted(map(str, steps))


def test_exported_in_training_is_what_the_checkpoints_hold(tmp_path):
  exports = train_and_export(tmp_path, 10, 3)
  images = np.eye(6, dtype=np.float32)
  kernels = []
  for step in exports.steps:
    values = checkpoint_files.read_tensors(
      str(tmp_path / f'model.ckpt-{step}'), ['layer/weights', 'layer/mask', 'layer/biases']
    )
    outputs, _, _ = predict(
      str(tmp_path / 'export' / str(step)), {'serving_default': {'images': images}}
    )
    kernels.append(values['layer/weights'] * values['layer/mask'])
    np.testing.assert_allclose(
      outputs['serving_default']['logits'],
      np.maximum(kernels[-1] + values['layer/biases'], 0.0),
      atol=1e-6,
    )
  assert len({kernel.tobytes() for kernel in kernels}) == 3
  assert len({mask.tobytes() for mask in exports.masks}) == 3
  assert [mask.sum() for mask in exports.masks] == [12.0] * 3


def test_exporting_does_not_disturb_training(tmp_path):
  with_exports, without = tmp_path / 'a', tmp_path / 'b'
  train_and_export(with_exports, 10, 1, save_steps=1)
  runner.train(make_loop(without, 1), runner_test.input_of(10))
  expected = checkpoint_values.of(without)
  actual = checkpoint_values.of(with_exports)
  assert set(actual) == set(expected)
  for name, value in expected.items():
    np.testing.assert_array_equal(actual[name], value, err_msg=name)


@pytest.mark.parametrize('n_iterations, steps', [(8, [3, 6]), (9, [3, 6]), (10, [3, 6, 7])])
def test_last_step_is_exported_once_when_it_is_known(n_iterations, steps, tmp_path):
  exports = train_and_export(tmp_path, n_iterations, 1, last_step=steps[-1])
  assert exports.steps == steps
  np.testing.assert_array_equal(exports.masks[-1], checkpoint_values.of(tmp_path)['layer/mask'])


def test_resumed_training_exports_as_an_uninterrupted_one(tmp_path):
  steps = []
  for n_iterations in (6, 4):
    exports = train_and_export(tmp_path, n_iterations, 3, save_steps=1, last_step=7)
    steps += exports.steps
  assert steps == [3, 6, 7]


def test_pauses_are_not_the_end(tmp_path):
  """As of a training that is evaluated after each 2 steps."""
  exports = Exports(tmp_path / 'export')
  hook = export.ExportModelHook(exports, str(tmp_path), 5, last_step=8)
  for max_steps in (2, 4, 6, 8):
    runner.train(
      make_loop(tmp_path, 2), runner_test.input_of(10), max_steps=max_steps, saving_listeners=[hook]
    )
  assert exports.steps == [6, 8]


def test_a_failed_export_stops_training_with_its_error(tmp_path):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'export').touch()
  with pytest.raises(OSError, match='Cannot write the exported model') as error:
    train_and_export(tmp_path / 'run', 10, 3)
  assert str(tmp_path / 'run' / 'export') in str(error.value)
  # Its checkpoint is there to go on from.
  assert checkpoints.latest_step(str(tmp_path / 'run')) == 3


@pytest.mark.parametrize('every_n_steps', [0, -1])
def test_steps_between_exports_are_positive(every_n_steps):
  with pytest.raises(ValueError, match=f'> 0, got {every_n_steps}'):
    export.ExportModelHook(str, '/tmp', every_n_steps)
