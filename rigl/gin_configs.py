"""Reads hyperparameters from gin files, and writes those of a run."""

from __future__ import annotations

import dataclasses
import importlib.resources
import itertools
import os
import tokenize
from typing import Any, Iterable, NamedTuple, Optional

from gin import config_parser

from rigl import text_files
from rigl.compat import tf
from rigl.core import messages

CONFIG_FILE = 'config.gin'
_FORM = 'bindings are of the form <class>.<parameter> = <value>'


class _Literals(config_parser.ParserDelegate):
  """Refuses values that are not literals."""

  def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
    # Gin would call what is named.
    raise ValueError(
      f'The reference @{scoped_configurable_name}{"()" * evaluate} is not allowed: give a value.'
    )

  def macro(self, macro_name: str) -> Any:
    raise ValueError(f'The macro %{macro_name} is not allowed: give a value.')


class _Binding(NamedTuple):
  """A binding, or the head of a block of bindings, which has no field."""

  class_name: str
  field: Optional[str]
  value: Any
  place: str


def _parse(text: str, path: Any = '', above: tuple[Any, ...] = ()) -> list[_Binding]:
  """The bindings of a file, those of included files too; without a path, of --gin_bindings.

  Gin's parser reads the text. Nothing is executed, and what gin would execute, or
  apply to calls in a scope only, is refused.
  """
  source = f'The gin file {path}' if path else '--gin_bindings'
  try:
    statements = list(config_parser.ConfigParser(text, _Literals()))
  except (ValueError, SyntaxError, tokenize.TokenError) as error:
    # The number may be that of the line after the last.
    number = getattr(error, 'lineno', None) or 0
    line = ''.join(f' {line!r}' for line in text.splitlines()[max(number - 1, 0) : number])
    raise ValueError(f'{source}: {messages.reason(error)}{line} ({_FORM})') from error
  bindings: list[_Binding] = []
  for statement in statements:
    if isinstance(statement, config_parser.ImportStatement):
      raise ValueError(
        f'{source} imports a module. Only bindings of hyperparameters and includes are allowed.'
      )
    _, number, _, line = statement.location
    where = f'file "{path}",' if path else 'bindings string'
    place = f'In {where} line {number} {line.strip()}'
    if isinstance(statement, config_parser.IncludeStatement):
      included = _parse_file(statement.filename, above)
      bindings += [binding._replace(place=f'{binding.place} {place}') for binding in included]
      continue
    field = getattr(statement, 'arg_name', None)
    if field == '':
      raise ValueError(
        f'{source} binds {statement.selector} without a class: write <class>.<parameter> = '
        '<value>, such as SparsityConfig.end_sparsity = 0.95.'
      )
    if statement.scope:
      name = f'{statement.scope}/{statement.selector}' + (f'.{field}' if field else '')
      raise ValueError(
        f'{source} binds {name} in a scope. Only <class>.<parameter> = <value> has an effect.'
      )
    value = getattr(statement, 'value', None)
    bindings.append(_Binding(statement.selector, field, value, place))
  return bindings


def _read(path: Any) -> str:
  """The text of a file, which may be remote, or in a zip file if it comes with the package."""
  if not isinstance(path, str):
    return path.read_text(encoding='utf-8')
  # Python, unlike TensorFlow, knows the line ends of all systems.
  with open(path, encoding='utf-8') if os.path.isfile(path) else tf.io.gfile.GFile(path) as stream:
    return stream.read()


def _parse_file(path: Any, above: tuple[Any, ...] = ()) -> list[_Binding]:
  if path in above:
    raise ValueError(f'The gin file {path} includes itself.')
  try:
    text = _read(path)
  except (OSError, UnicodeDecodeError, tf.errors.OpError) as error:
    raise ValueError(f'Cannot read the gin file {path}: {error}') from error
  return _parse(text, path, (*above, path))


def _files_beside(module: str) -> list[Any]:
  """The gin files in the folder `configs` beside a module, by name."""
  package = module.rpartition('.')[0]
  folder = importlib.resources.files(package) / 'configs' if package else None
  if folder is None or not folder.is_dir():
    return []
  return sorted(
    (file for file in folder.iterdir() if file.name.endswith('.gin')), key=lambda file: file.name
  )


def _find(path: str, config_classes: Iterable[type]) -> Any:
  """The gin file of a path, or of the name of one that a script comes with."""
  if os.path.basename(path) != path or os.path.isfile(path):
    return path
  own = {
    file.name.removesuffix('.gin'): file
    for c in config_classes
    for file in _files_beside(c.__module__)
  }
  name = path.removesuffix('.gin')
  if own and name not in own:
    raise ValueError(
      f'There is no gin file {path}, and those that come with this script are '
      f'{", ".join(own)}.{messages.did_you_mean(messages.alike(name, own))}'
    )
  return own[name] if own else path


def read(
  paths: Iterable[str], bindings: Iterable[str], config_classes: Iterable[type]
) -> dict[tuple[type, str], Any]:
  """The bound hyperparameters.

  Args:
    paths: gin files, which may be remote; later ones win. A bare name may be
      that of a file in the folder `configs` beside the module of a class.
    bindings: lines of gin, which win over files.
    config_classes: dataclasses whose fields may be bound, by class name.

  Returns:
    {(class, field): value}.

  Raises:
    ValueError: unreadable file, an import in it, bad syntax, an unknown class
      or an unknown parameter; names it.
  """
  fields = {c: [field.name for field in dataclasses.fields(c)] for c in config_classes}
  found = [binding for path in paths for binding in _parse_file(_find(path, fields))]
  found += _parse('\n'.join(bindings))

  bound = {}
  for name, field, value, place in found:
    # A class may have the modules around it before its name.
    matching = [c for c in fields if f'.{c.__module__}.{c.__name__}'.endswith(f'.{name}')]
    if not matching:
      wrong, problem = name, f"No configurable matching '{name}'."
    elif field is None:
      continue
    elif field not in fields[matching[0]]:
      wrong, problem = field, f"Configurable '{name}' doesn't have a parameter named '{field}'."
    else:
      bound[matching[0], field] = value
      continue
    classes = sorted(c.__name__ for c in fields)
    alike = messages.alike(wrong, itertools.chain(classes, *fields.values()))
    raise ValueError(
      f'{problem} {place} ({_FORM} with a class of {classes}).{messages.did_you_mean(alike)}'
    )
  return bound


def files_in(folder: str) -> list[str]:
  """[path] of the config.gin of a run; [] without one."""
  path = os.path.join(folder, CONFIG_FILE)
  return [path] if tf.io.gfile.exists(path) else []


def values_in(folder: str) -> Optional[dict[str, Any]]:
  """{hyperparameter: value} of the config.gin of a run; None without one.

  Raises:
    ValueError: it cannot be read, or is no list of bindings; names it.
  """
  for path in files_in(folder):
    return {field: value for _, field, value, _ in _parse_file(path) if field}
  return None


def write(folder: str, *configs: Any) -> None:
  """Writes the configs to `<folder>/config.gin`, readable by --gin_config.

  The folder is made if it does not exist, and may be remote.
  """
  lines = ['# The hyperparameters in effect.']
  for config in configs:
    lines += [
      f'{type(config).__name__}.{field.name} = {getattr(config, field.name)!r}'
      for field in dataclasses.fields(config)
    ]
  text_files.write(os.path.join(folder, CONFIG_FILE), '\n'.join(lines) + '\n')
