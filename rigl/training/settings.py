"""Config objects made of settings that go by the names of the flags."""

from __future__ import annotations

import dataclasses
import os
import re
import types
from typing import Any, Mapping, TypeVar

from rigl.core import checks, messages

_Config = TypeVar('_Config')
NOT_RENAMED: Mapping[str, str] = types.MappingProxyType({})

# Settings that are paths, whose ~ the shell leaves alone behind the =.
PATHS = ('data_directory', 'eval_once_ckpt_prefix', 'gin_config',
         'initial_value_checkpoint', 'input_mask_path', 'load_mask_dir',
         'mnist', 'output', 'output_dir', 'records_path', 'save_path',
         'train_dir')


def names_of(config_class: type,
             renamed: Mapping[str, str] = NOT_RENAMED) -> dict[str, str]:
  """{field of a config class: setting that goes by the name of a flag}.

  Args:
    config_class: a dataclass.
    renamed: {field: setting} where the names differ.
  """
  return {field.name: renamed.get(field.name, field.name)
          for field in dataclasses.fields(config_class)}


def build(config_class: type[_Config], values: Mapping[str, Any],
          renamed: Mapping[str, str] = NOT_RENAMED) -> _Config:
  """A config of settings; fields without one keep their default.

  Args:
    config_class: a dataclass.
    values: {setting: value}; may hold those of other classes too.
    renamed: {field: setting} where the names differ.

  Raises:
    ValueError: a value is out of its range or unknown; names the setting.
  """
  try:
    return config_class(**{
        field: values[name]
        for field, name in names_of(config_class, renamed).items()
        if name in values})
  except ValueError as error:
    if not renamed:
      raise
    message = re.sub(r'\b(' + '|'.join(renamed) + r')\b',
                     lambda match: renamed[match[0]], str(error))
    raise ValueError(message) from error


def check_known(given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
  """Raises ValueError for a setting that does not exist.

  Args:
    given: {setting: value}.
    known: {setting: anything}.
  """
  for name in given:
    if name not in known:
      raise ValueError(f'There is no setting {name}.'
                       f'{messages.did_you_mean(messages.alike(name, known))}')


def from_keywords(given: Mapping[str, Any], defaults: Mapping[str, Any],
                  renamed: Mapping[str, str], *config_classes: type
                 ) -> list[Any]:
  """The configs of keyword arguments, which go by the names of the flags.

  Args:
    given: {setting: value}.
    defaults: {setting: value} of those that differ from the classes' own.
    renamed: {field: setting} where the names differ.
    *config_classes: dataclasses.

  Raises:
    ValueError: a setting does not exist, or its value is out of its range or
      unknown; names the setting.
  """
  fields = {
      renamed.get(field.name, field.name): field
      for config_class in config_classes
      for field in dataclasses.fields(config_class)}
  check_known(given, fields)
  for name, value in given.items():
    _check_value(name, value, fields[name])
  values = {**defaults, **given, **{
      name: checks.expanded_path(name, str(value))
      for name, value in given.items() if name in PATHS and value}}
  return [build(config_class, values, renamed)
          for config_class in config_classes]


def _check_value(name: str, value: Any, field: dataclasses.Field) -> None:
  """Raises ValueError for what the flag of a setting would refuse."""
  kind = type(field.default)
  if kind is bool and not isinstance(value, bool):
    raise ValueError(f'{name} must be True or False, got {value!r}.')
  if kind is int:
    checks.integer(name, value)
  if kind is float:
    checks.number(name, value)
  if kind is str and not isinstance(value, (str, os.PathLike)):
    raise ValueError(f'{name} must be a text, got {value!r}.')
  if field.metadata.get('options'):
    checks.one_of(name, value, field.metadata['options'])
  bound = field.metadata.get('lower_bound')
  if bound is not None and value < bound:
    raise ValueError(f'{name} must be >= {bound}, got {value}.')
