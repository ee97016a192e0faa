"""Initial masks of a training."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.compat import tf, tf2
from rigl.core import distributions, methods
from rigl.model_pruning import layers, pruning
from rigl.training import mask_init
from rigl.training.config import SparsityConfig
from tests.training import one_masked_layer

pytestmark = pytest.mark.usefixtures('graph')


def add_masks(shapes):
  for scope, (n_in, n_out) in shapes.items():
    layers.masked_fully_connected(tf.zeros([1, n_in]), n_out, scope=scope)


def config_of(method='scratch', **fields):
  return SparsityConfig(**{'training_method': method, 'end_sparsity': 0.5, **fields})


def start(scaffold):
  """Initialises as training does; returns all variables."""
  with tf.train.MonitoredSession(tf.train.ChiefSessionCreator(scaffold)) as session:
    return session.run({v.op.name: v for v in tf.global_variables()})


# --- random_masks ------------------------------------------------------------


@pytest.mark.parametrize('custom', [None, {'b': 0.0}, {'a': 0.9, 'c': 0.1}])
@pytest.mark.parametrize('method', ['random', 'erdos_renyi', 'erdos_renyi_kernel'])
def test_masks_have_the_sparsities_of_the_distribution(method, custom):
  shapes = {'a': (40, 20), 'b': (20, 12), 'c': (12, 4)}
  add_masks(shapes)
  config = config_of(mask_init_method=method, end_sparsity=0.8, erk_power_scale=0.7)
  expected = distributions.get_sparsities(shapes, method, 0.8, custom, 0.7)
  for name, mask in mask_init.random_masks(config, custom).items():
    scope = name.split('/')[0]
    assert set(np.unique(mask)) <= {0.0, 1.0}
    assert mask.size - np.count_nonzero(mask) == distributions.get_n_zeros(
      mask.size, expected[scope]
    )


def test_masks_depend_on_the_seed_alone():
  add_masks({'a': (40, 20)})
  first = mask_init.random_masks(config_of(seed=1))['a/mask']
  np.random.seed(99)
  np.testing.assert_array_equal(first, mask_init.random_masks(config_of(seed=1))['a/mask'])
  assert (first != mask_init.random_masks(config_of(seed=2))['a/mask']).any()


def test_unknown_layer_of_the_custom_map_is_named():
  add_masks({'a': (40, 20)})
  with pytest.raises(ValueError, match='no_layer'):
    mask_init.make_scaffold(config_of(), {'no_layer': 0.5})


# --- make_scaffold -----------------------------------------------------------


@pytest.mark.parametrize(
  'method', [name for name, method in methods.METHODS.items() if method.uses_masks]
)
def test_training_starts_from_the_masks_of_its_method(method):
  add_masks({'a': (40, 20), 'b': (20, 12)})
  config = config_of(method, seed=3)
  values = start(mask_init.make_scaffold(config))
  expected = mask_init.random_masks(config)
  for name in ('a/mask', 'b/mask'):
    if config.method.inits_masks:
      np.testing.assert_array_equal(values[name], expected[name])
    else:
      assert values[name].all()


def test_dense_training_has_no_masks():
  one_masked_layer.build(config_of('baseline'))
  start(mask_init.make_scaffold(config_of('baseline')))


def test_masks_are_no_part_of_the_graph():
  """As constants they would be written with every saved graph."""
  add_masks({'a': (400, 200)})
  mask_init.make_scaffold(config_of())
  assert tf.get_default_graph().as_graph_def().ByteSize() < 400 * 200


def test_one_run_of_the_session_sets_all_masks(session_runs):
  add_masks({f'layer{i}': (4, 2) for i in range(5)})
  with tf.Session() as session:
    mask_init.make_scaffold(config_of()).init_fn(session)
  assert len(session_runs) == 1


def test_masks_are_the_same_on_all_replicas():
  strategy = tf2.distribute.MirroredStrategy(['/cpu:0', '/cpu:1'])
  with strategy.scope():
    strategy.extended.call_for_each_replica(lambda: add_masks({'a': (40, 20)}))
    copies = [mask.values for mask in pruning.get_masks()]
    load_masks = mask_init.make_scaffold(config_of()).init_fn
  assert [len(masks) for masks in copies] == [2]
  expected = mask_init.random_masks(config_of())['a/mask']
  with tf.Session(config=tf.ConfigProto(device_count={'CPU': 2})) as session:
    session.run(tf.global_variables_initializer())
    load_masks(session)
    for mask in session.run(copies[0]):
      np.testing.assert_array_equal(mask, expected)


def test_resumed_training_keeps_its_masks(tmp_path, graph):
  add_masks({'a': (40, 20)})
  (mask,) = pruning.get_masks()
  moved = np.eye(40, 20, dtype=np.float32)
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    mask.load(moved, session)
    tf.train.Saver().save(session, str(tmp_path / 'model.ckpt'))
  scaffold = mask_init.make_scaffold(config_of())
  creator = tf.train.ChiefSessionCreator(scaffold, checkpoint_dir=str(tmp_path))
  with tf.train.MonitoredSession(creator) as session:
    np.testing.assert_array_equal(session.run(mask), moved)


# --- load_mask_dir -----------------------------------------------------------


def save_run(folder, shapes, seed=8):
  """A checkpoint of another run; returns (prefix, its variables)."""
  with tf.Graph().as_default(), tf.Session() as session:
    tf.set_random_seed(seed)
    add_masks(shapes)
    session.run(tf.global_variables_initializer())
    for name, value in mask_init.random_masks(config_of(seed=seed)).items():
      next(v for v in pruning.get_masks() if v.op.name == name).load(value, session)
    for variable in tf.trainable_variables():
      variable.load(np.full(variable.shape, 7.0), session)
    prefix = tf.train.Saver().save(session, str(folder / 'model.ckpt'), global_step=5)
    return prefix, one_masked_layer.variables(session)


def test_loads_the_masks_and_nothing_else(tmp_path):
  shapes = {'a': (40, 20), 'b': (20, 12)}
  prefix, other = save_run(tmp_path, shapes)
  add_masks(shapes)
  for path in (prefix, str(tmp_path)):
    values = start(mask_init.make_scaffold(config_of('rigl'), {'b': 0.0}, load_mask_dir=path))
    for name, value in values.items():
      if name.endswith('/mask'):
        np.testing.assert_array_equal(value, other[name])
        assert 0.0 < value.mean() < 1.0
      else:
        assert not (value == 7.0).any(), name


def test_masks_of_a_larger_network_are_enough(tmp_path):
  prefix, other = save_run(tmp_path, {'a': (40, 20), 'b': (20, 12)})
  add_masks({'b': (20, 12)})
  values = start(mask_init.make_scaffold(config_of(), load_mask_dir=prefix))
  np.testing.assert_array_equal(values['b/mask'], other['b/mask'])


@pytest.mark.parametrize(
  'shapes, words',
  [
    ({'a': (40, 21)}, 'a/mask is [40, 20] there and [40, 21] here'),
    ({'a': (40, 20), 'c': (5, 5)}, 'c/mask is missing there'),
  ],
)
def test_masks_of_another_network_are_refused(shapes, words, tmp_path):
  prefix, _ = save_run(tmp_path, {'a': (40, 20)})
  add_masks(shapes)
  with pytest.raises(ValueError) as error:
    mask_init.make_scaffold(config_of(), load_mask_dir=prefix)
  assert words in str(error.value) and prefix in str(error.value)


def test_no_checkpoint_to_load_masks_from(tmp_path):
  add_masks({'a': (40, 20)})
  with pytest.raises(ValueError, match='No checkpoint') as error:
    mask_init.make_scaffold(config_of(), load_mask_dir=str(tmp_path))
  assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
  'method', [name for name, method in methods.METHODS.items() if not method.inits_masks]
)
def test_loading_masks_means_nothing_to_a_method_that_makes_its_own(method, tmp_path):
  prefix, _ = save_run(tmp_path, {'a': (40, 20)})
  add_masks({'a': (40, 20)})
  with pytest.raises(ValueError, match='load_mask_dir') as error:
    mask_init.make_scaffold(config_of(method), load_mask_dir=prefix)
  assert method in str(error.value) and prefix in str(error.value)


# --- initial_sparsities ------------------------------------------------------


def test_sparsities_that_training_starts_with():
  add_masks({'a': (40, 20), 'b': (20, 12)})
  assert mask_init.initial_sparsities(config_of(), {'b': 0.25}) == {'a': 0.5, 'b': 0.25}


def test_sparsities_of_loaded_masks(tmp_path):
  add_masks({'a': (2, 2)})
  with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    pruning.get_masks()[0].load([[1.0, 0.0], [0.0, 0.0]], session)
    prefix = tf.train.Saver().save(session, str(tmp_path / 'model'))
  assert mask_init.initial_sparsities(config_of(), load_mask_dir=prefix) == {'a': 0.75}
