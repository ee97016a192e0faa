r"""Trains and evaluates ResNets, MobileNets and VGGs on ImageNet.

    python rigl/imagenet_resnet/imagenet_train_eval.py --training_method=rigl \
        --mask_init_method=erdos_renyi_kernel --first_layer_sparsity=-1 \
        --train_steps=32000 --train_batch_size=4096 --data_directory=$IMAGENET

A run has its own folder below --output_dir. Started again it goes on where it
stopped; `--mode=eval` follows a run and evaluates its newest checkpoint at each
look, `--mode=eval_once` evaluates one. docs/imagenet.md has the commands of all
published results.
"""

from __future__ import annotations

import math
import os
from typing import Any, Callable, Optional

from absl import flags, logging

from rigl.compat import tf
from rigl.imagenet_resnet import (
  imagenet_config,
  imagenet_data,
  imagenet_input,
  imagenet_model_fn,
)
from rigl.imagenet_resnet.imagenet_config import ImageNetConfig
from rigl.training import (
  checkpoints,
  command_line,
  distribution,
  factory,
  hooks,
  mask_init,
  resuming,
  runner,
  script,
  sparse_flags,
)
from rigl.training import tpu as tpu_lib
from rigl.training.config import SparsityConfig

FLAGS = flags.FLAGS

SCRIPT_DEFAULTS = {
    'data_directory': None,
    'drop_fraction_anneal': 'constant',
    'end_sparsity': 0.9,
    'keep_checkpoint_max': 0,
    'mask_init_method': '',
    'maskupdate_end_step': 25000,
    'mode': 'train',
    'resnet_depth': 50,
    'training_method': 'scratch',
}

sparse_flags.define_script(
    SCRIPT_DEFAULTS, 'initial_value_checkpoint', 'load_mask_dir', 'master',
    'ps_task', 'training_steps_multiplier', 'use_synthetic_data', helps={
        'gin_config': 'Gin file of hyperparameters, lines such as '
                      'SparsityConfig.end_sparsity = 0.95; or the name of one '
                      'that comes with this script, such as rigl.',
        'maskupdate_begin_step': 'First global step that may move masks. prune '
                                 'has this schedule too.',
        'master': 'Address of the TPU, unless --tpu says it.',
        'resnet_depth':
            'Depth of the ResNet: 18, 34, 50, 101, 152 or 200.',
    })

with command_line.group('Sparse training'):
  flags.DEFINE_float(
      'first_layer_sparsity', 0.0,
      'Sparsity of the first layer; 0: dense, -1: as mask_init_method says.')
  flags.DEFINE_float(
      'last_layer_sparsity', -1.0,
      'Sparsity of the last layer; 0: dense, -1: as mask_init_method says.')
with command_line.group('Network'):
  flags.DEFINE_string(
      'model_architecture', 'resnet',
      f'Network: {", ".join(imagenet_config.ARCHITECTURES)}.')
  flags.DEFINE_float(
      'width', -1.0, 'Multiplier of the channels; 1 if not positive.')
  flags.DEFINE_float(
      'expansion_factor', 6.0, 'mobilenet_v2: expansion of its blocks.')
  flags.DEFINE_enum(
      'init_method', 'baseline', ('baseline', 'sparse', 'random_zeros'),
      'Initial weights. baseline: dense; sparse: variance scaled by the '
      'density of the layer; random_zeros: as many zeros as the mask would '
      'have.')
  flags.DEFINE_string(
      'data_format', 'channels_last',
      'channels_last or channels_first (GPU and TPU only).')
  flags.DEFINE_string(
      'precision', 'float32', 'Arithmetic of the network: float32 or bfloat16. '
      'Variables and masks are float32.')
  flags.DEFINE_integer('num_label_classes', 1000, 'Classes.')
  flags.DEFINE_integer('image_size', 224, 'Height and width of an image.')
with command_line.group('Optimisation'):
  flags.DEFINE_integer(
      'train_steps', 2, 'Training steps, times training_steps_multiplier; the '
      'default only tries things out.')
  flags.DEFINE_integer('train_batch_size', 1024, 'Images in a training batch.')
  flags.DEFINE_float(
      'base_learning_rate', 0.1,
      'Learning rate for 256 images; it grows with the batch.')
  flags.DEFINE_bool('use_adam', False, 'Adam, at a constant learning rate.')
  flags.DEFINE_bool('use_sgdr', False, 'Cosine decay with warm restarts.')
  flags.DEFINE_float('sgdr_decay_step', 5.0, 'SGDR: epochs of the first cycle.')
  flags.DEFINE_float('sgdr_t_mul', 1.5, 'SGDR: growth of the cycles.')
  flags.DEFINE_float('sgdr_m_mul', 0.5, 'SGDR: decay of the peaks.')
  flags.DEFINE_float('weight_decay', 1e-4, 'Coefficient of the L2 penalty.')
  flags.DEFINE_float(
      'label_smoothing', 0.1,
      'Share of a label that is spread over all classes.')
with command_line.group('Data'):
  flags.DEFINE_integer('num_train_images', 1281167, 'Training images.')
  flags.DEFINE_integer('num_eval_images', 50000, 'Validation images.')
  flags.DEFINE_integer(
      'num_parallel_calls', 64, 'Images decoded at a time.', lower_bound=1)
  flags.DEFINE_bool(
      'skip_corrupt_records', False,
      'Whether to leave out images that cannot be read instead of stopping.')
  flags.DEFINE_bool(
      'transpose_input', False,
      'Whether images come with the batch last, which suits a TPU.')
with command_line.group('Evaluation'):
  flags.DEFINE_integer('eval_batch_size', 1000, 'Images in evaluation batches.')
  flags.DEFINE_integer(
      'steps_per_eval', 1251, 'train_and_eval: steps between evaluations.',
      lower_bound=1)
  flags.DEFINE_string(
      'eval_once_ckpt_prefix', '',
      'eval_once: name of the checkpoint in the folder of the run, such as '
      'model.ckpt-32000; the latest one if empty.')
  flags.DEFINE_bool(
      'eval_on_train', False, 'Whether to evaluate on the training images.')
  flags.DEFINE_bool(
      'use_batch_statistics', False,
      'Whether evaluation normalises by the batch instead of moving averages.')
with command_line.group('Output'):
  flags.DEFINE_string(
      'output_dir', '/tmp/imagenet/', 'Folder in which each run has its own.')
  flags.DEFINE_bool(
      'use_folder_stub', True,
      'Whether a run has a folder named by its hyperparameters in output_dir, '
      'instead of output_dir itself.')
  flags.DEFINE_integer(
      'steps_per_checkpoint', 1000, 'Steps between checkpoints.', lower_bound=1)
  flags.DEFINE_integer(
      'steps_per_summary', 100, 'Steps between summaries and progress reports.',
      lower_bound=1)
  flags.DEFINE_bool(
      'log_mask_imgs_each_iteration', False,
      'Whether summaries have pictures of all masks, which is slow.')
  flags.DEFINE_integer(
      'export_model_freq', 2502, 'Steps between exported SavedModels; 0 for '
      'none, not even at the end.', lower_bound=0)
with command_line.group('Devices'):
  flags.DEFINE_bool('use_tpu', False, 'Train on a TPU.')
  flags.DEFINE_string(
      'tpu', '', "TPU: name, grpc://<host>:<port>, or 'local' on a TPU VM.")
  flags.DEFINE_string('tpu_zone', '', 'TPU: its zone in Google Cloud.')
  flags.DEFINE_string('gcp_project', '', 'TPU: its project in Google Cloud.')
  flags.DEFINE_string('tpu_job_name', None, 'TPU: job name of the workers.')
  flags.DEFINE_integer(
      'num_cores', 8, 'TPU: cores that share a batch.', lower_bound=1)
  flags.DEFINE_integer(
      'iterations_per_loop', 1251, 'TPU: steps between returns to the host.',
      lower_bound=1)
with command_line.group('Not used'):
  flags.DEFINE_integer('num_workers', 1, 'Not used: number of workers.')
  flags.DEFINE_bool('is_warm_up', True, 'Not used: warm-up of the penalty.')
  flags.DEFINE_integer('block_width', 1, 'Not used: width of a block.')
  flags.DEFINE_integer('block_height', 1, 'Not used: height of a block.')

# prune has the schedule of the methods that move masks.
_RENAMED = {'pruning_begin_step': 'maskupdate_begin_step',
            'pruning_end_step': 'maskupdate_end_step',
            'pruning_frequency': 'maskupdate_frequency'}

# What set_lr_schedule found: [(multiplier of the peak rate, epoch)].
LR_SCHEDULE: list[tuple[float, float]] = []


def configs_from_flags() -> tuple[SparsityConfig, ImageNetConfig]:
  """The validated hyperparameters, those of time not stretched yet.

  Raises:
    ValueError: a value is out of its range or unknown, or two contradict each
      other; names them.
  """
  sparsity, config = sparse_flags.configs_from_flags(ImageNetConfig, _RENAMED)
  imagenet_config.check_combination(
      config, sparsity, FLAGS.num_cores if FLAGS.use_tpu else None)
  mask_init.check_load_mask_dir(sparsity, FLAGS.load_mask_dir)
  distribution.check(FLAGS.num_replicas, config.train_batch_size, FLAGS.mode,
                     FLAGS.on_nan)
  n_replicas = distribution.total_replicas(FLAGS.num_replicas)
  if n_replicas > 1 and (FLAGS.use_tpu or config.transpose_input):
    raise ValueError(
        f'{n_replicas} replicas (num_replicas, or workers of TF_CONFIG) do not '
        'work with use_tpu, where num_cores says how many share a batch, nor '
        'with transpose_input.')
  return sparsity, config


def set_lr_schedule() -> list[tuple[float, float]]:
  """Sets LR_SCHEDULE to what the flags say and returns it.

  The flags stay as they are, so that a second call changes nothing.
  """
  LR_SCHEDULE[:] = configs_from_flags()[1].lr_schedule
  return LR_SCHEDULE


def run_folder(sparsity: SparsityConfig, config: ImageNetConfig) -> str:
  """The folder of a run, by its stretched hyperparameters."""
  if not FLAGS.use_folder_stub:
    return FLAGS.output_dir
  return os.path.join(FLAGS.output_dir, sparsity.training_method, *map(str, (
      sparsity.end_sparsity, sparsity.maskupdate_begin_step,
      sparsity.maskupdate_end_step, sparsity.maskupdate_frequency,
      sparsity.drop_fraction, config.label_smoothing, config.weight_decay)))


def make_training(sparsity: SparsityConfig,
                  config: ImageNetConfig) -> imagenet_model_fn.Training:
  """The training of hyperparameters that are not stretched yet."""
  stretched = sparsity.scaled(config.training_steps_multiplier)
  return imagenet_model_fn.Training(
      stretched, config, run_folder(stretched, config), FLAGS.use_tpu,
      FLAGS.load_mask_dir, FLAGS.initial_value_checkpoint,
      FLAGS.steps_per_summary, FLAGS.log_mask_imgs_each_iteration,
      FLAGS.on_nan)


def resnet_model_fn_w_pruning(features: tf.Tensor, labels: tf.Tensor, mode: str,
                              params: dict[str, Any]) -> Any:
  """`imagenet_model_fn.model_fn` of the flags unless params has 'training'.
  """
  training = params.get('training') or make_training(*configs_from_flags())
  return imagenet_model_fn.model_fn(features, labels, mode, training)


def _make_input_fn(training: imagenet_model_fn.Training, mode: str,
                   data: imagenet_data.ImageNetData) -> Callable[..., Any]:
  """The input_fn of TPUEstimator for 'train' or 'eval'."""
  config, sparsity = training.config, training.sparsity

  def input_fn(params):
    host_index, n_hosts = 0, 1
    if training.use_tpu:
      _, host_index, n_hosts, _ = params[
          'context'].current_input_fn_deployment()
    first_iteration = 0
    if mode == 'train':
      first_iteration = resuming.iterations_done(training.folder, sparsity)
    return imagenet_input.input_fn({
        'batch_size': params['batch_size'], 'mode': mode, 'data': data,
        'seed': sparsity.seed, 'first_iteration': first_iteration,
        'image_size': config.image_size,
        'num_parallel_calls': FLAGS.num_parallel_calls,
        'host_index': host_index, 'n_hosts': n_hosts,
        'transpose_input': config.transpose_input,
        'dtype': tf.as_dtype(config.precision),
        'eval_on_train': FLAGS.eval_on_train,
        'pad_last_batch': training.use_tpu,
        'skip_corrupt_records': FLAGS.skip_corrupt_records})

  return input_fn


def _find_tpu(config: ImageNetConfig) -> Optional[tpu_lib.TpuSetup]:
  if not FLAGS.use_tpu:
    return None
  return tpu_lib.TpuSetup(
      tpu_lib.find(
          FLAGS.tpu, FLAGS.tpu_zone, FLAGS.gcp_project, FLAGS.master),
      FLAGS.num_cores, FLAGS.iterations_per_loop, FLAGS.tpu_job_name,
      batch_axis=(3, 0) if config.transpose_input else (0, 0))


def _print_metrics(metrics: dict[str, float]) -> None:
  print(f'step {metrics["global_step"]}: '
        f'top 1 {metrics["top_1_accuracy"]:.2%}, '
        f'top 5 {metrics["top_5_accuracy"]:.2%}, '
        f'loss {metrics["cross_loss"]:.4f}', flush=True)


def _print_sparsities(checkpoint: str, config: ImageNetConfig) -> None:
  """Those of all layers with a mask, in the order of the network."""
  found = checkpoints.mask_sparsities(checkpoint)
  sizes = imagenet_model_fn.masked_layers(config)
  for layer in sizes:
    print(f'  sparsity {found[layer]:.4f}  {layer}')
  if sizes:
    n_zeros = sum(found[layer] * size for layer, size in sizes.items())
    print(f'  sparsity {n_zeros / sum(sizes.values()):.4f}  of all of them')


def _train(estimator: Any, training: imagenet_model_fn.Training,
           data: imagenet_data.ImageNetData,
           evaluate: Optional[Callable[[str], Any]],
           write_config: tf.train.SessionRunHook) -> None:
  """Trains, and evaluates every steps_per_eval steps if it can."""
  factory.warn_of_late_pruning(training.sparsity, training.config.total_steps)
  # Workers export at the end only.
  exporters = imagenet_model_fn.exporters(
      training, FLAGS.export_model_freq if distribution.n_workers() == 1 else 0)
  runner.train_in_turns(
      estimator, _make_input_fn(training, 'train', data),
      training.config.total_steps, FLAGS.steps_per_eval, evaluate,
      hooks=[write_config], saving_listeners=exporters)
  if FLAGS.export_model_freq and distribution.is_chief():
    imagenet_model_fn.export_missing(training)


def run(mode: str, training: imagenet_model_fn.Training,
        data: imagenet_data.ImageNetData, checkpoint: str,
        write_config: tf.train.SessionRunHook,
        tpu: Optional[tpu_lib.TpuSetup] = None) -> None:
  """Trains, evaluates or both; `checkpoint` is that of eval_once."""
  config = training.config
  estimator = runner.make_estimator(
      resnet_model_fn_w_pruning, training.folder, seed=training.sparsity.seed,
      train_batch_size=config.train_batch_size,
      eval_batch_size=config.eval_batch_size,
      save_checkpoints_steps=FLAGS.steps_per_checkpoint,
      keep_checkpoint_max=FLAGS.keep_checkpoint_max,
      save_summary_steps=FLAGS.steps_per_summary,
      params={'training': training}, tpu=tpu,
      num_replicas=FLAGS.num_replicas)
  eval_input = _make_input_fn(training, 'eval', data)
  n_eval = (
      config.num_train_images if FLAGS.eval_on_train else
      config.num_eval_images)
  eval_steps = math.ceil(n_eval / config.eval_batch_size) if tpu else None

  def evaluate(prefix: str) -> None:
    _print_metrics(runner.evaluate(estimator, eval_input, prefix, eval_steps))

  if mode == 'eval_once':
    evaluate(checkpoint)
    _print_sparsities(checkpoint, config)
  elif mode == 'eval':
    for metrics in runner.evaluate_until(
        estimator, eval_input, config.total_steps, steps=eval_steps):
      _print_metrics(metrics)
  else:
    _train(estimator, training, data,
           evaluate if mode == 'train_and_eval' else None, write_config)


def _find_checkpoint(mode: str, folder: str, sparsity: SparsityConfig,
                     config: ImageNetConfig) -> str:
  """The checkpoint that eval_once is to evaluate, else ''.

  Raises:
    ValueError: a checkpoint that the flags name is not there, or that of the
      folder cannot be gone on from.
  """
  if mode == 'eval_once':
    return checkpoints.resolve(
        os.path.join(folder, FLAGS.eval_once_ckpt_prefix))
  if mode != 'eval':
    sparse_flags.check_checkpoints('load_mask_dir', 'initial_value_checkpoint')
    resuming.check_same_settings(
        folder, 'output_dir', (sparsity, config),
        ('model_architecture', 'resnet_depth', 'width', 'expansion_factor',
         'num_label_classes', 'first_layer_sparsity', 'last_layer_sparsity'))
  return ''


def main(argv: list[str]) -> None:
  """Raises ValueError for what cannot be, else trains or evaluates."""
  del argv  # script.run has seen to it that there are only flags.
  sparse_flags.set_script_defaults(SCRIPT_DEFAULTS)
  sparsity, config = configs_from_flags()
  script.check_folder('output_dir', FLAGS.output_dir)
  training = make_training(sparsity, config)
  checkpoint = _find_checkpoint(FLAGS.mode, training.folder, sparsity, config)
  tpu = _find_tpu(config)
  data = imagenet_data.find_data(
      FLAGS.data_directory or '', use_synthetic_data=FLAGS.use_synthetic_data,
      num_train_images=config.num_train_images,
      num_eval_images=config.num_eval_images,
      num_classes=config.num_label_classes)
  logging.info('Data: %s. Run: %s.', data.source, training.folder)
  write_config = hooks.WriteConfigHook(training.folder, sparsity, config)
  with imagenet_input.explained_errors(data), (
      imagenet_model_fn.explained_misfits(config)):
    run(FLAGS.mode, training, data, checkpoint, write_config, tpu)


if __name__ == '__main__':
  script.run(main)
