"""Tests of rigl.core.distributions and rigl.str_sparsities."""

import hashlib
import json
import math
import pathlib
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from rigl import str_sparsities
from rigl.core import distributions

GOLDENS = pathlib.Path(__file__).parents[1] / 'goldens'
REFERENCE = json.loads((GOLDENS / 'sparsities.json').read_text())
MNIST_MASKS = json.loads((GOLDENS / 'mnist_initial_masks.json').read_text())
NETWORKS = [name for name, entry in REFERENCE.items() if 'cases' in entry]

# Where the 2020 implementation failed with a division by zero, what its user
# meant is clear: custom layers keep their value, sparsity 0 is dense.
ZERO_DIVISION_CASES = {
  'all layers custom': [0.5, 0.7],
  'single layer whose rounding pushes the probability just above 1': [0.0],
  'same, erdos_renyi': [0.0],
  'two layers, rounding at sparsity 0': [0.0, 0.0],
}


def _network_cases():
  for network in NETWORKS:
    entry = REFERENCE[network]
    shapes = dict(zip(entry['layers'], entry['shapes']))
    for case in entry['cases']:
      power = case.get('erk_power_scale', 1.0)
      name = '-'.join(
        [
          network,
          case['method'],
          str(case['default_sparsity']),
          str(len(case['custom_sparsity_map'])),
          f'power{power}',
        ]
      )
      yield pytest.param(shapes, case, id=name)


def _edge_cases():
  for case in REFERENCE['edge_cases']:
    shapes = dict(zip(case['layers'], case['shapes']))
    yield pytest.param(shapes, case, id=f'{case["name"]}-{case["method"]}')


def _get_sparsities(shapes, case):
  return distributions.get_sparsities(
    shapes,
    case['method'],
    case['default_sparsity'],
    case['custom_sparsity_map'],
    case.get('erk_power_scale', 1.0),
  )


def _total_zeros(shapes, sparsities):
  return sum(
    distributions.get_n_zeros(math.prod(shape), sparsities[name]) for name, shape in shapes.items()
  )


@pytest.mark.parametrize('shapes, case', list(_network_cases()))
def test_networks_equal_the_reference(shapes, case):
  sparsities = _get_sparsities(shapes, case)

  assert list(sparsities) == list(shapes)
  if 'sparsity' in case:
    expected = case['sparsity']
  else:
    expected = [
      case['custom_sparsity_map'].get(name, case['sparsity_all_layers_equal_except_custom'])
      for name in shapes
    ]
  np.testing.assert_allclose(list(sparsities.values()), expected, rtol=0, atol=1e-12)
  assert _total_zeros(shapes, sparsities) == case['zeros_total']


@pytest.mark.parametrize('shapes, case', list(_edge_cases()))
def test_edge_cases_equal_the_reference(shapes, case):
  if case.get('error', '').startswith('ValueError'):
    with pytest.raises(ValueError):
      _get_sparsities(shapes, case)
    return
  expected = case.get('sparsity') or ZERO_DIVISION_CASES[case['name']]
  sparsities = _get_sparsities(shapes, case)
  np.testing.assert_allclose(list(sparsities.values()), expected, rtol=0, atol=1e-12)
  if 'zeros_total' in case:
    assert _total_zeros(shapes, sparsities) == case['zeros_total']


def test_reference_data_is_complete():
  assert len(NETWORKS) == 6
  assert sum(len(REFERENCE[name]['cases']) for name in NETWORKS) == 152
  assert len(REFERENCE['edge_cases']) == 38


@pytest.mark.parametrize(
  'network, method', [key.split() for key in REFERENCE['default_sparsity_0']]
)
def test_sparsity_zero_is_dense(network, method):
  entry = REFERENCE[network]
  shapes = dict(zip(entry['layers'], entry['shapes']))
  sparsities = distributions.get_sparsities(shapes, method, 0.0)
  assert set(sparsities.values()) == {0.0}


@pytest.mark.parametrize('size, sparsity, n_zeros', REFERENCE['get_n_zeros']['size_sparsity_zeros'])
def test_n_zeros(size, sparsity, n_zeros):
  assert distributions.get_n_zeros(size, sparsity) == n_zeros


class TestErdosRenyi:
  def test_by_hand(self):
    # p: 20/100 = 0.2 and 40/400 = 0.1; weights to keep 50 + 200 = 250;
    # eps = 250 / (0.2 * 100 + 0.1 * 400) = 250 / 60, densities 5/6 and 5/12.
    sparsities = distributions.erdos_renyi({'a': (10, 10), 'b': (20, 20)}, 0.5)
    assert sparsities['a'] == pytest.approx(1 / 6, abs=1e-15)
    assert sparsities['b'] == pytest.approx(7 / 12, abs=1e-15)

  def test_kernel_variant_by_hand(self):
    # p: (3+3+2+4)/72 = 1/6 and (1+1+6+12)/72 = 5/18; to keep 18 + 18 = 36;
    # eps = 36 / (12 + 20), densities 3/16 and 5/16.
    shapes = {'a': (3, 3, 2, 4), 'b': (1, 1, 6, 12)}
    sparsities = distributions.erdos_renyi(shapes, 0.75, include_kernel=True)
    assert sparsities['a'] == pytest.approx(13 / 16, abs=1e-15)
    assert sparsities['b'] == pytest.approx(11 / 16, abs=1e-15)

  def test_higher_power_moves_weights_to_the_small_layer(self):
    shapes = {'small': (3, 3, 64, 64), 'large': (3, 3, 512, 512)}
    densities = [
      1 - distributions.erdos_renyi(shapes, 0.95, include_kernel=True, power_scale=power)['small']
      for power in (0.0, 0.25, 0.5, 1.0)
    ]
    assert densities == sorted(set(densities))

  def test_one_dimensional_layer_may_be_custom(self):
    shapes = {'bias': (7,), 'fc': (30, 30)}
    sparsities = distributions.erdos_renyi(shapes, 0.8, {'bias': 0.0})
    assert sparsities == {'bias': 0.0, 'fc': pytest.approx(0.8)}

  @pytest.mark.parametrize('shape', [(), (7,), (0, 5)])
  def test_impossible_shape_is_named(self, shape):
    with pytest.raises(ValueError, match="Layer 'odd' of shape"):
      distributions.erdos_renyi({'odd': shape, 'fc': (3, 3)}, 0.5)

  @pytest.mark.parametrize('power', [1e6, -1e6, math.inf, math.nan])
  def test_power_without_finite_densities(self, power):
    shapes = {'a': (1, 1), 'b': (20, 20)}
    with pytest.raises(ValueError, match='power scale'):
      distributions.erdos_renyi(shapes, 0.5, include_kernel=True, power_scale=power)

  @pytest.mark.parametrize('method', ['erdos_renyi', 'erdos_renyi_kernel'])
  def test_sparsity_zero_is_exactly_dense(self, method):
    # eps * p rounds to 0.9999999999999999 here.
    shapes = {'conv': (3, 8, 8), 'fc': (4, 3)}
    assert set(distributions.get_sparsities(shapes, method, 0.0).values()) == {0.0}

  def test_no_layers(self):
    for method in distributions.DISTRIBUTIONS[:-1]:
      assert distributions.get_sparsities({}, method, 0.5) == {}


_shapes = st.dictionaries(
  st.text('abc', min_size=1, max_size=4),
  st.lists(st.integers(1, 40), min_size=2, max_size=4).map(tuple),
  min_size=1,
  max_size=8,
)


@hypothesis.settings(max_examples=200)
@hypothesis.given(
  shapes=_shapes,
  sparsity=st.floats(0.0, 1.0),
  method=st.sampled_from(['erdos_renyi', 'erdos_renyi_kernel']),
  power=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
  custom_value=st.sampled_from([None, 0.0, 0.3]),
)
def test_invariants(shapes, sparsity, method, power, custom_value):
  custom = {}
  if custom_value is not None:
    custom = {min(shapes): custom_value}
  result = distributions.get_sparsities(shapes, method, sparsity, custom, power)

  assert list(result) == list(shapes)
  assert all(0.0 <= value <= 1.0 for value in result.values())
  assert all(result[name] == value for name, value in custom.items())
  free = {name: shape for name, shape in shapes.items() if name not in custom}
  kept = sum(math.prod(free[name]) * (1 - result[name]) for name in free)
  uniform = sum(
    math.prod(shape) - distributions.get_n_zeros(math.prod(shape), sparsity)
    for shape in free.values()
  )
  assert kept == pytest.approx(uniform, abs=1e-6)
  # Flooring removes less than one zero per layer.
  realised = sum(
    math.prod(free[name]) - distributions.get_n_zeros(math.prod(free[name]), result[name])
    for name in free
  )
  assert -1e-6 <= realised - uniform <= len(free)


@hypothesis.settings(max_examples=100)
@hypothesis.given(shapes=_shapes, low=st.floats(0.0, 1.0), high=st.floats(0.0, 1.0))
def test_no_layer_gets_denser_when_the_network_gets_sparser(shapes, low, high):
  low, high = sorted((low, high))
  size = min(math.prod(shape) for shape in shapes.values())
  # Below one weight of the smallest layer the floors decide, not the equation.
  hypothesis.assume(high - low > 1 / size)
  for method in ('random', 'erdos_renyi', 'erdos_renyi_kernel'):
    loose = distributions.get_sparsities(shapes, method, low)
    tight = distributions.get_sparsities(shapes, method, high)
    assert all(loose[name] <= tight[name] + 1e-12 for name in shapes)


class TestStr:
  reference = REFERENCE['str_resnet50']

  @pytest.mark.parametrize('overall', reference['table'])
  def test_table(self, overall):
    shapes = dict.fromkeys(self.reference['layers'], (1, 1))
    sparsities = distributions.str_published(shapes, float(overall))
    assert list(sparsities.values()) == self.reference['table'][overall]

  def test_keys_and_layer_names(self):
    assert list(str_sparsities.read_table()) == self.reference['keys']
    assert list(str_sparsities.LAYER_NAMES) == self.reference['layers']

  @pytest.mark.parametrize('overall', reference['table'])
  def test_overall_sparsity_follows_from_the_table(self, overall):
    resnet = REFERENCE['resnet50_all_layers']
    shapes = dict(zip(resnet['layers'], resnet['shapes']))
    sparsities = distributions.get_sparsities(shapes, 'str', float(overall))
    total = sum(math.prod(shape) for shape in shapes.values())
    assert (
      _total_zeros(shapes, sparsities) / total
      == self.reference['overall_from_floor_counts'][overall]
    )

  @pytest.mark.parametrize('typed', [0.9805, 0.9879, np.float32(0.9805)])
  def test_the_decimal_a_user_types_is_found(self, typed):
    name = str_sparsities.LAYER_NAMES[0]
    key = str_sparsities.find_overall_sparsity(typed)
    sparsities = distributions.str_published({name: (7, 7, 3, 64)}, typed)
    assert sparsities[name] == self.reference['table'][str(key)][0]

  def test_unpublished_sparsity_lists_the_options(self):
    with pytest.raises(ValueError, match=r'0\.5\. Choose one of: 0\.7955, '):
      distributions.str_published({}, 0.5)

  def test_other_network_is_refused_by_layer_name(self):
    shapes = {'resnet_model/skip_conv_2': (1, 1, 16, 64)}
    with pytest.raises(ValueError, match='resnet_model/skip_conv_2'):
      distributions.str_published(shapes, 0.9023)

  def test_custom_map_replaces_the_table(self):
    first, second = str_sparsities.LAYER_NAMES[:2]
    shapes = {first: (7, 7, 3, 64), second: (1, 1, 64, 256), 'mine': (3, 3)}
    sparsities = distributions.str_published(shapes, 0.9023, {first: 0.0, 'mine': 0.25})
    assert sparsities == {first: 0.0, second: 0.8334, 'mine': 0.25}


SMALL = {'a': (4, 5), 'b': (5, 6)}


class TestErrors:
  def test_unknown_method_lists_the_options(self):
    with pytest.raises(ValueError, match="'erdos'.* erdos_renyi_kernel"):
      distributions.get_sparsities(SMALL, 'erdos', 0.5)

  @pytest.mark.parametrize('method', distributions.DISTRIBUTIONS)
  def test_unknown_custom_key_is_named_with_the_known_ones(self, method):
    with pytest.raises(ValueError, match=r"\['nope'\].*\['a', 'b'\]"):
      distributions.get_sparsities(SMALL, method, 0.5, {'nope': 0.5})

  @pytest.mark.parametrize('method', distributions.DISTRIBUTIONS)
  @pytest.mark.parametrize('value', [-0.1, 1.1, math.nan])
  def test_sparsity_out_of_range(self, method, value):
    with pytest.raises(ValueError, match=f'got {value}'):
      distributions.get_sparsities(SMALL, method, value)
    with pytest.raises(ValueError, match=f"'b' must.* got {value}"):
      distributions.get_sparsities(SMALL, method, 0.5, {'b': value})


class TestRandomMask:
  @pytest.mark.parametrize('run', MNIST_MASKS['runs'], ids=lambda run: f'seed{run["seed"]}')
  def test_equals_the_reference_masks(self, run):
    shapes = {'layer1': (784, 300), 'layer2': (300, 100), 'layer3': (100, 10)}
    sparsities = distributions.get_sparsities(
      shapes, 'random', 0.98, {'layer2': 0.98 * 0.9, 'layer3': 0.0}
    )
    random_state = np.random.RandomState(run['seed'])
    for name, shape in shapes.items():
      mask = distributions.random_mask(shape, sparsities[name], random_state)
      expected = run['masks'][name]
      assert mask.shape == shape
      assert mask.sum() == expected['n_ones']
      digest = hashlib.sha256(mask.astype(np.uint8).tobytes()).hexdigest()
      assert digest == expected['sha256_of_uint8_bytes_C_order']
      assert np.flatnonzero(mask)[:8].tolist() == expected['first_8_flat_positions_of_ones']

  @pytest.mark.parametrize('shape', [(), (3,), (30, 4), (1, 2, 1, 4)])
  @pytest.mark.parametrize('sparsity', [0.0, 0.1, 0.5, 0.99, 1.0])
  def test_exact_number_of_zeros(self, shape, sparsity):
    mask = distributions.random_mask(shape, sparsity, np.random.RandomState(7))
    assert mask.dtype == np.float32
    assert mask.shape == shape
    assert set(np.unique(mask)) <= {0.0, 1.0}
    assert (mask == 0).sum() == distributions.get_n_zeros(mask.size, sparsity)

  def test_draws_differ_and_the_generator_is_the_given_one(self):
    global_state = np.random.get_state()[1].tolist()
    random_state = np.random.RandomState(0)
    first, second = (distributions.random_mask((40, 40), 0.5, random_state) for _ in range(2))
    assert (first != second).any()
    assert np.random.get_state()[1].tolist() == global_state

  def test_impossible_sparsity(self):
    with pytest.raises(ValueError, match=r'in \[0, 1\], got 1.5'):
      distributions.random_mask((3,), 1.5, np.random.RandomState(0))


def test_importing_does_not_load_tensorflow():
  code = 'import sys; from rigl.core import distributions; sys.exit("tensorflow" in sys.modules)'
  subprocess.run([sys.executable, '-c', code], check=True)
