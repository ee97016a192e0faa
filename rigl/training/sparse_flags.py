"""Command-line flags that two or three scripts share, each defined once.

A script calls `define` for the shared flags it reads, keeps its own defaults
of them in a dict, and applies these with `set_script_defaults`; a value given
on the command line wins, and so do gin bindings over defaults:

    command line > --gin_bindings > --gin_config > default of the script
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
from typing import Any, Callable, Mapping

from absl import flags

from rigl.core import distributions, growth, schedules
from rigl.training import finite, gin_configs, methods
from rigl.training.config import SparsityConfig

# Flags belong to the script that asks for them, in --help and elsewhere.
flags.disclaim_key_flags()

FLAGS = flags.FLAGS

_METHODS_HELP = 'Training method: ' + '; '.join(
    f'{name}: {method.description}'
    for name, method in methods.METHODS.items()) + '.'

_Definition = tuple[Callable[..., Any], Any, str]

# All modes of all scripts: an enum can be defined only once in a process. Each
# script checks that it has the mode.
_MODES = ('train', 'eval', 'eval_once', 'train_and_eval')

def _define_on_nan(name: str, default: str, help_text: str) -> None:
  flags.DEFINE_enum(name, default, finite.ON_NAN, help_text)


_SHARED: dict[str, _Definition] = {
    'seed': (flags.DEFINE_integer, 0,
             'Seed of weights, masks, mask updates and order of examples.'),
    'momentum': (flags.DEFINE_float, 0.9,
                 'Momentum coefficient of the inner optimizer.'),
    'mask_init_method': (
        flags.DEFINE_string, 'random',
        'How sparsity is spread over layers: ' +
        ', '.join(distributions.DISTRIBUTIONS) + '.'),
    'erk_power_scale': (
        flags.DEFINE_float, 1.0,
        'Exponent of the raw densities of erdos_renyi_kernel.'),
    'end_sparsity': (flags.DEFINE_float, 0.9,
                     'Target sparsity, in [0, 1).'),
    'drop_fraction': (
        flags.DEFINE_float, 0.3,
        'Share of the active connections that a mask update replaces; the '
        'first value, if annealed.'),
    'drop_fraction_anneal': (
        flags.DEFINE_string, 'constant', 'How the drop fraction changes: ' +
        ', '.join(schedules.DROP_FRACTION_ANNEALS) + '.'),
    'grow_init': (
        flags.DEFINE_string, 'zeros', 'Initial value of new connections: ' +
        ', '.join(growth.GROW_INITS) + '; a trailing _<number> divides.'),
    's_momentum': (
        flags.DEFINE_float, 0.9,
        'momentum (SNFS): decay of the averaged dense gradient.'),
    'rigl_acc_scale': (
        flags.DEFINE_float, 0.0,
        'rigl: optimizer slots of new connections start at their initial '
        'value plus this times the dense gradient.'),
    'maskupdate_begin_step': (
        flags.DEFINE_integer, 0, 'First global step that may move masks.'),
    'maskupdate_end_step': (
        flags.DEFINE_integer, 25000,
        'Last global step that may move masks; negative for no end.'),
    'maskupdate_frequency': (
        flags.DEFINE_integer, 100, 'Steps between mask updates.'),
    'pruning_frequency': (
        flags.DEFINE_integer, 500, 'prune: steps between mask updates.'),
    'threshold_decay': (
        flags.DEFINE_float, 0.0,
        'prune: smoothing of the magnitude threshold, in [0, 1).'),
    'training_steps_multiplier': (
        flags.DEFINE_float, 1.0,
        'Stretches the training and all its schedules by this factor.'),
    'load_mask_dir': (
        flags.DEFINE_string, '',
        'Checkpoint (prefix or folder) whose masks, and nothing else, are '
        'used instead of random ones.'),
    'initial_value_checkpoint': (
        flags.DEFINE_string, '',
        'Checkpoint (prefix or folder) whose parameters, and nothing else, '
        'training starts from.'),
    'data_directory': (flags.DEFINE_string, '', 'Folder of the data set.'),
    'keep_checkpoint_max': (
        functools.partial(flags.DEFINE_integer, lower_bound=0), 5,
        'Checkpoints to keep; 0 for all.'),
    'resnet_depth': (flags.DEFINE_integer, 50, 'Depth of the ResNet.'),
    'batch_size': (flags.DEFINE_integer, 128, 'Examples in a batch.'),
    'use_synthetic_data': (
        flags.DEFINE_bool, False,
        'Train on made-up, learnable data instead of the data set.'),
    'on_nan': (
        _define_on_nan, 'stop',
        'On a step whose loss or gradients are NaN or infinite: stop: end the '
        'training, the last checkpoint is kept; skip: train nothing on this '
        'step and go on.'),
    'master': (flags.DEFINE_string, '', 'Not used: address of a master.'),
    'ps_task': (flags.DEFINE_integer, 0, 'Not used: task of a server.'),
    'gin_config': (
        flags.DEFINE_multi_string, [],
        'Gin files of hyperparameters: lines such as '
        'SparsityConfig.end_sparsity = 0.95. May be repeated.'),
    'gin_bindings': (
        flags.DEFINE_multi_string, [],
        "Gin bindings, such as 'SparsityConfig.end_sparsity = 0.95'. May be "
        'repeated.'),
}


def define(*names: str) -> None:
  """Defines shared flags as flags of the calling script.

  Scripts may share a process, so a flag another one has defined stays.

  Args:
    *names: of shared flags.
  """
  for name in names:
    if name not in FLAGS:
      define_fn, default, help_text = _SHARED[name]
      define_fn(name, default, help_text)
    flags.declare_key_flag(name)


def define_method(default: str) -> None:
  """Defines --training_method with all methods.

  Args:
    default: its value unless given.
  """
  if 'training_method' not in FLAGS:
    flags.DEFINE_enum(
        'training_method', default, list(methods.METHODS), _METHODS_HELP)
  flags.declare_key_flag('training_method')


def define_mode(default: str) -> None:
  """Defines --mode.

  Args:
    default: its value unless given.
  """
  if 'mode' not in FLAGS:
    flags.DEFINE_enum(
        'mode', default, _MODES,
        'train; eval: evaluate each checkpoint as it is written; eval_once: '
        'evaluate one checkpoint (ImageNet only); train_and_eval: in turns.')
  flags.declare_key_flag('mode')


def set_script_defaults(defaults: Mapping[str, Any]) -> None:
  """Sets a script's defaults of shared flags; given values stay.

  Called at import, so that `--help` is right, and again by `main`, because
  another script in the process may have set its own in between.

  Args:
    defaults: {flag: value}.
  """
  for name, value in defaults.items():
    FLAGS.set_default(name, value)


def config_from_flags(
    renamed: Mapping[str, str] = types.MappingProxyType({}),
    **fields: Any) -> SparsityConfig:
  """The SparsityConfig of the flags that bear the names of its fields.

  Args:
    renamed: {field: flag} where the names differ.
    **fields: values of further fields. Fields without a flag or a value keep
      the default of the class.

  Raises:
    ValueError: a value is out of its range or unknown; names the flag.
  """
  values = {field: FLAGS[flag].value
            for field, flag in flags_of(SparsityConfig, renamed).items()}
  # '' is the default of the ImageNet script; it has no other meaning.
  values['mask_init_method'] = values.get('mask_init_method') or 'random'
  try:
    return SparsityConfig(**{**values, **fields})
  except ValueError as error:
    if not renamed:
      raise
    message = re.sub(r'\b(' + '|'.join(renamed) + r')\b',
                     lambda match: renamed[match[0]], str(error))
    raise ValueError(message) from error


def flags_of(config_class: type,
             renamed: Mapping[str, str] = types.MappingProxyType({})
            ) -> dict[str, str]:
  """{field: flag} of the fields of a config class that have a flag.

  Args:
    config_class: a dataclass.
    renamed: {field: flag} where the names differ.
  """
  names = {field.name: renamed.get(field.name, field.name)
           for field in dataclasses.fields(config_class)}
  return {field: flag for field, flag in names.items() if flag in FLAGS}


def user_gave(name: str) -> bool:
  """Whether the flag was given on the command line.

  Args:
    name: of the flag.
  """
  return FLAGS[name].present > 0


def apply_gin(flags_of_class: Mapping[type, Mapping[str, str]]) -> None:
  """Turns the bindings of --gin_config and --gin_bindings into flag defaults.

  So a flag that was given on the command line wins.

  Args:
    flags_of_class: config class -> {field: flag} of what gin may set.

  Raises:
    ValueError: an unknown class or parameter, or a value that its flag
      rejects; names it.
  """
  if not FLAGS.gin_config and not FLAGS.gin_bindings:
    return
  bound = gin_configs.read(
      FLAGS.gin_config, FLAGS.gin_bindings, flags_of_class)
  for (config_class, field), value in bound.items():
    if field not in flags_of_class[config_class]:
      raise ValueError(f'{config_class.__name__}.{field} has no meaning for '
                       'this script.')
    if value is None:
      raise ValueError(f'{config_class.__name__}.{field} = None: expected a '
                       'value.')
    try:
      set_script_defaults({flags_of_class[config_class][field]: value})
    except flags.IllegalFlagValueError as error:
      raise ValueError(
          f'{config_class.__name__}.{field} = {value!r}: {error}') from error
