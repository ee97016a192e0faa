"""Settings: dataclass fields that are flags, gin parameters and keywords.

A field made by `setting` has everything about a hyperparameter in one place: type,
default, help, group in --help and check. A `Schema` lists the dataclasses of one
script. Values of the command line, of gin and of calls from Python take the same
way:

    {name: value} -> Schema.hyperparameters and Schema.settings -> dataclasses
"""

from __future__ import annotations

import dataclasses
import functools
import os
import types
from typing import Any, Callable, Mapping, Optional, Sequence

from rigl import gin_configs
from rigl.core import checks, messages

# Groups of --help, in this order.
GROUPS = (
  'General',
  'Sparse training',
  'Mask updates',
  'Gradual pruning',
  'Network',
  'Optimisation',
  'Data',
  'Evaluation',
  'Output',
  'Devices',
  'Not used',
)

Options = Mapping[str, str] | Sequence[str]


def setting(
  default: Any,
  group: str,
  help_text: str,
  *,
  check: Optional[Callable[[str, Any], Any]] = None,
  options: Options | Callable[[], Options] = (),
  aliases: Mapping[str, str] = types.MappingProxyType({}),
  is_path: bool = False,
) -> Any:
  """A field of a `Settings` class.

  Args:
    default: default value; its type is that of the setting, text for None.
    group: one of GROUPS.
    help_text: what the setting means.
    check: called with name and value; raises ValueError for a wrong value.
    options: the values that are allowed, or a function that returns them; a
      mapping also says what each means.
    aliases: {other name of an option: option}.
    is_path: whether the value is a path, or several, in which ~ is the home
      folder.
  """
  checks.one_of('group', group, GROUPS)
  return dataclasses.field(
    default=default,
    metadata=dict(
      group=group,
      help=help_text,
      check=check,
      options=options if callable(options) else lambda: options,
      aliases=aliases,
      is_path=is_path,
    ),
  )


def _typed(name: str, value: Any, kind: type) -> Any:
  """The value as a `kind`, or raises ValueError."""
  if kind is bool and not isinstance(value, bool):
    raise ValueError(f'{name} must be True or False, got {value!r}.')
  if kind is int:
    checks.integer(name, value)
  if kind is float:
    checks.number(name, value)
    return float(value)
  if kind is tuple:
    return (value,) if isinstance(value, str) else tuple(value)
  if kind in (str, type(None)):
    if not isinstance(value, (str, os.PathLike)):
      raise ValueError(f'{name} must be a text, got {value!r}.')
    return os.fspath(value)
  return value


def _checked(field: dataclasses.Field, value: Any) -> Any:
  """The value of a field, paths expanded, or raises ValueError."""
  name, metadata = field.name, field.metadata
  value = _typed(name, value, type(field.default))
  if metadata['is_path']:
    if isinstance(value, tuple):
      return tuple(checks.expanded_path(name, path) for path in value)
    return checks.expanded_path(name, value)
  if options := metadata['options']():
    value = metadata['aliases'].get(value, value)
    checks.one_of(name, value, options, filter(None, metadata['aliases']))
  if metadata['check']:
    metadata['check'](name, value)
  return value


@dataclasses.dataclass(frozen=True)
class Settings:
  """Base class of frozen dataclasses whose fields are made by `setting`.

  Raises:
    ValueError: a value is of the wrong type, out of its range or unknown; names
      the field.
  """

  def __post_init__(self) -> None:
    """Checks each field by itself; a subclass adds what fields have in common."""
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      # A script may have None as its default, see Schema.defaults.
      if value is not None:
        object.__setattr__(self, field.name, _checked(field, value))


@dataclasses.dataclass(frozen=True)
class Schema:
  """The settings of one script.

  Attributes:
    hyperparameter_classes: `Settings` classes that fix the training; gin may
      set them, and a run keeps them in its config.gin.
    settings_class: the `Settings` class of all else: files, devices.
    folder: name of the setting that is the folder of runs.
    defaults: {name: value} of defaults that differ from those of the classes.
    other_names: {name: setting} of what settings were called in 2020.
    not_used: {name: default} of flags of 2020 that have no effect.
  """

  hyperparameter_classes: tuple[type, ...]
  settings_class: type
  folder: str = ''
  defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  other_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
  not_used: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @functools.cached_property
  def fields(self) -> dict[str, dataclasses.Field]:
    """{name: field} of all settings."""
    return {
      field.name: field
      for config_class in (*self.hyperparameter_classes, self.settings_class)
      for field in dataclasses.fields(config_class)
    }

  def default_of(self, name: str) -> Any:
    """The default of a setting in this script."""
    return self.defaults.get(name, self.fields[name].default)

  def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values by the names of fields, each checked by itself.

    Raises:
      ValueError: a setting does not exist or is given by two names, or its
        value is of the wrong type, out of its range or unknown; names it.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
      field_name = self.other_names.get(name, name)
      if field_name not in self.fields:
        names = [*self.fields, *self.other_names]
        raise ValueError(
          f'There is no setting {name}.{messages.did_you_mean(messages.alike(name, names))}'
        )
      if field_name in values:
        raise ValueError(f'{name} is given twice: it is another name of {field_name}.')
      values[field_name] = self._checked(field_name, value)
    return values

  def _checked(self, name: str, value: Any) -> Any:
    if value is None:
      if self.default_of(name) is None:
        return None
      raise ValueError(f'{name} = None: expected a value.')
    return _checked(self.fields[name], value)

  def _build(self, config_class: type, values: Mapping[str, Any]) -> Any:
    values = {**self.defaults, **values}
    return config_class(
      **{
        field.name: values[field.name]
        for field in dataclasses.fields(config_class)
        if field.name in values
      }
    )

  def settings(self, given: Mapping[str, Any]) -> Any:
    """The instance of `settings_class`, see `checked`; hyperparameters may be given, too."""
    return self._build(self.settings_class, self.checked(given))

  def hyperparameters(
    self, given: Mapping[str, Any], run_folder: Optional[str] = None
  ) -> list[Any]:
    """The instances of `hyperparameter_classes`, schedules not scaled yet.

    Given values come before gin_bindings, gin_config, what the run in
    `run_folder` had, and defaults, in this order.

    Args:
      given: {name: value}; may hold other settings too, such as gin_config.
      run_folder: folder of a run to evaluate, which may have a config.gin.

    Raises:
      ValueError: see `checked`; or values, or gin files, contradict each other.
    """
    values = self.checked(given)
    paths = [
      *(gin_configs.files_in(run_folder) if run_folder else ()),
      *values.get('gin_config', ()),
    ]
    bindings = values.get('gin_bindings', ())
    bound = {}
    if paths or bindings:
      for (config_class, name), value in gin_configs.read(
        paths, bindings, self.hyperparameter_classes
      ).items():
        try:
          bound[name] = self._checked(name, value)
        except ValueError as error:
          raise ValueError(f'{config_class.__name__}.{name} = {value!r}: {error}') from error
    return [
      self._build(config_class, {**bound, **values}) for config_class in self.hyperparameter_classes
    ]
