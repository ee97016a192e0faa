"""Tests of rigl.model_pruning.pruning, gradual magnitude pruning."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from rigl.compat import tf
from rigl.model_pruning import layers, mask_collections, pruning
from tests import sparse_net

GOLDENS = pathlib.Path(__file__).parents[1] / 'goldens'
SMALL_LAYER = json.loads((GOLDENS / 'gradual_pruning.json').read_text())['small_layer']
WEIGHTS = np.asarray(SMALL_LAYER['weights'], np.float32)

pytestmark = pytest.mark.usefixtures('graph')


def parsed(text):
  return pruning.get_pruning_hparams().parse(text)


def _layer(scope, weights=WEIGHTS, dtype=tf.float32, mask_dtype=None):
  sparse_net.add_layer(
    scope,
    np.asarray(weights, dtype.as_numpy_dtype),
    mask_dtype=mask_dtype and mask_dtype.as_numpy_dtype,
  )


class _Run:
  """A session that sets the global step and runs the conditional update."""

  def __init__(self, hparams):
    self.step = tf.train.get_or_create_global_step()
    self.pruning = pruning.Pruning(hparams, self.step)
    self._update = self.pruning.conditional_mask_update_op()
    self.session = tf.Session()
    self.session.run(tf.global_variables_initializer())

  def at(self, step):
    self.step.load(step, self.session)
    self.session.run(self._update)

  def value(self, name):
    return self.session.run(next(v for v in tf.global_variables() if v.op.name == name))

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.session.close()


@pytest.mark.parametrize('case', SMALL_LAYER['cases'])
def test_a_small_layer_is_pruned_as_by_the_reference(case):
  hparams = parsed(
    'begin_pruning_step=2,end_pruning_step=12,target_sparsity=0.8,'
    'pruning_frequency=3,sparsity_function_begin_step=2,'
    'sparsity_function_end_step=12,'
    f'threshold_decay={case["threshold_decay"]},'
    f'weight_sparsity_map=[{",".join(case["weight_sparsity_map"])}]'
  )
  _layer('l')
  with _Run(hparams) as run:
    for values in case['rows']:
      row = dict(zip(case['columns'], values))
      run.at(row['global_step'])
      np.testing.assert_allclose(
        run.session.run(run.pruning.sparsity), row['sparsity'], rtol=1e-5, atol=1e-7
      )
      assert run.value('l/mask').sum() == row['n_ones'], row
      np.testing.assert_allclose(run.value('l/threshold'), row['threshold'], rtol=1e-6)
      assert run.value('model_pruning/last_mask_update_step') == row['last_mask_update_step']
    np.testing.assert_array_equal(run.value('l/mask'), case['final_mask'])
    np.testing.assert_array_equal(run.value('l/weights'), WEIGHTS)


SCHEDULE = (
  'begin_pruning_step=0,pruning_frequency=2,target_sparsity=0.5,'
  'sparsity_function_end_step=4,sparsity_function_exponent=1'
)


def test_counts_by_hand():
  """10 weights: linear to 50 %, so 25 % at step 2, and for ever on."""
  _layer('l', np.arange(1.0, 11.0))
  with _Run(parsed(SCHEDULE)) as run:
    counts = []
    for step in range(8):
      run.at(step)
      counts.append(int(run.value('l/mask').sum()))
    # 7.5 of 10 weights rounds to the even 8.
    assert counts == [10, 10, 8, 8, 5, 5, 5, 5]
    np.testing.assert_array_equal(run.value('l/mask'), [0] * 5 + [1] * 5)
    assert run.value('l/threshold') == 6.0
    # Weights that have grown meanwhile come back at the next update.
    with tf.variable_scope('', reuse=True):
      tf.get_variable('l/weights').load(np.arange(10.0, 0.0, -1.0).astype('f'), run.session)
    run.at(9)
    np.testing.assert_array_equal(run.value('l/mask'), [1] * 5 + [0] * 5)


def test_masks_rest_after_the_end():
  _layer('l', np.arange(1.0, 11.0))
  with _Run(parsed(SCHEDULE + ',end_pruning_step=3')) as run:
    for step in range(8):
      run.at(step)
    assert run.value('l/mask').sum() == 8
    assert run.value('model_pruning/last_mask_update_step') == 2


def test_magnitude_decides_and_the_sign_does_not():
  _layer('l', [-4.0, 3.0, -2.0, 1.0])
  with _Run(parsed(SCHEDULE)) as run:
    run.at(4)
    assert run.value('l/mask').tolist() == [1.0, 1.0, 0.0, 0.0]


def test_one_weight_is_always_left():
  _layer('l', [3.0, 1.0, 2.0])
  with _Run(parsed(SCHEDULE.replace('0.5', '0.99'))) as run:
    run.at(4)
    assert run.value('l/mask').tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize('dtype', [tf.float32, tf.bfloat16, tf.float64])
@pytest.mark.parametrize('mask_dtype', [tf.float32, tf.bfloat16])
def test_masks_and_thresholds_keep_their_types(dtype, mask_dtype):
  _layer('l', [-4.0, 3.0, -2.0, 1.0], dtype, mask_dtype)
  with _Run(parsed(SCHEDULE)) as run:
    run.at(4)
    mask, threshold = run.value('l/mask'), run.value('l/threshold')
  assert mask.dtype == mask_dtype.as_numpy_dtype
  assert threshold.dtype == dtype.as_numpy_dtype
  assert mask.astype(int).tolist() == [1, 1, 0, 0]
  assert float(threshold) == 3.0


def test_the_map_scales_the_schedule_of_the_layers_it_finds():
  """As the MNIST script: layer2 at 0.9 of the target, layer3 dense."""
  for i in (1, 2, 3):
    _layer(f'layer{i}', np.arange(1.0, 101.0))
  with _Run(parsed(SCHEDULE + ',weight_sparsity_map=[layer2:0.45,layer3:0]')) as run:
    run.at(2)
    assert [run.value(f'layer{i}/mask').sum() for i in (1, 2, 3)] == [75, 78, 100]
    run.at(4)
    assert [run.value(f'layer{i}/mask').sum() for i in (1, 2, 3)] == [50, 55, 100]
    assert run.session.run(run.pruning.sparsity) == 0.5


def test_keys_of_the_map_are_regular_expressions():
  for scope in ('block1/conv', 'block2/conv', 'head'):
    _layer(scope, np.arange(1.0, 11.0))
  with _Run(parsed(SCHEDULE + ',weight_sparsity_map=[block./conv/w:0.2]')) as run:
    run.at(4)
    assert [
      run.value(f'{scope}/mask').sum() for scope in ('block1/conv', 'block2/conv', 'head')
    ] == [8, 8, 5]


def test_two_entries_for_one_layer_are_an_error():
  _layer('block1/conv')
  hparams = parsed(SCHEDULE + ',weight_sparsity_map=[block:0.2,conv:0.3]')
  with pytest.raises(ValueError, match='block1/conv/weights.*conv:0.3'):
    pruning.Pruning(hparams).conditional_mask_update_op()


def test_a_map_needs_a_target():
  with pytest.raises(ValueError, match='target_sparsity'):
    parsed('target_sparsity=0,weight_sparsity_map=[l:0.2]')
  _layer('l', np.arange(1.0, 11.0))
  with _Run(parsed('target_sparsity=0,weight_sparsity_map=[l:0]')) as run:
    run.at(100)
    assert run.value('l/mask').all()


def test_patterns_that_match_no_layer_are_an_error():
  _layer('layer1')
  _layer('layer2')
  hparams = parsed(SCHEDULE + ',weight_sparsity_map=[layer1:0.2,lyer2:0.3]')
  with pytest.raises(ValueError, match="'lyer2'.*layer1/weights.*layer2/wei"):
    pruning.Pruning(hparams).conditional_mask_update_op()


@pytest.mark.parametrize('step, mask', [(0, [1.0, 1.0, 1.0, 1.0]), (4, [0.0, 0.0, 1.0, 1.0])])
def test_nan_does_not_spoil_the_other_weights(step, mask):
  """It counts as the smallest."""
  _layer('l', [1.0, np.nan, 3.0, 4.0])
  step_variable = tf.train.get_or_create_global_step()
  update = pruning.Pruning(parsed(SCHEDULE), step_variable).mask_update_op()
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    step_variable.load(step, session)
    session.run(update)
    np.testing.assert_array_equal(session.run(pruning.get_masks()[0]), mask)


def test_variables():
  _layer('l')
  names = {v.op.name for v in tf.global_variables()}
  pruning.Pruning()
  new = {v.op.name: v for v in tf.global_variables() if v.op.name not in names}
  assert set(new) == {'model_pruning/last_mask_update_step', 'global_step'}
  assert new['model_pruning/last_mask_update_step'].dtype.base_dtype == tf.int32
  assert not [v for v in tf.trainable_variables() if v.op.name in new]
  pruning.Pruning(parsed('name=other'))
  assert tf.global_variables()[-1].op.name == 'other/last_mask_update_step'


def test_unconditional_update():
  _layer('l', np.arange(1.0, 11.0))
  step = tf.train.get_or_create_global_step()
  update = pruning.Pruning(parsed(SCHEDULE), step).mask_update_op()
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    step.load(3, session)
    session.run(update)
    # 37.5 % of 10 weights: 6.25 are left, rounded.
    assert session.run(pruning.get_masks()[0]).sum() == 6


@pytest.mark.parametrize('given', ['weights', 'mask', 'threshold'])
def test_any_layer_is_pruned_whatever_its_maker_gave(given):
  """apply_mask makes the mask and the threshold that it is not given."""
  with tf.variable_scope('l'):
    weights = tf.get_variable('kernel', initializer=np.arange(1.0, 9.0))
    mask, threshold = (
      tf.get_variable(name, shape, tf.float64, initializer, trainable=False)
      if given in givers
      else None
      for name, shape, initializer, givers in (
        ('mask', [8], tf.ones_initializer(), ('mask', 'threshold')),
        ('threshold', [], tf.zeros_initializer(), ('threshold',)),
      )
    )
  pruning.apply_mask(weights, mask, threshold)
  assert {v.op.name for v in tf.global_variables()} == {'l/kernel', 'l/mask', 'l/threshold'}
  with _Run(parsed(SCHEDULE)) as run:
    run.at(4)
    # 50 % of 8 weights are left, the smallest of which is 5.
    assert run.value('l/mask').tolist() == [0.0] * 4 + [1.0] * 4
    assert run.value('l/threshold') == 5.0


def test_pruning_a_network_while_it_trains():
  """The update runs after the gradient step and keeps what is largest."""
  outputs = layers.masked_fully_connected(tf.ones([2, 8]), 5, activation_fn=None, scope='fc')
  step = tf.train.get_or_create_global_step()
  train = tf.train.GradientDescentOptimizer(0.1).minimize(
    tf.reduce_mean(tf.square(outputs - tf.range(5.0))), step
  )
  with tf.control_dependencies([train]):
    train = pruning.Pruning(parsed(SCHEDULE), step).conditional_mask_update_op()
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    sparsities = []
    for iteration in range(1, 7):
      session.run(train)
      mask, weights, sparsity = session.run(
        [pruning.get_masks()[0], pruning.get_weights()[0], pruning.get_weight_sparsity()[0]]
      )
      sparsities.append(round(float(sparsity), 4))
      if iteration % 2 == 0:
        assert np.abs(weights[mask == 1]).min() > np.abs(weights[mask == 0]).max()
  assert sparsities == [0.0, 0.25, 0.25, 0.5, 0.5, 0.5]


# --- Hyperparameters ---------------------------------------------------------


def test_defaults():
  hparams = pruning.get_pruning_hparams()
  assert hparams == pruning.PruningHParams()
  assert (hparams.begin_pruning_step, hparams.end_pruning_step) == (0, -1)
  assert hparams.weight_sparsity_map == ()
  assert hparams.sparsity_function_exponent == 3.0


def test_parse_sets_every_field_in_its_type():
  hparams = parsed(
    'name=mine,begin_pruning_step=1,end_pruning_step=-1,'
    'weight_sparsity_map=[a/b:0.5,c:0],threshold_decay=.25,'
    'pruning_frequency=7,initial_sparsity=0.1,target_sparsity=9e-1,'
    'sparsity_function_begin_step=2,sparsity_function_end_step=30,'
    'sparsity_function_exponent=2'
  )
  assert hparams == pruning.PruningHParams(
    'mine', 1, -1, ('a/b:0.5', 'c:0'), 0.25, 7, 0.1, 0.9, 2, 30, 2.0
  )
  assert isinstance(hparams.sparsity_function_exponent, float)
  assert hparams.sparsity_by_pattern() == {'a/b': 0.5, 'c': 0.0}


def test_parse_changes_in_place():
  """As in tf.contrib, whose users need not take what it returns."""
  hparams = pruning.get_pruning_hparams()
  assert hparams.parse('target_sparsity=0.9') is hparams
  assert hparams.target_sparsity == 0.9
  assert pruning.get_pruning_hparams().target_sparsity == 0.5


@pytest.mark.parametrize(
  'text',
  [
    'target_sparsity=0.9,foo=1',
    'target_sparsity=0.9,pruning_frequency=0',
    'target_sparsity=0.9,begin_pruning_step=9,end_pruning_step=8',
  ],
)
def test_what_cannot_be_parsed_changes_nothing(text):
  hparams = pruning.get_pruning_hparams()
  with pytest.raises(ValueError):
    hparams.parse(text)
  assert hparams == pruning.PruningHParams()


# As the scripts of 2020 set them: in this order the beginning of the schedule
# lies behind its end for a while.
IN_TURNS = {
  'name': 'mine',
  'begin_pruning_step': 2000,
  'end_pruning_step': 30000,
  'weight_sparsity_map': ['a/b:0.5', r'c\d:0'],
  'threshold_decay': 0.25,
  'pruning_frequency': 500,
  'initial_sparsity': 0,
  'target_sparsity': 0.98,
  'sparsity_function_begin_step': 2000,
  'sparsity_function_end_step': 30000,
  'sparsity_function_exponent': 2,
}


def test_hparams_are_set_in_place_one_after_the_other():
  hparams = pruning.get_pruning_hparams()
  for name, value in IN_TURNS.items():
    assert hparams.set_hparam(name, value) is None
  assert hparams == pruning.PruningHParams(**IN_TURNS)
  values = dataclasses.asdict(hparams)
  assert values == {**IN_TURNS, 'weight_sparsity_map': ('a/b:0.5', r'c\d:0')}
  assert type(values['sparsity_function_exponent']) is float
  assert type(values['initial_sparsity']) is float
  hparams.set_hparam('pruning_frequency', np.int64(3))
  assert type(hparams.pruning_frequency) is int


@pytest.mark.parametrize(
  'name, value, words',
  [
    ('target_sparsity', 1.0, 'target_sparsity must be in'),
    ('target_sparsity', float('nan'), 'target_sparsity must be in'),
    ('target_sparsity', '0.5', "a number, got '0.5'"),
    ('initial_sparsity', -0.1, 'initial_sparsity must be in'),
    ('threshold_decay', 1, 'threshold_decay must be in'),
    ('sparsity_function_exponent', None, 'a number, got None'),
    ('pruning_frequency', 0, 'pruning_frequency must be > 0'),
    ('pruning_frequency', 2.5, 'an integer, got 2.5'),
    ('end_pruning_step', '9', "an integer, got '9'"),
    ('name', 3, 'name must be a text'),
    ('weight_sparsity_map', 'a:0.5', 'a list of texts'),
    ('weight_sparsity_map', [0.5], 'a list of texts'),
    ('weight_sparsity_map', [r'c\d:2'], r"entry 'c\d:2' needs"),
    ('nbins', 256, "'nbins'; known: name, begin_pruning_step"),
    ('parse', 1, "'parse'; known: name"),
  ],
)
def test_values_that_cannot_be_are_not_set(name, value, words):
  hparams = pruning.get_pruning_hparams()
  with pytest.raises(ValueError) as error:
    hparams.set_hparam(name, value)
  assert words in str(error.value)
  assert hparams == pruning.PruningHParams()
  with pytest.raises((TypeError if 'known' in words else ValueError)):
    pruning.PruningHParams(**{name: value})


@pytest.mark.parametrize(
  'values, words',
  [
    ({'sparsity_function_begin_step': 100}, 'sparsity_function_end_step'),
    ({'begin_pruning_step': 9, 'end_pruning_step': 8}, 'end_pruning_step'),
    ({'target_sparsity': 0, 'weight_sparsity_map': ['a:.5']}, 'needs a target_sparsity'),
  ],
)
def test_values_that_do_not_fit_each_other_cannot_be_used(values, words):
  hparams = pruning.get_pruning_hparams()
  for name, value in values.items():
    hparams.set_hparam(name, value)
  with pytest.raises(ValueError, match=words):
    pruning.Pruning(hparams)


def test_a_pruning_keeps_the_values_that_it_began_with():
  hparams = parsed('target_sparsity=0.8,sparsity_function_end_step=10')
  made = pruning.Pruning(hparams)
  hparams.set_hparam('target_sparsity', 0.1)
  _layer('layer')
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    tf.train.get_global_step().load(10, session)
    session.run(made.mask_update_op())
    [sparsity] = session.run(pruning.get_weight_sparsity())
  assert sparsity == pytest.approx(0.8, abs=0.5 / WEIGHTS.size)


@pytest.mark.parametrize('text', ['', '  '])
def test_nothing_to_parse(text):
  assert parsed(text) == pruning.get_pruning_hparams()


@pytest.mark.parametrize(
  'text',
  ['target_sparsity = 0.9', ' target_sparsity=0.9 , pruning_frequency=10', 'target_sparsity=0.9,'],
)
def test_spaces_and_a_last_comma_are_allowed(text):
  assert parsed(text) == parsed('target_sparsity=0.9')


@pytest.mark.parametrize(
  'value, expected',
  [
    ('[]', ()),
    ('[a:0.5]', ('a:0.5',)),
    ('a:0.5', ('a:0.5',)),
    ('[a:0.5, b:0.1]', ('a:0.5', 'b:0.1')),
    ('[a:b:0.5]', ('a:b:0.5',)),
  ],
)
def test_weight_sparsity_map(value, expected):
  hparams = parsed(f'weight_sparsity_map={value},pruning_frequency=3')
  assert tuple(filter(None, hparams.weight_sparsity_map)) == expected
  assert hparams.pruning_frequency == 3


@pytest.mark.parametrize(
  'text',
  [
    'sparsity=0.9',
    'target_sparsity=0.9,foo=1',
    'Target_sparsity=0.9',
    'parse=1',
    '__doc__=1',
    'sparsity_by_pattern=2',
  ],
)
def test_unknown_names_are_rejected_with_the_known_ones(text):
  name = text.split(',')[-1].split('=')[0]
  with pytest.raises(ValueError, match=f"'{name}'.*target_sparsity"):
    parsed(text)


@pytest.mark.parametrize(
  'text, kind',
  [
    ('pruning_frequency=1.5', 'int'),
    ('pruning_frequency=', 'int'),
    ('begin_pruning_step=soon', 'int'),
    ('end_pruning_step=None', 'int'),
    ('target_sparsity=high', 'float'),
    ('threshold_decay=', 'float'),
    ('target_sparsity=[0.5]', 'float'),
    ('target_sparsity=0.9;a=1', 'float'),
  ],
)
def test_values_of_the_wrong_type_are_rejected(text, kind):
  with pytest.raises(ValueError, match=f'{text.split("=")[0]}=.*type {kind}'):
    parsed(text)


@pytest.mark.parametrize(
  'text',
  [
    'garbage',
    'target_sparsity',
    'target_sparsity:0.9',
    '=0.9',
    ',',
    '=',
    'target_sparsity=0.9,garbage',
    'garbage,target_sparsity=0.9',
    'target_sparsity=0.9 pruning_frequency',
    'target_sparsity 0.9',
    'weight_sparsity_map=[a:0.5',
    'weight_sparsity_map=[a:0.5]b',
  ],
)
def test_malformed_text_is_rejected(text):
  with pytest.raises(ValueError):
    parsed(text)


@pytest.mark.parametrize(
  'entry', ['a', 'a:', ':0.5', 'a:b', 'a:1.0', 'a:-0.1', 'a:nan', '(:0.5', 'a:0.5:']
)
def test_malformed_entries_of_the_map_are_rejected(entry):
  with pytest.raises(ValueError) as error:
    parsed(f'weight_sparsity_map=[ok:0.5,{entry}]')
  assert repr(entry) in str(error.value)


@pytest.mark.parametrize('name', ['target_sparsity', 'initial_sparsity', 'threshold_decay'])
@pytest.mark.parametrize('value', ['1.0', '-0.1', '2', 'nan'])
def test_fractions_out_of_range_are_rejected(name, value):
  with pytest.raises(ValueError, match=rf'{name} must be in \[0, 1\)'):
    parsed(f'{name}={value}')


@pytest.mark.parametrize(
  'text, message',
  [
    ('pruning_frequency=0', 'pruning_frequency must be > 0, got 0'),
    ('pruning_frequency=-1', 'pruning_frequency must be > 0, got -1'),
    (
      'begin_pruning_step=5,end_pruning_step=4',
      r'end_pruning_step \(4\).*begin_pruning_step \(5\)',
    ),
    ('sparsity_function_end_step=0', r'function_end_step \(0\).*function_begin_step \(0\)'),
    ('sparsity_function_begin_step=100', r'function_end_step \(100\).*function_begin_step \(100\)'),
  ],
)
def test_bad_schedules_are_rejected_by_the_names_that_were_given(text, message):
  with pytest.raises(ValueError, match=message):
    parsed(text)


def test_steps_are_integers():
  with pytest.raises(ValueError, match='end_pruning_step.*integer, got 7.5'):
    pruning.PruningHParams(end_pruning_step=7.5)


def test_wrong_values_are_shown_as_given():
  with pytest.raises(ValueError, match=r"target_sparsity='\[0.5\]'"):
    parsed('target_sparsity=[0.5]')


def test_a_pattern_may_stand_once():
  with pytest.raises(ValueError, match="'a:0.9' is the second for 'a'"):
    parsed('weight_sparsity_map=[a:0.2,b:0.3,a:0.9]')


def test_the_getters_are_re_exported():
  for name in (
    'apply_mask',
    'get_masks',
    'get_masked_weights',
    'get_weights',
    'get_thresholds',
    'get_weight_sparsity',
    'masked_layers',
  ):
    assert getattr(pruning, name) is getattr(mask_collections, name)
