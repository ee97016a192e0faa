"""Going on with a training: by the same settings, with the next batch."""

from __future__ import annotations

import dataclasses
from typing import Any, Sequence

from absl import logging

from rigl import gin_configs
from rigl.training import checkpoints, iterations
from rigl.training.config import SparsityConfig

# Fields that may never change on resume. Variables cannot reveal them: those of
# SET are those of RigL.
_LASTING = ('training_method', 'seed', 'batch_size', 'train_batch_size')
# Fields that fixed the initial masks. Gradual pruning has none.
_OF_MASKS = ('end_sparsity', 'mask_init_method', 'erk_power_scale')
# Fields by which `iterations_done` counts, if the checkpoint does not say it.
_SCHEDULE = ('maskupdate_begin_step', 'maskupdate_end_step',
             'maskupdate_frequency', 'training_steps_multiplier')
# Fields of the length of the training and of evaluation: free to change.
_FREE = ('num_epochs', 'max_steps', 'train_steps', 'eval_batch_size',
         'num_eval_images')


def _counters(prefix: str) -> dict[str, int]:
  """{name: value} of the variables that count steps, where they exist."""
  shapes = checkpoints.open_checkpoint(prefix).get_variable_to_shape_map()
  return checkpoints.read_counters(prefix, ['global_step', *(
      name for name in (
          iterations.NAME, *iterations.UPDATE_COUNTERS) if name in shapes)])


def iterations_done(model_dir: str, config: SparsityConfig) -> int:
  """Batches that a training in `model_dir` has consumed so far.

  A checkpoint may lack the number: that of an earlier version, or of a TPU.
  Then it is the global step, and one for each iteration that set or moved masks
  instead of training, by the schedule of `config`.

  Args:
    model_dir: folder of the checkpoints; 0 when it has none.
    config: hyperparameters of that training.
  """
  prefix = checkpoints.latest(model_dir)
  if not prefix:
    return 0
  counters = _counters(prefix)
  if iterations.NAME in counters:
    return counters[iterations.NAME]
  done = counters['global_step'] + counters.get('is_snipped', 0)
  if (config.method.replaces_step and
      'last_mask_update_step' in counters):
    done += config.update_schedule.n_updates_through(
        counters['last_mask_update_step'])
  return done


def differences(formers: Sequence[Any], configs: Sequence[Any],
                names: Sequence[str]) -> list[str]:
  """'name=former, not new' of those fields that differ.

  Args:
    formers: configs of a training.
    configs: those that are compared with them.
    names: names of fields, of any of the configs.
  """
  return [
      f'{name}={getattr(former, name)}, not {getattr(config, name)}'
      for former, config in zip(formers, configs) for name in names
      if getattr(former, name, None) != getattr(config, name, None)]


def former_configs(folder: str, configs: Sequence[Any]) -> list[Any]:
  """The configs with the values that the config.gin of a run binds.

  Args:
    folder: folder of the run.
    configs: values of what is not bound there; of all classes in the file.
  """
  bound = gin_configs.read(
      gin_configs.files_in(folder), (), map(type, configs))
  return [
      dataclasses.replace(config, **{
          name: value for (config_class, name), value in bound.items()
          if config_class is type(config)}) for config in configs]


def check_same_settings(model_dir: str, flag: str, configs: Sequence[Any],
                        names: Sequence[str] = ()) -> None:
  """Raises ValueError if a training in `model_dir` cannot go on like this.

  It keeps its method, seed and batch size, and the sparsities by which its
  masks were made; and the schedule of RigL, if its checkpoint does not say how
  many batches it has taken. Of other differences it warns, but for the length.

  Args:
    model_dir: folder of a training.
    flag: that names the folder, for the error.
    configs: what it is to go on with, of all classes in its config.gin, steps
      unscaled.
    names: names of further fields that must be what they were.

  Raises:
    ValueError: names what differs, both values and the folder.
  """
  prefix = checkpoints.latest(model_dir)
  if not prefix or not gin_configs.files_in(model_dir):
    return
  formers = former_configs(model_dir, configs)
  (method,) = (c.method for c in configs if isinstance(c, SparsityConfig))
  lasting = [*_LASTING, *names]
  if method.uses_masks and not method.prunes_gradually:
    lasting += _OF_MASKS
  found = differences(formers, configs, lasting)
  if not found and method.is_dynamic and method.replaces_step and (
      iterations.NAME not in _counters(prefix)):
    found = differences(formers, configs, _SCHEDULE)
  if found:
    raise ValueError(f'The training in {model_dir} has {"; ".join(found)}. '
                     f'Give it back its own or choose another {flag}.')
  others = [field.name for config in configs
            for field in dataclasses.fields(config) if field.name not in _FREE]
  for difference in differences(formers, configs, others):
    logging.warning('The training in %s had %s.',
                    model_dir, difference)
