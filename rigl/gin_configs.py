"""Reads hyperparameters from gin files, and writes those of a run."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import importlib.resources
import os
import re
import tokenize
from typing import Any, Iterable, Optional

import gin
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


def _check(text: str, source: str, above: tuple[str, ...] = ()) -> list[Any]:
  """The statements; refuses those that gin would execute or ignore, in included files too.

  Gin runs the code of imported modules, which no file needs, and applies a
  binding in a scope to calls in that scope only, of which there are none. Gin's
  own parser reads the text, so no statement is missed.
  """
  try:
    statements = list(config_parser.ConfigParser(text, _Literals()))
  except (ValueError, SyntaxError, tokenize.TokenError) as error:
    # The number may be that of the line after the last.
    number = getattr(error, 'lineno', None) or 0
    line = ''.join(f' {line!r}' for line in text.splitlines()[max(number - 1, 0) : number])
    raise ValueError(f'{source}: {messages.reason(error)}{line} ({_FORM})') from error
  for statement in statements:
    if isinstance(statement, config_parser.ImportStatement):
      raise ValueError(
        f'{source} imports a module. Only bindings of hyperparameters and includes are allowed.'
      )
    if isinstance(statement, config_parser.IncludeStatement):
      _check_file(statement.filename, above)
    elif isinstance(statement, config_parser.BindingStatement) and (not statement.arg_name):
      raise ValueError(
        f'{source} binds {statement.selector} without a class: write <class>.<parameter> = '
        '<value>, such as SparsityConfig.end_sparsity = 0.95.'
      )
    elif statement.scope:
      name = f'{statement.scope}/{statement.selector}'
      if isinstance(statement, config_parser.BindingStatement):
        name += f'.{statement.arg_name}'
      raise ValueError(
        f'{source} binds {name} in a scope. Only <class>.<parameter> = <value> has an effect.'
      )
  return statements


# Gin files of a package in a zip file, until the program ends.
_unzipped = contextlib.ExitStack()
atexit.register(_unzipped.close)


def _open(path: str) -> Any:
  """Opens a file as gin does, so that gin reads the lines that were checked."""
  if os.path.isfile(path):
    return open(path, encoding='utf-8')
  return tf.io.gfile.GFile(path)


# Lambdas, because naming TensorFlow's functions here would load it.
gin.config.register_file_reader(
  lambda path: tf.io.gfile.GFile(path), lambda path: tf.io.gfile.exists(path)
)


def _check_file(path: str, above: tuple[str, ...] = ()) -> list[Any]:
  """The statements of a file, see `_check`."""
  if path in above:
    raise ValueError(f'The gin file {path} includes itself.')
  try:
    with _open(path) as stream:
      text = stream.read()
  except (OSError, UnicodeDecodeError, tf.errors.OpError) as error:
    raise ValueError(f'Cannot read the gin file {path}: {error}') from error
  return _check(text, f'The gin file {path}', (*above, path))


def _files_beside(module: str) -> list[Any]:
  """The gin files in the folder `configs` beside a module, by name."""
  package = module.rpartition('.')[0]
  folder = importlib.resources.files(package) / 'configs' if package else None
  if folder is None or not folder.is_dir():
    return []
  return sorted(
    (file for file in folder.iterdir() if file.name.endswith('.gin')), key=lambda file: file.name
  )


# Gin refuses to register a class twice.
_register = functools.cache(gin.external_configurable)


def _find(path: str, config_classes: Iterable[type]) -> str:
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
  if not own:
    return path
  return str(_unzipped.enter_context(importlib.resources.as_file(own[name])))


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
  config_classes = list(config_classes)
  paths = [_find(path, config_classes) for path in paths]
  for path in paths:
    _check_file(path)
  _check('\n'.join(bindings), '--gin_bindings')
  gin.clear_config(clear_constants=True)
  for config_class in config_classes:
    _register(config_class)
  known = {c.__name__ for c in config_classes}
  try:
    gin.parse_config_files_and_bindings(list(paths), list(bindings))
  except (ValueError, SyntaxError) as error:
    known_names = [*known, *(field.name for c in config_classes for field in dataclasses.fields(c))]
    alike = [
      name
      for word in re.findall(r"'(\w+)'", str(error))
      if word not in known
      for name in messages.alike(word, known_names)
    ]
    raise ValueError(
      f'{messages.reason(error)} ({_FORM} with a class of '
      f'{sorted(known)}).{messages.did_you_mean(alike)}'
    ) from error
  bound = {}
  for config_class in config_classes:
    for field in dataclasses.fields(config_class):
      name = f'{config_class.__name__}.{field.name}'
      with contextlib.suppress(ValueError):  # Not bound.
        bound[config_class, field.name] = gin.query_parameter(name)
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
    return {
      statement.arg_name: statement.value
      for statement in _check_file(path)
      if isinstance(statement, config_parser.BindingStatement)
    }
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
