"""Tests of rigl.core.layer_names."""

import pytest

from rigl.core import layer_names


@pytest.mark.parametrize(
  'layer, name', [('', 'mask'), ('a', 'a/mask'), ('a/b', 'a/b/mask'), ('mask', 'mask/mask')]
)
def test_names_of_masks(layer, name):
  assert layer_names.mask_of(layer) == name
  for given in (name, f'{name}:0', f'{name}:12'):
    assert layer_names.layer_of_mask(given) == layer


@pytest.mark.parametrize(
  'name',
  [
    '',
    'a',
    'a/my_mask',
    'a/mask_1',
    'a/mask/weights',
    'a/mask:',
    'a/mask:x',
    'amask:0',
    'a/mask\n',
  ],
)
def test_other_names(name):
  assert layer_names.layer_of_mask(name) is None


def test_names_of_other_variables():
  assert layer_names.variable_of('a/b', 'weights') == 'a/b/weights'
  assert layer_names.variable_of('', 'weights') == 'weights'


@pytest.mark.parametrize(
  'name, masked, layer',
  [
    ('net/conv/weights', ['net/conv'], 'net/conv'),
    ('net/conv/conv/weights', [], 'net/conv'),
    ('conv/conv/weights', [], 'conv'),
    ('conv/conv/weights', ['conv/conv'], 'conv/conv'),
    ('my_conv/conv/weights', [], 'my_conv/conv'),
    ('net/conv/depthwise_weights', [], 'net/conv'),
    ('net/dense/kernel', [], 'net/dense'),
    ('weights', [], ''),
    ('net/conv/weights/Momentum', [], None),
    ('net/conv/biases', [], None),
    ('net/my_weights', [], None),
    ('', [], None),
  ],
)
def test_layers_of_weights(name, masked, layer):
  assert layer_names.layer_of_weights(name, masked) == layer
