"""Two checkpoints of the 2020 implementation, and its results on them.

tests/goldens/checkpoints/<network>.tar.xz has the files of TensorFlow 1.15.5 as
they are, with all variables of a training (random weights under masks of 80 %
and plausible batch-norm statistics), images, labels, the logits of evaluation
and, in info.json, the hyperparameters and the loss.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import tarfile
from typing import Any, Callable

import numpy as np
import pytest

from rigl import checkpoint_files
from rigl.cifar_resnet import cifar_config, cifar_experiment
from rigl.compat import tf
from rigl.imagenet_resnet import imagenet_config, imagenet_experiment, imagenet_model
from rigl.training import checkpoints, iterations, runner, specs
from rigl.training.config import SparsityConfig
from tests import networks, quick_sessions

SPARSITY = SparsityConfig(training_method='rigl')
WRN = cifar_config.CifarConfig(resnet_depth=10, resnet_width=1)
MOBILENET = imagenet_config.ImageNetConfig(
  model_architecture='mobilenet_v2', width=0.25, num_label_classes=10, image_size=64
)


@dataclasses.dataclass(frozen=True)
class Case:
  """How a checkpoint is read by the script of its network.

  Attributes:
    images: name of the file with the images that the model_fn takes.
    build_logits: images -> logits of evaluation.
    model_fn: (features, labels, mode, folder of the training) -> the spec of an
      Estimator, as the script has it.
    metrics: {metric of evaluation: where info.json has it}.
  """

  images: str
  build_logits: Callable[[Any], Any]
  model_fn: Callable[[Any, Any, str, str], Any]
  metrics: dict[str, str]


CASES = {
  'wrn_10_1': Case(
    'input_images.npy',
    lambda images: cifar_experiment.build_model(
      'eval', images, tf.zeros([8], tf.int32), 'rigl', depth=10, width=1
    )[-1],
    lambda features, labels, mode, folder: cifar_experiment.CifarExperiment(
      SPARSITY, WRN, cifar_config.RunSettings(), folder
    ).model_fn(features, labels, mode),
    {'loss': 'total_loss_with_l2_5e-4', 'accuracy': 'accuracy', 'top_5_accuracy': 'top5'},
  ),
  'mobilenet_v2_w025': Case(
    'input_images_0_255_uint8.npy',
    lambda images: imagenet_model.build_logits(images, MOBILENET),
    lambda features, labels, mode, folder: imagenet_experiment.ImageNetExperiment(
      SPARSITY, MOBILENET, imagenet_config.RunSettings(), folder
    ).model_fn(features, labels, mode),
    {'loss': 'eval_loss_label_smoothing_0.1_plus_l2_1e-4'},
  ),
}


@pytest.fixture(scope='module', params=CASES)
def network(request):
  return request.param


@pytest.fixture(scope='module')
def folder(network, tmp_path_factory):
  """The unpacked files of a network."""
  target = tmp_path_factory.mktemp(network)
  archive = networks.GOLDENS / 'checkpoints' / f'{network}.tar.xz'
  with tarfile.open(archive) as files:
    for file in files:
      (target / file.name).write_bytes(files.extractfile(file).read())
  return target


@pytest.fixture(scope='module')
def prefix(folder):
  return checkpoint_files.resolve(str(folder))


def load(folder: pathlib.Path, name: str) -> np.ndarray:
  return np.load(folder / name, allow_pickle=False)


def test_variables_of_training_are_those_of_the_checkpoint(network, folder, prefix):
  """All variables have the same shapes, slots too: training can resume."""
  with tf.Graph().as_default():
    images = tf.constant(load(folder, CASES[network].images))
    labels = tf.constant(load(folder, 'labels.npy'))
    CASES[network].model_fn(images, labels, 'train', str(folder))
    variables = tf.global_variables()
    here = checkpoints.names_and_shapes(v for v in variables if v.op.name != iterations.NAME)
    there = checkpoint_files.open_checkpoint(prefix).get_variable_to_shape_map()
    assert here == {name: tuple(shape) for name, shape in there.items()}
    assert checkpoints.check_resumable(str(folder), variables) == prefix


def test_logits(network, folder, prefix):
  with tf.Graph().as_default(), tf.Session(config=quick_sessions.unoptimized()) as session:
    logits = CASES[network].build_logits(tf.constant(load(folder, CASES[network].images)))
    # Reads nothing unless all shapes match the graph.
    values = checkpoints.read_values(prefix, tf.global_variables())
    checkpoints.assign(session, [(v, values[v.op.name]) for v in tf.global_variables()])
    actual = session.run(logits)
  expected = load(folder, 'logits.npy')
  assert actual.shape == expected.shape
  np.testing.assert_allclose(actual, expected, rtol=0.0, atol=2e-5 * np.abs(expected).max())


def test_evaluation(network, folder, prefix):
  """Evaluates like eval_once; loss and accuracies are those of 2020."""
  case = CASES[network]
  images, labels = load(folder, case.images), load(folder, 'labels.npy')

  def input_fn():
    return tf.data.Dataset.from_tensors((images, labels))

  loop = runner.make_loop(
    specs.Job(
      lambda features, labels, mode: case.model_fn(features, labels, mode, str(folder)),
      str(folder),
      seed=0,
      save_steps=None,
      keep_checkpoint_max=0,
    )
  )
  metrics = runner.evaluate(loop, input_fn, prefix)
  info = json.loads((folder / 'info.json').read_text())
  assert metrics['global_step'] == 1234
  for name, key in case.metrics.items():
    assert metrics[name] == pytest.approx(info[key], rel=1e-5), name
