"""Command-line flags that two or three scripts share, each defined once.

A script keeps its own defaults of them in a dict. It calls `define_script` with
these and the names of further shared flags that it reads, and
`set_script_defaults` again when it starts. A value given on the command line
wins, and so do gin bindings over defaults:

    command line > --gin_bindings > --gin_config > default of the script
"""

from __future__ import annotations

import functools
import types
from typing import Any, Callable, Mapping, Optional, Sequence

from absl import flags

from rigl.core import growth, methods, schedules
from rigl.training import command_line, config, names

# Flags belong to the script that asks for them, in --help and elsewhere.
flags.disclaim_key_flags()

FLAGS = flags.FLAGS

_METHODS_HELP = 'Training method. ' + '; '.join(
    f'{name}: {method.description}' + f' ({method.paper})' * bool(method.paper)
    for name, method in methods.METHODS.items()) + (
        '. Other names: ') + '; '.join(
            f'{other} is {name}' for other, name in names.METHODS.items()) + '.'

_Definition = tuple[Callable[..., Any], Any, str]

_MODES = {
    'train': 'train, on from the last checkpoint if there is one',
    'eval': 'follow a run and evaluate its newest checkpoint at each look',
    'eval_once': 'evaluate one checkpoint',
    'train_and_eval': 'both in turns',
}


def _define_loop(name: str, default: Optional[str], help_text: str) -> None:
  flags.DEFINE_enum(name, default, config.LOOPS, help_text)


# {group of --help: {name of the flag: its definition}}.
_GROUPS: dict[str, dict[str, _Definition]] = {
    'General': {
        'seed': (
            flags.DEFINE_integer, 0,
            'Seed of weights, masks, mask updates and order of examples.'),
        'gin_config': (
            flags.DEFINE_multi_string, [],
            'Gin file of hyperparameters, lines such as '
            'SparsityConfig.end_sparsity = 0.95; or the name of one that comes '
            'with this script, such as rigl'),
        'gin_bindings': (
            flags.DEFINE_multi_string, [],
            "Gin binding, such as 'SparsityConfig.end_sparsity = 0.95'"),
    },
    'Sparse training': {
        'end_sparsity': (
            flags.DEFINE_float, 0.9, 'Target sparsity, in [0, 1).'),
        'mask_init_method': (
            flags.DEFINE_string, 'random',
            'How sparsity is spread over layers: random (the same in each), '
            'erdos_renyi, erdos_renyi_kernel (ERK), str (the table published '
            'with STR); random if it is uniform or empty.'),
        'erk_power_scale': (
            flags.DEFINE_float, 1.0,
            'Exponent of the raw densities of erdos_renyi_kernel.'),
        'load_mask_dir': (
            flags.DEFINE_string, '',
            'Checkpoint (prefix or folder) whose masks, and nothing else, are '
            'used instead of random ones.'),
    },
    'Mask updates': {
        'drop_fraction': (
            flags.DEFINE_float, 0.3,
            'Share of the active connections that a mask update replaces; the '
            'first value, if annealed.'),
        'drop_fraction_anneal': (
            flags.DEFINE_string, 'constant',
            'How the drop fraction changes: ' +
            ', '.join(schedules.DROP_FRACTION_ANNEALS) + '.'),
        'maskupdate_begin_step': (
            flags.DEFINE_integer, 0,
            'First global step that may move masks.'),
        'maskupdate_end_step': (
            flags.DEFINE_integer, 25000,
            'Last global step that may move masks; negative for no end.'),
        'maskupdate_frequency': (
            flags.DEFINE_integer, 100, 'Steps between mask updates.'),
        'grow_init': (
            flags.DEFINE_string, 'zeros', 'Initial value of new connections: ' +
            ', '.join(growth.GROW_INITS) + '; a trailing _<number> divides.'),
        'rigl_acc_scale': (
            flags.DEFINE_float, 0.0,
            'rigl: optimizer slots of new connections start at their initial '
            'value plus this times the dense gradient; for sgd and momentum.'),
        's_momentum': (
            flags.DEFINE_float, 0.9,
            'momentum (SNFS): decay of the averaged dense gradient.'),
    },
    'Gradual pruning': {
        'pruning_frequency': (
            flags.DEFINE_integer, 500, 'prune: steps between mask updates.'),
        'threshold_decay': (
            flags.DEFINE_float, 0.0,
            'prune: smoothing of the magnitude threshold, in [0, 1).'),
    },
    'Network': {
        'resnet_depth': (flags.DEFINE_integer, 50, 'Depth of the network.'),
    },
    'Optimisation': {
        'batch_size': (flags.DEFINE_integer, 128, 'Examples in a batch.'),
        'training_steps_multiplier': (
            flags.DEFINE_float, 1.0,
            'Stretches the training and all its schedules by this factor.'),
        'momentum': (
            flags.DEFINE_float, 0.9,
            'Momentum coefficient of the inner optimizer.'),
        'initial_value_checkpoint': (
            flags.DEFINE_string, '',
            'Checkpoint (prefix or folder) whose parameters, and nothing else, '
            'training starts from.'),
    },
    'Data': {
        'data_directory': (
            flags.DEFINE_string, '', 'Folder of the data set.'),
        'use_synthetic_data': (
            flags.DEFINE_bool, False,
            'Train on made-up, learnable data instead of the data set.'),
    },
    'Output': {
        'keep_checkpoint_max': (
            functools.partial(flags.DEFINE_integer, lower_bound=0), 5,
            'Checkpoints to keep; 0 for all.'),
    },
    'Devices': {
        'num_replicas': (
            flags.DEFINE_integer, 1,
            'Devices of this process that share each batch, without a TPU: '
            'GPUs if there are any, else logical CPU devices. Processes that '
            'share it are the workers of the environment variable '
            'TF_CONFIG.'),
        'loop': (
            _define_loop, None,
            'What runs the training: tpu_estimator needs TensorFlow 2.15, and '
            'one device or a TPU; session works everywhere but on a TPU. Both '
            'give the same bits. tpu_estimator where it can be used, unless '
            'given.'),
        'master': (flags.DEFINE_string, '', 'Address of the TPU.'),
    },
    'Not used': {
        'ps_task': (flags.DEFINE_integer, 0, 'Not used: task of a server.'),
    },
}
# Those that every script has.
_OF_ALL = (
    'drop_fraction', 'erk_power_scale', 'gin_bindings', 'gin_config',
    'grow_init', 'loop', 'maskupdate_begin_step', 'maskupdate_frequency',
    'momentum', 'num_replicas', 'rigl_acc_scale', 's_momentum', 'seed',
    'threshold_decay')
_SHARED = {
    name: definition for definitions in _GROUPS.values()
    for name, definition in definitions.items()}


def define(*names: str,
           helps: Mapping[str, str] = types.MappingProxyType({})) -> None:
  """Defines shared flags as flags of the calling script.

  Scripts may share a process, so a flag another one has defined stays.

  Args:
    *names: names of shared flags.
    helps: {name: what the flag means to this script}, where that differs. One
      that begins with 'Not used' goes to the flags that are not.

  Raises:
    ValueError: a flag is not shared.
  """
  unknown = sorted(set(names) - set(_SHARED))
  if unknown:
    raise ValueError(f'{", ".join(unknown)}: not among the shared flags.')
  for title, definitions in _GROUPS.items():
    for name, (define_fn, default, help_text) in definitions.items():
      if name not in names:
        continue
      if name not in FLAGS:
        text = helps.get(name, help_text)
        with command_line.group(
            'Not used' if text.startswith('Not used') else title,
            is_shared=True):
          define_fn(name, default, text)
      flags.declare_key_flag(name)


class _MethodParser(flags.EnumParser):
  """Knows other names of methods, and those that a user may have meant."""

  def parse(self, argument: str) -> str:
    """The name of a method."""
    return names.method(argument)


def define_method(default: str) -> None:
  """Defines --training_method with all methods.

  Args:
    default: its value unless given.
  """
  if 'training_method' not in FLAGS:
    with command_line.group('Sparse training'):
      flags.DEFINE_enum(
          'training_method', default, list(methods.METHODS), _METHODS_HELP)
    FLAGS['training_method'].parser = _MethodParser(list(methods.METHODS))
  flags.declare_key_flag('training_method')


def define_mode(default: str, modes: Sequence[str]) -> None:
  """Defines --mode.

  Scripts in one process share the flag, so a script whose modes are not all
  modes must check that it has the one it is given.

  Args:
    default: its value unless given.
    modes: those of the script.
  """
  if 'mode' not in FLAGS:
    meanings = [f'{mode}: {_MODES[mode]}' for mode in modes]
    with command_line.group('General'):
      flags.DEFINE_enum('mode', default, modes, 'What to do. '
                        f'{"; ".join(meanings)}.')
  parser: Any = FLAGS['mode'].parser
  parser.enum_values = list(dict.fromkeys([*parser.enum_values, *modes]))
  flags.declare_key_flag('mode')


def define_script(defaults: Mapping[str, Any], *names: str,
                  modes: Sequence[str] = tuple(_MODES),
                  helps: Mapping[str, str] = types.MappingProxyType({})
                 ) -> None:
  """Defines the shared flags of the calling script, those of all scripts too.

  Args:
    defaults: {flag: value} of those whose defaults are the script's own, with
      training_method and, if it has modes, mode among them.
    *names: further ones.
    modes: those of the script.
    helps: see `define`.
  """
  define_method(defaults['training_method'])
  if 'mode' in defaults:
    define_mode(defaults['mode'], modes)
  define(*_OF_ALL, *names, *(name for name in defaults if name in _SHARED),
         helps=helps)
  set_script_defaults(defaults)


def set_script_defaults(defaults: Mapping[str, Any]) -> None:
  """Sets a script's defaults of shared flags; given values stay.

  Called at import, so that `--help` is right, and again by `main`, because
  another script in the process may have set its own in between.

  Args:
    defaults: {flag: value}.
  """
  for name, value in defaults.items():
    FLAGS.set_default(name, value)


def user_gave(name: str) -> bool:
  """Whether the flag was given on the command line.

  Args:
    name: name of the flag.
  """
  return FLAGS[name].present > 0
