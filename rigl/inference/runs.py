"""Rebuilds the network of a run of the MNIST or the CIFAR script.

The ImageNet script exports its network itself. These two write checkpoints,
whose variables determine the network.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from typing import Any

from rigl import checkpoint_files
from rigl.cifar_resnet import cifar_data, resnet_model
from rigl.compat import tf2
from rigl.core import layer_names
from rigl.inference import saved_models
from rigl.training import export

_MNIST_LAYERS = ('layer1', 'layer2', 'layer3')
_WEIGHTS, _BIASES = ('weights', 'kernel'), ('biases', 'bias')


def concrete_function(folder: str) -> Any:
  """The network of the newest checkpoint of a run, see `sources`.

  Raises:
    ValueError: the checkpoint is of another network; names a remedy.
  """
  prefix = checkpoint_files.resolve(folder)
  reader = checkpoint_files.open_checkpoint(prefix)
  shapes = reader.get_variable_to_shape_map()
  if _MNIST_LAYERS == tuple(sorted({name.split('/')[0] for name in shapes} & set(_MNIST_LAYERS))):
    return _mnist(prefix)
  if _weights_of(shapes, 'conv_1') and _weights_of(shapes, 'logits'):
    return _cifar(prefix, shapes)
  raise ValueError(
    f'{prefix} is a checkpoint of neither the MNIST nor the CIFAR script, '
    'and the folder has no export. The ImageNet script exports with '
    '--export_model_freq; give export the SavedModel in its folder.'
  )


def _mnist(prefix: str) -> Any:
  """A fully connected network with ReLU."""
  _, values = checkpoint_files.read_network(prefix)
  layers = []
  for layer in _MNIST_LAYERS:
    pair = []
    for leaves in (_WEIGHTS, _BIASES):
      found = [
        values[name] for leaf in leaves if (name := layer_names.variable_of(layer, leaf)) in values
      ]
      if len(found) != 1:
        raise ValueError(f'{prefix} has no {layer}/{leaves[0]}.')
      pair += found
    layers.append(pair)

  def network(pixels):
    outputs = pixels
    for layer, (weights, biases) in zip(_MNIST_LAYERS, layers):
      with tf2.name_scope(layer):
        outputs = tf2.matmul(outputs, weights) + biases
        if layer != _MNIST_LAYERS[-1]:
          outputs = tf2.nn.relu(outputs)
    return outputs

  spec = tf2.TensorSpec([1, len(layers[0][0])], tf2.float32, name='pixels')
  return tf2.function(network, autograph=False).get_concrete_function(spec)


def _weights_of(shapes: Mapping[str, Any], layer: str) -> str:
  """The name of the weights of a layer, masked or not; '' if missing."""
  scope = f'{resnet_model.SCOPE}/{layer}'
  names = (f'{scope}/weights', f'{scope}/{layer}/weights')
  return next((name for name in names if name in shapes), '')


def _cifar(prefix: str, shapes: Mapping[str, Any]) -> Any:
  """The WideResNet, via a temporary SavedModel."""
  n_blocks = 0
  while _weights_of(shapes, f'conv_2_{n_blocks}_1'):
    n_blocks += 1
  depth = 6 * n_blocks + 4
  width = shapes[_weights_of(shapes, 'conv_2_0_1')][3] // 16
  network = resnet_model.WideResNetModel(
    is_training=False, **resnet_model.masked_as(checkpoint_files.masked_layers(prefix))
  )
  build = functools.partial(
    network.build, depth=depth, width=width, num_classes=shapes[_weights_of(shapes, 'logits')][1]
  )
  with tempfile.TemporaryDirectory() as folder:
    path = export.export_saved_model(build, prefix, folder, image_shape=cifar_data.IMAGE_SHAPE)
    return saved_models.concrete_function(path)
