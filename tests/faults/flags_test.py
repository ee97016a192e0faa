"""Every flag of every script: what it refuses, and that it says so at once.

A flag that is in neither table fails the test.
"""

from __future__ import annotations

import contextlib
import dataclasses

import pytest
from absl import flags

from rigl.cifar_resnet import cifar_data
from rigl.cifar_resnet import resnet_train_eval as cifar_script
from rigl.core import methods
from rigl.imagenet_resnet import imagenet_data
from rigl.imagenet_resnet import imagenet_train_eval as imagenet_script
from rigl.mnist import mnist_data
from rigl.mnist import mnist_train_eval as mnist_script
from rigl.training import runner, tpu_estimator
from rigl.training.config import INNER_OPTIMIZERS, LOOPS, SparsityConfig
from tests import script_flags

FLAGS = flags.FLAGS
SCRIPTS = {'mnist': mnist_script, 'cifar': cifar_script, 'imagenet': imagenet_script}


class Only(tuple):
  """All words that an error must hold."""

  def __new__(cls, *words):
    return super().__new__(cls, words)


NO_ESTIMATOR = () if tpu_estimator.is_available() else Only('use_tpu needs TPUEstimator')
RIGL = {'training_method': 'rigl'}
PRUNE = {'training_method': 'prune'}
FRACTIONS = (-0.1, 1.0, 'nan')
NOT_POSITIVE = (0, -1)
BAD_REALS = (-0.1, 'nan', 'inf')
BAD_FOLDERS = ('/tmp/a[1]', '/tmp/a*b', '/tmp/a?b')

# {flag: [(bad value, other flags it needs, words of the error)]}. An error must
# also hold the flag and the value, but where the words are Only.
REFUSED = {
  'base_learning_rate': [(v, {}, []) for v in (0.0, *BAD_REALS)],
  'batch_size': [(v, {}, []) for v in NOT_POSITIVE],
  'checkpoint_epochs': [(0, {}, [])],
  'checkpoint_steps': [(v, {}, []) for v in NOT_POSITIVE],
  'data_format': [('NHWC', {}, ['channels_last', 'channels_first'])],
  'drop_fraction': [(v, RIGL, []) for v in (-0.1, 1.5, 'nan')],
  'drop_fraction_anneal': [
    ('linear', RIGL, ['constant', 'cosine', 'exponential']),
    ('exponential_', RIGL, []),
    ('cosine', {**RIGL, 'maskupdate_end_step': -1}, ['constant']),
  ],
  'end_sparsity': [(v, RIGL, []) for v in (*FRACTIONS, 1.5)],
  'erk_power_scale': [(v, RIGL, []) for v in BAD_REALS],
  'eval_batch_size': [(v, {}, []) for v in NOT_POSITIVE],
  'eval_once_ckpt_prefix': [('no/model.ckpt-7', {'mode': 'eval_once'}, Only('no/model.ckpt-7'))],
  'expansion_factor': [(v, {'model_architecture': 'mobilenet_v2'}, []) for v in (0.5, 'nan')],
  'export_model_freq': [(-1, {}, [])],
  'first_layer_sparsity': [(v, {}, []) for v in (-0.5, 1.0, 'nan')],
  'gin_bindings': [
    ('SparsityConfig.no_such_field = 1', {}, Only('no_such_field')),
    ('NoConfig.end_sparsity = 1', {}, Only('NoConfig', 'SparsityConfig')),
    ('SparsityConfig.end_sparsity = 2', {}, Only('end_sparsity', '2')),
    ('SparsityConfig.end_sparsity =', {}, []),
  ],
  'gin_config': [('/no/such.gin', {}, Only('/no/such.gin'))],
  'grow_init': [
    ('ones', RIGL, ['zeros', 'grad_scale']),
    ('random_normal_0', RIGL, []),
    ('grad_sign', {'training_method': 'set'}, ['zeros']),
  ],
  'image_size': [(v, {}, []) for v in NOT_POSITIVE],
  'init_method': [('xavier', {}, ['baseline', 'sparse', 'random_zeros'])],
  'initial_value_checkpoint': [('/no/such/checkpoint', {}, [])],
  'input_mask_path': [('/no/such/checkpoint', {}, [])],
  'iterations_per_loop': [(0, {}, [])],
  'keep_checkpoint_max': [(-1, {}, [])],
  'l2': [(v, {}, []) for v in BAD_REALS],
  'l2_scale': [(v, {}, []) for v in BAD_REALS],
  'label_smoothing': [(v, {}, []) for v in FRACTIONS],
  'last_layer_sparsity': [(v, {}, []) for v in (-0.5, 1.0, 'nan')],
  'learning_rate': [(v, {}, []) for v in (0.0, *BAD_REALS)],
  'load_mask_dir': [
    ('/no/such/checkpoint', RIGL, []),
    ('/no', {'training_method': 'dnw'}, ['dnw']),
  ],
  'loop': [('keras', {}, LOOPS), ('tpu_estimator', {'num_replicas': 2}, ['session'])],
  'lr_drop_epoch': [(v, {}, []) for v in NOT_POSITIVE],
  'mask_init_method': [('erk', RIGL, ['random', 'erdos_renyi_kernel', 'str'])],
  'mask_record_frequency': [(-1, {}, [])],
  'maskupdate_begin_step': [(-1, RIGL, []), (20, {**RIGL, 'maskupdate_end_step': 10}, ['10'])],
  'maskupdate_end_step': [(5, {**RIGL, 'maskupdate_begin_step': 9}, ['9'])],
  'maskupdate_frequency': [(v, RIGL, []) for v in NOT_POSITIVE],
  'max_steps': [(v, {}, []) for v in NOT_POSITIVE],
  'mode': [('test', {}, ['train', 'eval'])],
  'model_architecture': [('alexnet', {}, ['resnet', 'mobilenet_v1'])],
  'momentum': [(v, {}, []) for v in FRACTIONS],
  'network_type': [('conv', {}, ['fc'])],
  'num_classes': [(v, {}, []) for v in (*NOT_POSITIVE, 9)],
  'num_cores': [(0, {}, []), (7, {'use_tpu': True}, ['train_batch_size'])],
  'num_epochs': [(-1, {}, [])],
  'num_eval_images': [(v, {}, []) for v in NOT_POSITIVE],
  'num_label_classes': [(v, {}, []) for v in NOT_POSITIVE],
  'num_parallel_calls': [(0, {}, [])],
  'num_replicas': [(v, {}, []) for v in NOT_POSITIVE],
  'num_train_images': [*((v, {}, []) for v in NOT_POSITIVE), (9, {'train_batch_size': 10}, ['10'])],
  'optimizer': [('lion', {}, INNER_OPTIMIZERS)],
  'output_dir': [(path, {}, []) for path in BAD_FOLDERS],
  'precision': [('float16', {}, ['float32', 'bfloat16'])],
  'prune_begin_step': [(-1, {}, []), (9, {**PRUNE, 'prune_end_step': 9}, [])],
  'prune_end_step': [(5, {**PRUNE, 'prune_begin_step': 9}, ['9'])],
  'pruning_begin_step': [(-1, {}, [])],
  'pruning_end_step': [(5, {**PRUNE, 'pruning_begin_step': 9}, ['9'])],
  'pruning_frequency': [(v, {}, []) for v in NOT_POSITIVE],
  'pruning_hparams': [
    ('no_such_name=1', {}, Only("'no_such_name'", 'target_sparsity')),
    ('rubbish', {}, Only("'rubbish'", 'name=value')),
    ('begin_pruning_step=x', {}, Only("begin_pruning_step='x'", 'int')),
  ],
  'resnet_depth': [(11, {}, [])],
  'resnet_width': [(v, {}, []) for v in NOT_POSITIVE],
  'rigl_acc_scale': [(v, RIGL, []) for v in ('nan', 'inf')],
  's_momentum': [(v, {}, []) for v in FRACTIONS],
  'save_path': [(path, {}, []) for path in BAD_FOLDERS],
  'seed': [(v, {}, []) for v in (-1, 2**32)],
  'sgdr_decay_step': [(v, {}, []) for v in (0.0, *BAD_REALS)],
  'sgdr_m_mul': [(v, {}, []) for v in (0.0, *BAD_REALS)],
  'sgdr_t_mul': [(v, {}, []) for v in (0.0, *BAD_REALS)],
  'sparsity_begin_step': [(-1, {}, []), (9, {**PRUNE, 'sparsity_end_step': 9}, [])],
  'sparsity_end_step': [(5, {**PRUNE, 'sparsity_begin_step': 9}, ['9'])],
  'sparsity_scale': [(v, {}, []) for v in BAD_REALS],
  'steps_per_checkpoint': [(0, {}, [])],
  'steps_per_eval': [(0, {}, [])],
  'steps_per_summary': [(0, {}, [])],
  'summaries_steps': [(0, {}, [])],
  'threshold_decay': [(v, {}, []) for v in FRACTIONS],
  'tpu': [
    (
      'grpc://nowhere',
      {'use_tpu': True},
      NO_ESTIMATOR or Only('TPU address', 'grpc://nowhere', 'grpc://<host>:<port>'),
    )
  ],
  'train_batch_size': [*((v, {}, []) for v in NOT_POSITIVE), (12, {'use_tpu': True}, ['8'])],
  'train_dir': [(path, {}, []) for path in BAD_FOLDERS],
  'train_steps': [(v, {}, []) for v in NOT_POSITIVE],
  'training_method': [('lottery', {}, methods.METHODS)],
  'training_steps_multiplier': [(v, {}, []) for v in (0.0, *BAD_REALS)],
  'use_adam': [(True, {'use_sgdr': True}, Only('use_adam', 'use_sgdr'))],
  'use_tpu': [(True, {'loop': 'session'}, NO_ESTIMATOR or Only('use_tpu', 'loop=tpu_estimator'))],
  'weight_decay': [(v, {}, []) for v in BAD_REALS],
  'width': [(v, {}, []) for v in ('nan', 'inf')],
}
# These refuse only values of another type.
ANY_VALUE = {
  'block_height',
  'block_width',
  'dataset_size',
  'eval_on_train',
  'gcp_project',
  'is_warm_up',
  'log_mask_imgs_each_iteration',
  'master',
  'num_workers',
  'per_class_metrics',
  'prune_first_layer',
  'prune_last_layer',
  'ps_task',
  'save_model',
  'skip_corrupt_records',
  'tpu_job_name',
  'tpu_zone',
  'transpose_input',
  'use_batch_statistics',
  'use_folder_stub',
  'use_nesterov',
  'use_sgdr',
  'use_synthetic_data',
}
# Paths that are checked by the code that finds data.
DATA = {'mnist', 'data_directory'}


def flags_of(script):
  schema = SCRIPTS[script].SCHEMA
  return {name: FLAGS[name] for name in (*schema.fields, *schema.other_names, *schema.not_used)}


PAIRS = [(script, name) for script in SCRIPTS for name in flags_of(script)]
WITH_BAD_VALUES = [pair for pair in PAIRS if pair[1] in REFUSED]
NOT_TEXT = [
  (script, name)
  for script, name in PAIRS
  if flags_of(script)[name].flag_type() in ('int', 'float', 'bool')
]


class WorkBegan(Exception):
  """The script was about to load data or to build a graph."""


@contextlib.contextmanager
def no_work(monkeypatch, but=()):

  def refuse(*args, **kwargs):
    raise WorkBegan

  with monkeypatch.context() as patch:
    patch.setattr(runner, 'make_loop', refuse)
    for module, name in (
      (mnist_data, 'load_mnist'),
      (cifar_data, 'load_cifar'),
      (imagenet_data, 'find_data'),
    ):
      if name not in but:
        patch.setattr(module, name, refuse)
    yield


def run(script, values):
  """main() with a command line, which ends before any work."""
  argv = [f'--{name}={value}' for name, value in values.items()]
  with script_flags.parsed(argv):
    SCRIPTS[script].main(['script.py'])


def assert_refused(script, values, words):
  with pytest.raises((ValueError, flags.Error)) as error:
    run(script, values)
  message = str(error.value)
  for word in map(str, words):
    assert word in message, (word, message)
  assert '\n' not in message


def test_every_flag_is_in_a_table_and_no_other():
  known = {name for script in SCRIPTS for name in flags_of(script)}
  assert set(REFUSED) | ANY_VALUE | DATA == known
  assert not set(REFUSED) & ANY_VALUE


@pytest.mark.parametrize('script', SCRIPTS)
def test_every_hyperparameter_of_a_written_config_is_a_flag(script):
  """Else --gin_config refuses it, unless another script has defined it."""
  names = {field.name for field in dataclasses.fields(SparsityConfig)}
  assert names <= set(flags_of(script))


def test_good_flags_get_through_to_the_work(monkeypatch, tmp_path):
  """Otherwise all other tests could pass for the wrong reason."""
  with no_work(monkeypatch):
    for script, folder in (
      ('mnist', 'save_path'),
      ('cifar', 'train_dir'),
      ('imagenet', 'output_dir'),
    ):
      with pytest.raises(WorkBegan):
        run(script, {folder: tmp_path})


@pytest.mark.parametrize('script, name', WITH_BAD_VALUES)
def test_bad_value_is_named_before_any_work(script, name, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  setting = SCRIPTS[script].SCHEMA.other_names.get(name, name)
  for value, others, words in REFUSED[name]:
    others = {n: v for n, v in others.items() if n in flags_of(script)}
    if not isinstance(words, Only):
      words = [setting, value, *words]
    with no_work(monkeypatch):
      assert_refused(script, {**others, name: value}, words)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('script, name', NOT_TEXT)
def test_value_of_another_type_is_named(script, name):
  setting = SCRIPTS[script].SCHEMA.other_names.get(name, name)
  assert_refused(script, {name: 'many'}, [setting, 'many'])
  if flags_of(script)[name].flag_type() == 'int':
    assert_refused(script, {name: 1.5}, [setting, '1.5'])


@pytest.mark.parametrize(
  'script, values, words',
  [
    ('cifar', {'mode': 'eval_once'}, ['eval_once', 'train_and_eval']),
    ('imagenet', {'mask_init_method': 'str', 'model_architecture': 'vgg_a'}, ['str', 'ResNet-50']),
    ('imagenet', {'training_steps_multiplier': 0.1}, ['less than a step']),
    ('imagenet', {'use_tpu': True, 'num_replicas': 2}, ['num_replicas', 'use_tpu']),
    ('imagenet', {'transpose_input': True, 'num_replicas': 2}, ['num_replicas', 'transpose_input']),
    ('mnist', {'sparsity_scale': 1.1, 'end_sparsity': 0.98}, ['layer2']),
  ],
)
def test_contradictions(script, values, words, monkeypatch):
  with no_work(monkeypatch):
    assert_refused(script, values, words)


@pytest.mark.parametrize('script, flag', [('mnist', 'mnist'), ('imagenet', 'data_directory')])
def test_missing_data_are_named(script, flag, monkeypatch):
  with no_work(monkeypatch, but=('load_mnist', 'find_data')):
    with pytest.raises((ValueError, FileNotFoundError), match='/no/such/data'):
      run(script, {flag: '/no/such/data'})


@pytest.mark.parametrize('script', SCRIPTS)
def test_misspelt_flag_is_named_with_the_right_one(script):
  with pytest.raises(flags.UnrecognizedFlagError, match='end_sparsity'):
    run(script, {'end_sparsities': 0.5})
