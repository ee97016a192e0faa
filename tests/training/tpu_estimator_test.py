"""The arguments of TPUEstimator; runner_test.py tests its behaviour."""

from __future__ import annotations

import json
import os
import types

import pytest

from rigl.compat import tf, tf2
from rigl.training import runner, specs, tpu, tpu_estimator
from tests.training import runner_test


class _BrokenWhenUsed(types.ModuleType):
  """Like the lazily loaded module when tensorflow_estimator is missing."""

  def __getattr__(self, name):
    raise ModuleNotFoundError("No module named 'tensorflow_estimator'")


@pytest.mark.parametrize('attributes', [{}, {'estimator': _BrokenWhenUsed('estimator')}])
def test_a_tensorflow_without_it(attributes, monkeypatch):
  monkeypatch.setattr(tpu_estimator, 'tf', types.SimpleNamespace(**attributes))
  assert not tpu_estimator.is_available()


needs_estimator = pytest.mark.skipif(
  not tpu_estimator.is_available(), reason='TensorFlow 2.16 removed Estimator'
)


def job(folder, save_steps=50):
  return specs.Job(
    lambda features, labels, mode: None,
    str(folder),
    seed=3,
    save_steps=save_steps,
    keep_checkpoint_max=0,
  )


def tpu_loop(folder):
  resolver = tf2.distribute.cluster_resolver.SimpleClusterResolver(
    tf.train.ClusterSpec({}), master='grpc://10.0.0.1:8470'
  )
  return runner.make_loop(
    job(folder), tpu=tpu.TpuSetup(resolver, 32, 48, 16, 100, 'workers', (3, 0))
  )


@needs_estimator
def test_it_gets_the_topology_of_a_tpu(tmp_path):
  config = tpu_loop(tmp_path).estimator.config
  assert config.master == 'grpc://10.0.0.1:8470'
  assert config.save_checkpoints_steps == 50
  options = config.tpu_config
  assert (options.iterations_per_loop, options.num_shards, options.tpu_job_name) == (
    100,
    16,
    'workers',
  )


@needs_estimator
def test_an_input_on_a_tpu_knows_its_host(tmp_path, monkeypatch):
  loop = tpu_loop(tmp_path)
  asked = []
  context = types.SimpleNamespace(current_input_fn_deployment=lambda: (None, 2, 4, 8))
  monkeypatch.setattr(
    loop.estimator,
    'train',
    lambda input_fn, **arguments: input_fn({'batch_size': 8, 'context': context}),
  )
  loop.train(lambda *host: asked.append(host), 1, [], [])
  assert asked == [(2, 4)]


@needs_estimator
def test_a_tf_config_of_one_process_is_kept_from_it(tmp_path, monkeypatch):
  """An Estimator would require a chief."""
  text = json.dumps({'cluster': {'worker': ['a:1']}, 'task': {'type': 'worker', 'index': 0}})
  monkeypatch.setenv('TF_CONFIG', text)
  config = runner.make_loop(job(tmp_path), 'tpu_estimator').estimator.config
  assert config.is_chief
  assert 'TF_CONFIG' not in os.environ


@needs_estimator
def test_nan_does_not_make_it_abort(tmp_path):
  """stop_at_nan.NotFiniteHook reports the step instead."""

  def model_fn(features, labels, mode):
    step = tf.train.get_or_create_global_step()
    return specs.TrainSpec(tf.constant(float('nan')), step.assign_add(1).op)

  nan_job = specs.Job(model_fn, str(tmp_path), 0, 3, 0)
  runner.train(runner.make_loop(nan_job, 'tpu_estimator'), runner_test.input_of(3), max_steps=3)
  assert (tmp_path / 'model.ckpt-3.index').exists()
