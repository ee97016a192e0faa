"""The command-line flags of a schema: a flag for each of its settings."""

from __future__ import annotations

from typing import Any, Callable

from absl import flags

from rigl.training.schema import Schema

# Flags belong to the script that asks for them, in --helpfull.
flags.disclaim_key_flags()

FLAGS = flags.FLAGS

_DEFINE_BY_TYPE: dict[type, Callable[..., Any]] = {
  bool: flags.DEFINE_bool,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  str: flags.DEFINE_string,
  tuple: flags.DEFINE_multi_string,
  type(None): flags.DEFINE_string,
}


def define(schema: Schema) -> None:
  """Defines the flags of a script.

  Scripts may share a process. A flag that another one has defined stays: only
  its type matters, since the schema has the defaults, checks and help texts.
  """
  for name, field in schema.fields.items():
    if name not in FLAGS:
      default = schema.default_of(name)
      _DEFINE_BY_TYPE[type(field.default)](
        name, list(default) if isinstance(default, tuple) else default, field.metadata['help']
      )
  for name, default in schema.not_used.items():
    if name not in FLAGS:
      _DEFINE_BY_TYPE[type(default)](name, default, 'Not used.')
  for name, setting in schema.other_names.items():
    if name not in FLAGS:
      flags.DEFINE_alias(name, setting)


def given(schema: Schema) -> dict[str, Any]:
  """{setting: value} of the flags that the user has given."""
  flag_names = {**{name: name for name in schema.fields}, **schema.other_names}
  return {
    setting: FLAGS[name].value
    for name, setting in flag_names.items()
    if not FLAGS[name].using_default_value
  }
