"""Resumes a training: checks its settings and finds the next batch."""

from __future__ import annotations

import dataclasses
from typing import Any, Sequence

from absl import logging

from rigl import checkpoint_files, gin_configs
from rigl.training import checkpoints, iterations
from rigl.training.config import SparsityConfig

# Fields that may never change on resume. The variables do not reveal them: SET
# and RigL have the same ones.
_LASTING = ('training_method', 'seed', 'batch_size', 'train_batch_size')
# Fields that determine the initial masks; not for gradual pruning.
_OF_MASKS = ('end_sparsity', 'mask_init_method', 'erk_power_scale')
# Fields that `iterations_done` needs if a checkpoint lacks `iteration`.
_SCHEDULE = (
  'maskupdate_begin_step',
  'maskupdate_end_step',
  'maskupdate_frequency',
  'training_steps_multiplier',
)
# Fields of training length and evaluation, which may change freely.
_FREE = ('num_epochs', 'max_steps', 'train_steps', 'eval_batch_size', 'num_eval_images')


def _counters(prefix: str) -> dict[str, int]:
  """{name: value} of the counters of steps that a checkpoint has."""
  shapes = checkpoint_files.open_checkpoint(prefix).get_variable_to_shape_map()
  return checkpoints.read_counters(
    prefix,
    [
      'global_step',
      *(name for name in (iterations.NAME, *iterations.UPDATE_COUNTERS) if name in shapes),
    ],
  )


def iterations_done(model_dir: str, config: SparsityConfig) -> int:
  """The number of batches that the training in a folder has used; 0 without a checkpoint.

  Checkpoints of earlier versions and of TPUs lack the variable `iteration`. Then
  the number is that of the global steps, plus that of the iterations that updated
  masks instead of training, by the schedule of `config`.
  """
  prefix = checkpoint_files.latest(model_dir)
  if not prefix:
    return 0
  counters = _counters(prefix)
  if iterations.NAME in counters:
    return counters[iterations.NAME]
  done = counters['global_step'] + counters.get('is_snipped', 0)
  if config.method.replaces_step and 'last_mask_update_step' in counters:
    done += config.update_schedule.n_updates_through(counters['last_mask_update_step'])
  return done


def differences(formers: Sequence[Any], configs: Sequence[Any], names: Sequence[str]) -> list[str]:
  """'name=former, not new' of each of the named fields that differs."""
  return [
    f'{name}={getattr(former, name)}, not {getattr(config, name)}'
    for former, config in zip(formers, configs)
    for name in names
    if getattr(former, name, None) != getattr(config, name, None)
  ]


def former_configs(folder: str, configs: Sequence[Any]) -> list[Any]:
  """The configs, of all classes in the config.gin of a run, with the values bound there."""
  bound = gin_configs.read(gin_configs.files_in(folder), (), map(type, configs))

  def former(config: Any) -> Any:
    values = {name: value for (kind, name), value in bound.items() if kind is type(config)}
    return dataclasses.replace(config, **values)

  return list(map(former, configs))


def check_same_settings(
  model_dir: str, flag: str, configs: Sequence[Any], names: Sequence[str] = ()
) -> None:
  """Raises ValueError if a training cannot resume with other settings.

  Method, seed, batch size and the sparsities of the initial masks must stay,
  and so must the schedule of RigL if the checkpoint lacks `iteration`. Other
  differences are logged as warnings, except the length of the training.

  Args:
    model_dir: folder of a training.
    flag: the flag that gave the folder, for the error.
    configs: the new configs, unscaled, of all classes in its config.gin.
    names: further fields that must stay.
  """
  prefix = checkpoint_files.latest(model_dir)
  if not prefix or not gin_configs.files_in(model_dir):
    return
  formers = former_configs(model_dir, configs)
  (method,) = (c.method for c in configs if isinstance(c, SparsityConfig))
  lasting = [*_LASTING, *names]
  if method.uses_masks and not method.prunes_gradually:
    lasting += _OF_MASKS
  found = differences(formers, configs, lasting)
  updates_replace_steps = method.is_dynamic and method.replaces_step
  if not found and updates_replace_steps and iterations.NAME not in _counters(prefix):
    found = differences(formers, configs, _SCHEDULE)
  if found:
    raise ValueError(
      f'The training in {model_dir} has {"; ".join(found)}. '
      f'Give it back its own or choose another {flag}.'
    )
  others = [
    field.name
    for config in configs
    for field in dataclasses.fields(config)
    if field.name not in _FREE
  ]
  for difference in differences(formers, configs, others):
    logging.warning('The training in %s had %s.', model_dir, difference)
