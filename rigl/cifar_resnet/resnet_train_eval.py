r"""Trains and evaluates WideResNets on CIFAR-10 with sparse training methods.

    python rigl/cifar_resnet/resnet_train_eval.py --training_method=rigl \
        --mask_init_method=erdos_renyi_kernel --data_directory=/data/cifar10

A run has its own folder below --train_dir. Started again it goes on where it
stopped; `--mode=eval` follows a run and evaluates its newest checkpoint at each
look.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Union

from absl import flags, logging

from rigl.cifar_resnet.cifar_config import CifarConfig
from rigl.compat import tf
from rigl.core import checks
from rigl.training import command_line, config_flags, script, sparse_flags
from rigl.training.config import SparsityConfig

FLAGS = flags.FLAGS

SCRIPT_DEFAULTS = {
    'batch_size': 128,
    'data_directory': '',
    'drop_fraction_anneal': 'constant',
    'end_sparsity': 0.9,
    'keep_checkpoint_max': 5,
    'master': 'local',
    'mask_init_method': 'random',
    'maskupdate_end_step': 75000,
    'mode': 'train',
    'pruning_frequency': 1000,
    'resnet_depth': 16,
    'training_method': 'baseline',
}
MODES = ('train', 'eval', 'train_and_eval')

sparse_flags.define_script(
    SCRIPT_DEFAULTS, 'initial_value_checkpoint', 'load_mask_dir', 'ps_task',
    'training_steps_multiplier', 'use_synthetic_data', modes=MODES,
    helps={
        'gin_config': 'Gin file of hyperparameters, lines such as '
                      'SparsityConfig.end_sparsity = 0.95; or the name of one '
                      'that comes with this script, such as rigl',
        'master': 'Not used: address of a server.',
        'resnet_depth': 'Depth of the WideResNet, 6n + 4.',
    })
config_flags.define(CifarConfig)

with command_line.group('Gradual pruning'):
  flags.DEFINE_integer('sparsity_begin_step', 20000, 'prune: first step.')
  flags.DEFINE_integer('sparsity_end_step', 75000, 'prune: last step.')
  flags.DEFINE_string(
      'pruning_hparams', '', 'prune: further hyperparameters, name=value,... '
      '(see PruningHParams).')
with command_line.group('Evaluation'):
  flags.DEFINE_bool('per_class_metrics', True,
                    'Whether to report precision and recall of each class.')
with command_line.group('Output'):
  flags.DEFINE_string(
      'train_dir', '/tmp/cifar10/', 'Folder in which each run has its own.')
  flags.DEFINE_integer(
      'checkpoint_steps', 5000, 'Steps between checkpoints.', lower_bound=1)
  flags.DEFINE_integer(
      'summaries_steps', 300, 'Steps between summaries and progress reports.',
      lower_bound=1)
with command_line.group('Not used'):
  flags.DEFINE_integer('dataset_size', 50000, 'Not used: size of the data.')

if __name__ == '__main__':
  # Ends here for --help and for mistakes: what follows loads TensorFlow.
  _ARGUMENTS = script.parse_flags(__name__)

from rigl.cifar_resnet import cifar_data, cifar_model_fn, data_helper
from rigl.cifar_resnet.cifar_model_fn import Training, build_model  # noqa: F401
from rigl.training import (
  distribution,
  factory,
  hooks,
  mask_init,
  resuming,
  runner,
  specs,
)

_RENAMED = {'pruning_begin_step': 'sparsity_begin_step',
            'pruning_end_step': 'sparsity_end_step'}


def configs_from_flags() -> tuple[SparsityConfig, CifarConfig]:
  """The validated hyperparameters, those of time not stretched yet.

  Raises:
    ValueError: a value is out of its range or unknown; names it.
  """
  return config_flags.hyperparameters(CifarConfig, _RENAMED)


def run_folder(sparsity: SparsityConfig) -> str:
  """<train_dir>/method/end_sparsity/begin/end/frequency.

  Args:
    sparsity: hyperparameters of the method, stretched.
  """
  parts = [0.0] * 4
  if sparsity.method.is_dynamic:
    parts = [sparsity.end_sparsity, sparsity.maskupdate_begin_step,
             sparsity.maskupdate_end_step, sparsity.maskupdate_frequency]
  elif sparsity.method.prunes_gradually:
    parts = [sparsity.end_sparsity, sparsity.pruning_begin_step,
             sparsity.pruning_end_step, sparsity.pruning_frequency]
  elif sparsity.method.uses_masks:
    parts[0] = sparsity.end_sparsity
  return os.path.join(
      FLAGS.train_dir, sparsity.training_method, *map(str, parts))


def make_training(sparsity: SparsityConfig, config: CifarConfig) -> Training:
  """The training of the flags.

  Args:
    sparsity: hyperparameters of the method, not stretched yet.
    config: hyperparameters of this script.
  """
  sparsity = sparsity.scaled(config.training_steps_multiplier)
  return Training(
      sparsity, config, run_folder(sparsity), FLAGS.pruning_hparams,
      FLAGS.load_mask_dir, FLAGS.initial_value_checkpoint,
      FLAGS.summaries_steps, FLAGS.per_class_metrics, FLAGS.on_nan)


def wide_resnet_w_pruning(
    features: tf.Tensor, labels: tf.Tensor, mode: str, params: dict[str, Any]
) -> Union[specs.TrainSpec, specs.EvalSpec]:
  """The graph of a mode, as a model_fn of its own.

  Args:
    features: images float32 [batch, 32, 32, 3].
    labels: int32 [batch].
    mode: 'train' or 'eval'.
    params: 'training', a Training; that of the flags when it is not there.
  """
  training = params.get('training') or make_training(*configs_from_flags())
  return cifar_model_fn.model_fn(features, labels, mode, training)


def _print_metrics(found: dict[str, float]) -> None:
  print(f'step {found["global_step"]}: accuracy {found["accuracy"]:.2%}, '
        f'top 5 {found["top_5_accuracy"]:.2%}, loss {found["loss"]:.4f}',
        flush=True)


def run(mode: str, training: Training, data: cifar_data.CifarData,
        write_config: tf.train.SessionRunHook) -> None:
  """Trains, evaluates or both in the folder of a training.

  Args:
    mode: one of MODES.
    training: what to train.
    data: the images.
    write_config: hook that notes the hyperparameters in the folder.
  """
  sparsity, config = training.sparsity, training.config
  loop = runner.make_loop(
      specs.Job(
          functools.partial(cifar_model_fn.model_fn, training=training),
          training.folder, seed=sparsity.seed,
          save_steps=FLAGS.checkpoint_steps,
          keep_checkpoint_max=FLAGS.keep_checkpoint_max,
          save_summary_steps=FLAGS.summaries_steps),
      FLAGS.loop, FLAGS.num_replicas)

  def train_input():
    return data_helper.train_dataset(
        data.train_images, data.train_labels, config.batch_size, sparsity.seed,
        resuming.iterations_done(training.folder, sparsity))

  def eval_input():
    return data_helper.eval_dataset(
        data.test_images, data.test_labels, config.batch_size)

  def evaluate(checkpoint):
    _print_metrics(runner.evaluate(loop, eval_input, checkpoint))

  if mode == 'eval':
    for found in runner.evaluate_until(
        loop, eval_input, config.total_steps):
      _print_metrics(found)
  else:
    factory.warn_of_late_pruning(
        sparsity, config.total_steps, training.pruning_hparams)
    runner.train_in_turns(
        loop, train_input, config.total_steps, FLAGS.checkpoint_steps,
        evaluate if mode == 'train_and_eval' else None, hooks=[write_config])


def _check_flags(sparsity: SparsityConfig, config: CifarConfig) -> None:
  """Raises ValueError for what would only show once the graph is built."""
  if config.num_classes < cifar_data.N_CLASSES:
    raise ValueError(f'num_classes must be >= {cifar_data.N_CLASSES}, got '
                     f'{config.num_classes}.')
  script.check_folder('train_dir', FLAGS.train_dir)
  mask_init.check_load_mask_dir(sparsity, FLAGS.load_mask_dir)
  factory.pruning_hparams_of(sparsity).parse(FLAGS.pruning_hparams)
  if FLAGS.mode != 'eval':
    sparse_flags.check_checkpoints('load_mask_dir', 'initial_value_checkpoint')


def main(argv: list[str]) -> None:
  """Raises ValueError for what cannot be, else trains or evaluates."""
  del argv  # script.run has seen to it that there are only flags.
  sparse_flags.set_script_defaults(SCRIPT_DEFAULTS)
  checks.one_of('mode', FLAGS.mode, MODES)
  sparsity, config = configs_from_flags()
  distribution.check(
      FLAGS.num_replicas, config.batch_size, FLAGS.mode, FLAGS.on_nan)
  runner.choose_loop(FLAGS.loop, FLAGS.num_replicas)
  _check_flags(sparsity, config)
  training = make_training(sparsity, config)
  if FLAGS.mode != 'eval':
    resuming.check_same_settings(
        training.folder, 'train_dir', (sparsity, config),
        ('resnet_depth', 'resnet_width', 'num_classes', 'prune_first_layer',
         'prune_last_layer'))
  data = cifar_data.load_cifar(
      FLAGS.data_directory, use_synthetic_data=FLAGS.use_synthetic_data)
  logging.info('Data: %s. Run: %s.', data.source, training.folder)
  run(FLAGS.mode, training, data,
      hooks.WriteConfigHook(training.folder, sparsity, config))


if __name__ == '__main__':
  script.run(main, _ARGUMENTS)
