"""Dataclasses of settings and the flags that bear the names of their fields."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Callable, Mapping, Optional, Sequence, TypeVar

from absl import flags

from rigl import gin_configs
from rigl.training import command_line, settings, sparse_flags
from rigl.training.config import SparsityConfig

# Flags belong to the script that asks for them, in --help and elsewhere.
flags.disclaim_key_flags()

FLAGS = flags.FLAGS

# The dataclass of a script's own settings.
_Config = TypeVar('_Config')

_DEFINE_BY_TYPE: dict[type, Callable[..., Any]] = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    type(None): flags.DEFINE_string,
}


def define(config_class: type) -> None:
  """Defines a flag for each field that config.setting has made.

  Args:
    config_class: a dataclass.
  """
  for field in dataclasses.fields(config_class):
    if not field.metadata:
      continue
    define_fn = _DEFINE_BY_TYPE[type(field.default)]
    if field.metadata['options']:
      define_fn = functools.partial(
          flags.DEFINE_enum, enum_values=field.metadata['options'])
    elif field.metadata['lower_bound'] is not None:
      define_fn = functools.partial(
          define_fn, lower_bound=field.metadata['lower_bound'])
    with command_line.group(field.metadata['group']):
      define_fn(
          field.name, default=field.default, help=field.metadata['help'])


def _flags_of(config_class: type,
              renamed: Mapping[str, str] = settings.NOT_RENAMED
             ) -> dict[str, str]:
  """{field: flag} of the fields of a config class that have a flag.

  Args:
    config_class: a dataclass.
    renamed: {field: flag} where the names differ.
  """
  names = settings.names_of(config_class, renamed)
  return {field: flag for field, flag in names.items() if flag in FLAGS}


def from_flags(config_class: type[_Config],
               renamed: Mapping[str, str] = settings.NOT_RENAMED) -> _Config:
  """A config class with the values of the flags of its fields' names.

  Fields without a flag keep the default of the class.

  Args:
    config_class: a dataclass.
    renamed: {field: flag} where the names differ.

  Raises:
    ValueError: a value is out of its range or unknown; names the flag.
  """
  return settings.build(config_class, {
      flag: FLAGS[flag].value
      for flag in _flags_of(config_class, renamed).values()}, renamed)


def _apply_gin(flags_of_class: Mapping[type, Mapping[str, str]],
               first: Sequence[str]) -> None:
  """Turns the bindings of --gin_config and --gin_bindings into flag defaults.

  So a flag that was given on the command line wins.

  Args:
    flags_of_class: config class -> {field: flag} of what gin may set.
    first: gin files over which those of --gin_config win.

  Raises:
    ValueError: an unknown class or parameter, or a value that its flag
      rejects; names it.
  """
  paths = [*first, *FLAGS.gin_config]
  if not paths and not FLAGS.gin_bindings:
    return
  bound = gin_configs.read(paths, FLAGS.gin_bindings, flags_of_class)
  for (config_class, field), value in bound.items():
    if value is None:
      raise ValueError(f'{config_class.__name__}.{field} = None: expected a '
                       'value.')
    try:
      sparse_flags.set_script_defaults(
          {flags_of_class[config_class][field]: value})
    except flags.IllegalFlagValueError as error:
      raise ValueError(
          f'{config_class.__name__}.{field} = {value!r}: {error}') from error


def hyperparameters(
    config_class: type[_Config],
    renamed: Mapping[str, str] = settings.NOT_RENAMED,
    run_folder: Optional[str] = None) -> tuple[SparsityConfig, _Config]:
  """What flags and gin bindings give, times of schedules not stretched yet.

  Args:
    config_class: dataclass of a script's own hyperparameters, each of which
      has a flag of its name.
    renamed: {field of SparsityConfig: flag} where the names differ.
    run_folder: folder of a run that is to be evaluated, whose config.gin says
      what neither flags nor gin say; None without one.

  Raises:
    ValueError: a value is out of its range or unknown, or two contradict each
      other; names the flags.
  """
  _apply_gin({SparsityConfig: _flags_of(SparsityConfig, renamed),
              config_class: _flags_of(config_class)},
             () if run_folder is None else gin_configs.files_in(run_folder))
  config = from_flags(config_class)
  return from_flags(SparsityConfig, renamed), config
