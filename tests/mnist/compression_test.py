"""What remains of a sparse network without its unconnected units."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.mnist import compression

# A 4-3-3-2 network. Input 3 has no connection. Hidden unit (1, 1) has inputs
# but no outputs; unit (1, 2) and input 2 lead only to (2, 2), which leads
# nowhere: both lose their last connection only once it is gone. Unit (2, 1) has
# outputs but no inputs.
CHAIN = [
  np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]]),
  np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1]]),
  np.array([[1, 0], [1, 1], [0, 0]]),
]


def test_hand_computed_chain_of_removals():
  sparsities, sizes = compression.get_compressed_fc(CHAIN)
  # Left: inputs 0 and 1 -> unit (1, 0) -> unit (2, 0) -> outputs 0 (and 1).
  assert sizes == [2, 1, 1, 2]
  assert sparsities == [0.0, 0.0, 0.5]
  kept = compression.connected_units(CHAIN)
  assert [units.tolist() for units in kept] == [
    [True, True, False, False],
    [True, False, False],
    [True, False, False],
    [True, True],
  ]


def test_hand_computed_bytes():
  # 4 weights and 1 + 1 + 2 biases of 4 bytes; 2, 1 and 2 bits of mask.
  assert compression.compressed_size_bytes(CHAIN) == 4 * 4 + 4 * 4 + 1 + 1 + 1


def test_dense_network_is_not_touched():
  masks = [np.ones((784, 300)), np.ones((300, 100)), np.ones((100, 10))]
  assert compression.get_compressed_fc(masks) == ([0.0, 0.0, 0.0], [784, 300, 100, 10])
  n_weights = 784 * 300 + 300 * 100 + 100 * 10
  expected = 4 * (n_weights + 410) + n_weights // 8
  assert compression.compressed_size_bytes(masks) == expected


def test_outputs_are_never_dropped():
  mask = np.zeros((5, 3))
  mask[0, 1] = 1
  sparsities, sizes = compression.get_compressed_fc([mask])
  assert sizes == [1, 3]
  assert sparsities == pytest.approx([2 / 3])


def test_network_cut_in_two_keeps_only_its_outputs():
  masks = [np.ones((4, 3)), np.zeros((3, 2)), np.ones((2, 5))]
  sparsities, sizes = compression.get_compressed_fc(masks)
  assert sizes == [0, 0, 0, 5]
  assert sparsities == [1.0, 1.0, 1.0]
  assert compression.compressed_size_bytes(masks) == 4 * 5


def test_published_sizes_in_bytes():
  """Table 2 of https://arxiv.org/abs/1911.11134, rows RigL and RigL+."""
  rows = [((408, 100, 69, 10), 0.870, 31914), ((375, 62, 51, 10), 0.886, 16113)]
  for sizes, sparsity, published in rows:
    shapes = list(zip(sizes[:-1], sizes[1:]))
    n_active = round((1 - sparsity) * sum(a * b for a, b in shapes))
    # The first layer takes what the others, here dense or half dense, leave.
    masks = [np.zeros(shape) for shape in shapes]
    masks[2][:] = 1
    masks[1].flat[::2] = 1
    rest = n_active - int(masks[1].sum() + masks[2].sum())
    rows_, columns = np.indices(shapes[0])
    order = np.argsort((columns - rows_) % shapes[0][1], axis=None, kind='stable')
    masks[0].flat[order[:rest]] = 1
    assert compression.get_compressed_fc(masks)[1] == list(sizes)
    # The sparsity is printed with three digits: half a thousandth of the
    # weights, 4 bytes each, is not known.
    slack = 4 * 0.0005 * sum(a * b for a, b in shapes)
    size = compression.compressed_size_bytes(masks)
    assert size == pytest.approx(published, abs=slack)


def random_masks(random_state, sizes, density):
  return [
    (random_state.rand(n_in, n_out) < density).astype(np.float32)
    for n_in, n_out in zip(sizes[:-1], sizes[1:])
  ]


def drop_until_nothing_changes(masks):
  """The definition, literally: one unit after the other is struck out."""
  masks = [mask.copy() for mask in masks]
  kept = [np.ones(mask.shape[0], bool) for mask in masks]
  changed = True
  while changed:
    changed = False
    for layer, mask in enumerate(masks):
      for unit in np.flatnonzero(kept[layer]):
        has_inputs = layer == 0 or masks[layer - 1][:, unit].any()
        if not (has_inputs and mask[unit].any()):
          kept[layer][unit] = False
          mask[unit] = 0
          if layer > 0:
            masks[layer - 1][:, unit] = 0
          changed = True
  return kept


SIZES = [(6, 4), (9, 5, 3), (7, 7, 7, 7), (20, 12, 8, 6, 4)]
DENSITIES = [0.05, 0.1, 0.2, 0.4, 0.9]


@pytest.mark.parametrize('sizes', SIZES)
@pytest.mark.parametrize('density', DENSITIES)
def test_equals_the_literal_definition(sizes, density):
  random_state = np.random.RandomState(3)
  for _ in range(20):
    masks = random_masks(random_state, sizes, density)
    kept = compression.connected_units(masks)
    for units, expected in zip(kept, drop_until_nothing_changes(masks)):
      np.testing.assert_array_equal(units, expected)
    assert kept[-1].all()


def forward(weights, biases, inputs):
  """Returns the activations of every layer of a ReLU network."""
  activations = [inputs]
  for index, (weight, bias) in enumerate(zip(weights, biases)):
    outputs = activations[-1] @ weight + bias
    is_last = index == len(weights) - 1
    activations.append(outputs if is_last else np.maximum(outputs, 0))
  return activations


@pytest.mark.parametrize('sizes', SIZES)
@pytest.mark.parametrize('density', DENSITIES)
def test_dropping_does_not_change_what_the_network_computes(sizes, density):
  random_state = np.random.RandomState(4)
  masks = random_masks(random_state, sizes, density)
  weights = [mask * random_state.randn(*mask.shape) for mask in masks]
  biases = [random_state.randn(mask.shape[1]) for mask in masks]
  inputs = random_state.randn(30, sizes[0])
  activations = forward(weights, biases, inputs)
  kept = compression.connected_units(masks)

  small_weights, small_biases = [], []
  for layer, weight in enumerate(weights):
    dropped, columns = ~kept[layer], kept[layer + 1]
    folded = biases[layer].copy()
    # Of what is dropped, only neurons that no input reaches still act on those
    # that stay, with a constant; a dropped input that acted would break this.
    acting = dropped & weight[:, columns].any(axis=1)
    assert not acting.any() or layer > 0
    constants = activations[layer][:, acting]
    np.testing.assert_array_equal(constants, constants[:1].repeat(30, axis=0))
    folded += constants[0] @ weight[acting]
    small_weights.append(weight[np.ix_(kept[layer], columns)])
    small_biases.append(folded[columns])
  small = forward(small_weights, small_biases, inputs[:, kept[0]])
  np.testing.assert_allclose(small[-1], activations[-1], atol=1e-12)


@pytest.mark.parametrize('dtype', [np.float32, np.uint8, np.int64, bool])
def test_masks_are_not_changed_and_any_type_will_do(dtype):
  masks = [mask.astype(dtype) for mask in CHAIN]
  copies = [mask.copy() for mask in masks]
  assert compression.get_compressed_fc(masks)[1] == [2, 1, 1, 2]
  compression.compressed_size_bytes(masks)
  assert len(masks) == 3
  for mask, copy in zip(masks, copies):
    assert mask.dtype == dtype
    np.testing.assert_array_equal(mask, copy)


def test_compressing_twice_changes_nothing():
  masks = random_masks(np.random.RandomState(0), (40, 30, 20, 10), 0.05)
  once = compression.compress_masks(masks)
  assert once[0].shape != masks[0].shape
  for mask, again in zip(once, compression.compress_masks(once)):
    np.testing.assert_array_equal(mask, again)


@pytest.mark.parametrize(
  'masks, message',
  [
    ([], 'at least one layer'),
    ([np.ones((3, 3, 3, 3))], r'layer 0 .*\[n_in, n_out\].*\(3, 3, 3, 3\)'),
    ([np.ones((4, 3)), np.ones((2, 5))], 'layer 1 has 2 rows.*3 neurons'),
    ([np.array([[1.0, 0.5]])], 'layer 0 to hold only 0 and 1, found 0.5'),
    ([np.array([[1.0, np.nan]])], 'only 0 and 1, found nan'),
  ],
)
def test_bad_masks(masks, message):
  for function in (
    compression.get_compressed_fc,
    compression.compressed_size_bytes,
    compression.compress_masks,
    compression.connected_units,
  ):
    with pytest.raises(ValueError, match=message):
      function(masks)
