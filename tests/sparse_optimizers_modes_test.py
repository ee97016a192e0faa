"""The same masks in all modes, processes and after a resume."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from rigl.compat import tf, tf2
from tests import combinations, mask_trajectories, sparse_net

ROOT = pathlib.Path(__file__).parents[1]
LAYERS = {
  'a': sparse_net.LayerSpec((6, 5)),
  'b': sparse_net.LayerSpec((3, 3, 2, 4), tf.bfloat16, tf.float32),
}
HYPER = {
  'begin_step': 0,
  'end_step': 30,
  'frequency': 3,
  'drop_fraction': 0.5,
  'drop_fraction_anneal': 'cosine',
}
ONE_SHOT = {'default_sparsity': 0.6, 'mask_init_method': 'erdos_renyi_kernel'}


def _net(method, **changes):
  return sparse_net.SparseNet(
    LAYERS, 'momentum', method, sparse_net.hyper_of(method, HYPER, ONE_SHOT), **changes
  )


# --- Processes and control flow ----------------------------------------------

HASH_SEED = '2' if os.environ.get('PYTHONHASHSEED') == '1' else '1'


@pytest.fixture(scope='module')
def worker_reports():
  """What another process reports of itself, before and after it disables v2 behaviour."""
  output = subprocess.run(
    [sys.executable, '-m', 'tests.mask_trajectories'],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    env={**os.environ, 'PYTHONHASHSEED': HASH_SEED},
    check=True,
  ).stdout
  return json.loads(output)


def test_the_reports_differ_in_what_they_should(worker_reports):
  assert worker_reports[0]['hash'] != hash('a')
  assert [r['control_flow_v2'] for r in worker_reports] == [True, False]
  assert [r['resource_variables'] for r in worker_reports] == [True, False]


digests = functools.cache(mask_trajectories.digests)


@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_processes_agree_to_the_last_bit(worker_reports, method):
  """Masks of every step and final weights."""
  assert digests(method, 0) == worker_reports[0]['digests'][method]


@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_masks_do_not_depend_on_control_flow_or_kind_of_variable(worker_reports, method):
  """Weights may: TensorFlow optimises the two kinds of graph differently."""
  first, second = [report['digests'][method]['masks'] for report in worker_reports]
  assert first == second


def test_digests_tell_methods_and_seeds_apart():
  found = [digests('set', 0), digests('set', 1), digests('rigl', 0)]
  for part in ('masks', 'weights'):
    assert len({d[part] for d in found}) == 3


# --- Graph, function and XLA -------------------------------------------------


def _in_modes(build):
  """{mode: an op or tensor that runs `build()` in that mode}."""

  def returning():
    with tf.control_dependencies([build()]):
      return tf.constant(0)

  return {
    'graph': build(),
    'function': tf2.function(returning, autograph=False)(),
    'xla': tf.xla.experimental.compile(returning),
  }


# core/methods_test runs the updates of all methods in all modes.
@pytest.mark.parametrize('method', combinations.quick(sparse_net.DYNAMIC_METHODS, 'momentum'))
def test_generic_mask_update_is_the_same_in_all_modes(method):
  """Weights and slots too: nothing here is computed, only chosen."""
  with _net(method, train=False) as net, net.graph.as_default():
    # Makes the slots; the wrapper then only updates masks.
    net.inner.minimize(net.loss, tf.train.get_or_create_global_step())
    net.optimizer.compute_gradients(net.loss)
    ops = _in_modes(
      lambda: tf.group(
        *[
          net.optimizer.generic_mask_update(mask, weights)
          for mask, weights in zip(net.optimizer.get_masks(), net.optimizer.get_weights())
        ]
      )
    )
    net.initialize()
    rng = np.random.RandomState(1)
    start = {
      key: value if key.endswith('/mask') else np.asarray(rng.randn(*value.shape), value.dtype)
      for key, value in net.state().items()
      if key != 'global_step'
    }
    # Exactly equal active weights leave the choice to the noise.
    start['a/weights'][:4] = 0.0
    gradients = net.random_gradients(rng)
    results = {}
    for mode, op in ops.items():
      net.load({**start, 'global_step': 7})
      net.run(op, gradients)
      results[mode] = net.state()
  expected = results.pop('graph')
  for name in LAYERS:
    moved = (expected[f'{name}/mask'] != start[f'{name}/mask']).any()
    assert moved == (method != 'static')
  for mode, result in results.items():
    for key, value in expected.items():
      assert result[key].tobytes() == value.tobytes(), (mode, key)


def _close(got, expected):
  tolerance = 1e-5 if expected.dtype == np.float32 else 2e-2
  return np.allclose(got.astype('f'), expected.astype('f'), tolerance, tolerance)


@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_a_training_run_is_the_same_in_all_modes(method):
  """Masks equal at every step; XLA may round trained weights differently."""
  with _net(method) as net, _net(method, train=False) as function, _net(method, train=False) as xla:
    ops = {}
    for other in (function, xla):
      with other.graph.as_default(), tf.variable_scope(tf.get_variable_scope(), use_resource=True):

        def train(other=other):
          with tf.control_dependencies([other.optimizer.minimize(other.loss, other.global_step)]):
            return tf.constant(0)

        ops[other] = (
          tf.xla.experimental.compile(train)
          if other is xla
          else tf2.function(train, autograph=False)()
        )
        other.initialize()
      assert set(other.variables) == set(net.variables)
      other.load(net.state())
    rng = np.random.RandomState(1)
    for _ in range(8):
      gradients = net.random_gradients(rng)
      net.step(gradients)
      expected = net.state()
      for other, op in ops.items():
        other.run(op, gradients)
        got = other.state()
        for key, value in expected.items():
          if other is function or key.endswith('/mask') or value.dtype.kind in 'bi':
            assert got[key].tobytes() == value.tobytes(), key
          else:
            assert _close(got[key], value), key


# --- Resuming ----------------------------------------------------------------


@pytest.mark.parametrize('method', sparse_net.METHODS)
def test_a_resumed_run_equals_an_uninterrupted_one(method, tmp_path):
  """Interrupted early and late, restored in a graph of its own."""

  def make_net():
    return sparse_net.SparseNet(
      LAYERS,
      'adam',
      method,
      sparse_net.hyper_of(method, {**HYPER, 'grow_init': 'random_normal_2'}, ONE_SHOT),
    )

  prefixes = {}
  with make_net() as net, net.graph.as_default():
    rng = np.random.RandomState(1)
    gradients = [net.random_gradients(rng) for _ in range(14)]
    saver = tf.train.Saver()
    for i, step_gradients in enumerate(gradients):
      if i in (1, 7):
        prefixes[i] = saver.save(net.session, str(tmp_path / 'model'), i)
      net.step(step_gradients)
    uninterrupted = net.state()

  with make_net() as net, net.graph.as_default():
    saver = tf.train.Saver()
    for i, prefix in prefixes.items():
      saver.restore(net.session, prefix)
      for step_gradients in gradients[i:]:
        net.step(step_gradients)
      resumed = net.state()
      assert set(resumed) == set(uninterrupted)
      for key, value in uninterrupted.items():
        assert resumed[key].tobytes() == value.tobytes(), (i, key)
