"""Flags of the ImageNet script: names, defaults, effects, errors."""

from __future__ import annotations

import contextlib
import pathlib

import numpy as np
import pytest
from absl import flags

from rigl import gin_configs
from rigl.compat import tf
from rigl.imagenet_resnet import imagenet_config
from rigl.imagenet_resnet import imagenet_train_eval as script
from rigl.training import tpu_estimator
from rigl.training.config import SparsityConfig
from tests import networks, script_flags

FLAGS = flags.FLAGS
CONFIGS = pathlib.Path(script.__file__).parent / 'configs'


@contextlib.contextmanager
def command_line(*argv):
  """The script, started with these flags, up to its main()."""
  with script_flags.parsed(argv):
    yield


def configs(*argv):
  with command_line(*argv):
    return script.experiment_from_flags().configs


def config_files(*names):
  return [f'--gin_config={CONFIGS / name}.gin' for name in names]


# --- Names and defaults ------------------------------------------------------


def test_what_is_not_used():
  assert set(imagenet_config.SCHEMA.not_used) == {
    'num_workers',
    'ps_task',
    'is_warm_up',
    'block_width',
    'block_height',
  }


def test_default_flags_are_a_valid_training():
  sparsity, config = configs()
  assert sparsity.training_method == 'scratch'
  assert sparsity.mask_init_method == 'random'
  assert config == imagenet_config.ImageNetConfig()


# --- Schedules ---------------------------------------------------------------


def test_learning_rates_are_those_of_the_reference(goldens):
  cases = goldens('lr_schedules')['imagenet_train_eval']['cases']
  assert len(cases) == 11
  for case in cases:
    sparsity, config = configs(*case['flags'])
    scaled = sparsity.scaled(config.training_steps_multiplier)
    expected = case['flags_after_set_lr_schedule']
    if '--train_steps=32000' in case['flags'] or len(case['flags']) < 2:
      assert config.total_steps == expected['train_steps']
    for name in ('begin_step', 'end_step', 'frequency'):
      name = f'maskupdate_{name}'
      assert getattr(scaled, name) == expected[name]
    with tf.Graph().as_default(), tf.Session() as session:
      step = tf.placeholder(tf.int64, [None])
      epochs, rates = session.run(
        [config.epoch_at(step), tf.map_fn(config.learning_rate_at, step, tf.float32)],
        {step: case['steps']},
      )
    np.testing.assert_allclose(epochs, case['epoch'], rtol=1e-6)
    np.testing.assert_allclose(rates, case['learning_rate'], rtol=2e-6, atol=2e-8)


def test_schedule_is_set_from_the_flags_however_often(goldens):
  for case in goldens('lr_schedules')['imagenet_train_eval']['cases']:
    with command_line(*case['flags']):
      before = {name: FLAGS[name].value for name in FLAGS}
      for _ in range(2):
        script.set_lr_schedule()
        np.testing.assert_allclose(script.LR_SCHEDULE, case['LR_SCHEDULE_multiplier_epoch'])
      assert before == {name: FLAGS[name].value for name in FLAGS}


def test_adam_has_a_constant_rate():
  _, config = configs('--use_adam', '--train_batch_size=512')
  with tf.Graph().as_default(), tf.Session() as session:
    rates = session.run(
      [config.learning_rate_at(tf.constant(step, tf.int64)) for step in (0, 10**6)]
    )
  np.testing.assert_allclose(rates, 0.2)


def test_prune_has_the_schedule_of_mask_updates():
  sparsity, config = configs(
    '--training_method=prune',
    '--maskupdate_begin_step=3',
    '--maskupdate_end_step=40',
    '--maskupdate_frequency=5',
    '--training_steps_multiplier=2',
  )
  scaled = sparsity.scaled(config.training_steps_multiplier)
  assert (scaled.pruning_begin_step, scaled.pruning_end_step, scaled.pruning_frequency) == (
    6,
    80,
    5,
  )


def test_folder_is_named_by_the_scaled_hyperparameters():
  with command_line(
    '--output_dir=/runs',
    '--training_method=rigl',
    '--end_sparsity=0.8',
    '--training_steps_multiplier=5',
    '--label_smoothing=0.2',
  ):
    training = script.experiment_from_flags()
    assert training.folder == '/runs/rigl/0.8/0/125000/100/0.3/0.2/0.0001'
    FLAGS.use_folder_stub = False
    training = script.experiment_from_flags()
    assert training.folder == '/runs'


# --- First and last layer ----------------------------------------------------


@pytest.mark.parametrize(
  'architecture, first, is_masked, custom',
  [
    ('resnet', 0.0, False, {}),
    ('resnet', -1.0, True, {}),
    ('resnet', 0.3, True, {'resnet_model/initial_conv': 0.3}),
    ('mobilenet_v1', 0.0, False, {}),
    ('mobilenet_v1', -1.0, False, {}),
    ('mobilenet_v2', 0.3, True, {'resnet_model/initial_conv': 0.3}),
    ('vgg_16', 0.0, True, {'vgg_16/conv1/conv1_1': 0.0}),
    ('vgg_16', -1.0, True, {}),
    ('vgg_a', 0.3, True, {'vgg_a/conv1/conv1_1': 0.3}),
  ],
)
def test_first_layer(architecture, first, is_masked, custom):
  config = imagenet_config.ImageNetConfig(
    model_architecture=architecture, first_layer_sparsity=first
  )
  assert config.prune_first_layer == is_masked
  assert config.custom_sparsity_map == custom


@pytest.mark.parametrize(
  'architecture, layer',
  [
    ('resnet', 'resnet_model/final_dense'),
    ('mobilenet_v2', 'resnet_model/final_dense'),
    ('vgg_19', 'vgg_19/fc8'),
  ],
)
def test_last_layer(architecture, layer):
  for last, is_masked, custom in ((0.0, False, {}), (-1.0, True, {}), (0.4, True, {layer: 0.4})):
    config = imagenet_config.ImageNetConfig(
      model_architecture=architecture, first_layer_sparsity=-1.0, last_layer_sparsity=last
    )
    assert config.prune_last_layer == is_masked
    assert config.custom_sparsity_map == custom


# --- Mistakes ----------------------------------------------------------------


@pytest.mark.parametrize(
  'argv, words',
  [
    (['--model_architecture=foo'], ['foo', 'mobilenet_v1', 'vgg_a']),
    (['--resnet_depth=20'], ['resnet_depth 20', '152']),
    (['--precision=float16'], ['float16', 'bfloat16']),
    (['--data_format=NHWC'], ['NHWC', 'channels_last']),
    (['--data_format=channels_first'], ['channels_first', 'GPU']),
    (['--mask_init_method=erk'], ['erk', 'erdos_renyi_kernel']),
    (['--mask_init_method=str', '--model_architecture=vgg_a'], ['str', 'ResNet-50']),
    (['--end_sparsity=1'], ['end_sparsity', '1.0']),
    (['--first_layer_sparsity=-0.5'], ['first_layer_sparsity', '-0.5']),
    (['--last_layer_sparsity=1'], ['last_layer_sparsity', '1.0']),
    (['--label_smoothing=1'], ['label_smoothing', '1.0']),
    (['--weight_decay=-1'], ['weight_decay', '-1.0']),
    (['--momentum=1'], ['momentum', '1.0']),
    (['--train_steps=0'], ['train_steps', '0']),
    (['--training_steps_multiplier=-1'], ['training_steps_multiplier']),
    (['--training_steps_multiplier=0.1'], ['less than a step']),
    (['--base_learning_rate=nan'], ['base_learning_rate', 'nan']),
    (['--train_batch_size=0'], ['train_batch_size']),
    (['--num_train_images=10'], ['train_batch_size 1024', '10']),
    (['--model_architecture=mobilenet_v2', '--expansion_factor=0.5'], ['expansion_factor', '0.5']),
    (['--model_architecture=mobilenet_v2', '--expansion_factor=inf'], ['expansion_factor', 'inf']),
    (['--width=0.01'], ['width 0.01', '64 channels']),
    (['--model_architecture=vgg_a', '--width=0.01'], ['width 0.01']),
    (['--width=nan'], ['width', 'nan']),
    (['--training_steps_multiplier=1e308'], ['training_steps_multiplier']),
    (['--model_architecture=vgg_a', '--image_size=15'], ['image_size 15']),
    (['--use_adam', '--use_sgdr'], ['use_adam', 'use_sgdr']),
    (['--maskupdate_frequency=0'], ['maskupdate_frequency', '0']),
    (['--training_method=prune', '--maskupdate_end_step=-1'], ['end']),
    (['--training_method=dnw', '--load_mask_dir=/tmp'], ['load_mask_dir', 'dnw']),
    (['--use_tpu', '--eval_batch_size=100'], ['eval_batch_size 100', '8']),
  ],
)
def test_mistake_is_one_clear_error(argv, words):
  with pytest.raises(ValueError) as error:
    configs(*argv)
  for word in words:
    assert word in str(error.value)


@pytest.mark.parametrize(
  'argv, words',
  [
    (['--mode=eval_once', '--eval_once_ckpt_prefix=model.ckpt-7'], ['model.ckpt-7']),
    (['--load_mask_dir=/no/masks'], ['/no/masks']),
    (['--initial_value_checkpoint=/no/values'], ['/no/values']),
    (
      ['--use_tpu'],
      ['--tpu=']
      if tpu_estimator.is_available()
      else ['use_tpu needs TPUEstimator', tf.__version__],
    ),
    ([], ['data_directory', 'use_synthetic_data']),
  ],
)
def test_mistake_of_main_comes_before_any_work(argv, words, tmp_path, monkeypatch):
  for name in ('TPU_NAME', 'COLAB_TPU_ADDR', 'TFDS_DATA_DIR', 'KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS'):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('HOME', str(tmp_path))
  output = tmp_path / 'runs'
  with command_line(f'--output_dir={output}', *argv):
    with pytest.raises((ValueError, OSError)) as error:
      script.main(['script.py'])
  for word in words:
    assert word in str(error.value)
  assert not output.exists()


# --- Gin ---------------------------------------------------------------------


def test_configs_of_a_published_result():
  sparsity, config = configs(
    *config_files('resnet50', 'rigl', 'erk', 'sparsity_965', 'extended_5x'), '--seed=3'
  )
  assert sparsity == SparsityConfig(
    training_method='rigl',
    end_sparsity=0.965,
    seed=3,
    mask_init_method='erdos_renyi_kernel',
    drop_fraction_anneal='cosine',
    pruning_begin_step=0,
    pruning_end_step=25000,
    pruning_frequency=100,
  )
  assert config.prune_first_layer and config.total_steps == 160000
  assert config.peak_learning_rate == pytest.approx(1.6)
  assert sparsity.scaled(5.0).maskupdate_end_step == 125000


def test_written_config_gives_the_same_training(tmp_path):
  argv = [
    *config_files('mobilenet_v1', 'snfs', 'uniform', 'extended_10x'),
    '--seed=4',
    '--width=0.5',
  ]
  made = configs(*argv)
  gin_configs.write(str(tmp_path), *made)
  assert configs(f'--gin_config={tmp_path / gin_configs.CONFIG_FILE}') == made


# --- Published networks ------------------------------------------------------


# The graphs themselves are in the files of the networks.
@pytest.mark.parametrize(
  'network, argv',
  [
    ('resnet18', ['--resnet_depth=18', '--training_method=baseline']),
    ('resnet18', ['--resnet_depth=18', '--training_method=rigl']),
    ('resnet50_prune_first_layer', ['--first_layer_sparsity=-1']),
    ('mobilenet_v1', ['--model_architecture=mobilenet_v1', '--first_layer_sparsity=-1']),
    ('mobilenet_v2', ['--model_architecture=mobilenet_v2']),
    ('vgg_a', ['--model_architecture=vgg_a']),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in [
        ('resnet34', ['--resnet_depth=34']),
        ('resnet50', []),
        ('resnet101', ['--resnet_depth=101']),
        ('mobilenet_v1', ['--model_architecture=mobilenet_v1']),
        ('vgg_16', ['--model_architecture=vgg_16']),
        ('vgg_19', ['--model_architecture=vgg_19']),
      ]
    ),
  ],
)
def test_graph_has_the_variables_of_published_checkpoints(network, argv):
  """For all methods: the baseline has masks too."""
  golden = networks.load_golden(network)
  expected = {**golden['variables'], 'global_step': []}
  with command_line(*argv), tf.Graph().as_default():
    tf.train.get_or_create_global_step()
    script.resnet_model_fn_w_pruning(tf.zeros([2, 64, 64, 3]), tf.constant([0, 1]), 'eval', {})
    assert networks.variable_shapes() == expected
