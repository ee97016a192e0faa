"""Config classes in gin files: reading bindings, writing what was in effect."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tokenize
from typing import Any, Iterable

import gin
from gin import config_parser

from rigl.compat import tf

CONFIG_FILE = 'config.gin'
_FORM = 'bindings are of the form <class>.<parameter> = <value>'


class _Literals(config_parser.ParserDelegate):
  """Refuses values that are more than literals."""

  def configurable_reference(self, scoped_configurable_name: str,
                             evaluate: bool) -> Any:
    # Gin would call what is named.
    raise ValueError(f'The reference @{scoped_configurable_name}'
                     f'{"()" * evaluate} is not allowed: give a value.')

  def macro(self, macro_name: str) -> Any:
    raise ValueError(f'The macro %{macro_name} is not allowed: give a value.')


def _check(text: str, source: str, above: tuple[str, ...] = ()) -> None:
  """Refuses what gin would run or lose, here and in included files.

  Gin would run the code of a module that is imported; none needs it. It would
  keep a binding in a scope for a call in that scope, and there is none. Read
  by gin's own parser, so that nothing is overlooked that gin then finds.
  """
  try:
    statements = list(config_parser.ConfigParser(text, _Literals()))
  except (ValueError, SyntaxError, tokenize.TokenError) as error:
    message = ' '.join(str(error).split())
    number = getattr(error, 'lineno', None)
    line = f' {text.splitlines()[number - 1]!r}' if number else ''
    raise ValueError(f'{source}: {message}{line} ({_FORM})') from error
  for statement in statements:
    if isinstance(statement, config_parser.ImportStatement):
      raise ValueError(f'{source} imports a module. Only bindings of '
                       'hyperparameters and includes are allowed.')
    if isinstance(statement, config_parser.IncludeStatement):
      _check_file(statement.filename, above)
    elif statement.scope:
      name = f'{statement.scope}/{statement.selector}'
      if isinstance(statement, config_parser.BindingStatement):
        name += f'.{statement.arg_name}'
      raise ValueError(f'{source} binds {name} in a scope. Only '
                       '<class>.<parameter> = <value> has an effect.')


def _check_file(path: str, above: tuple[str, ...] = ()) -> None:
  if path in above:
    raise ValueError(f'The gin file {path} includes itself.')
  try:
    text = pathlib.Path(path).read_text(encoding='utf-8')
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(f'Cannot read the gin file {path}: {error}') from error
  _check(text, f'The gin file {path}', (*above, path))


def read(paths: Iterable[str], bindings: Iterable[str],
         config_classes: Iterable[type]) -> dict[tuple[type, str], Any]:
  """The bound hyperparameters.

  Args:
    paths: gin files, later ones win.
    bindings: lines of gin, which win over files.
    config_classes: dataclasses whose fields may be bound, by class name.

  Returns:
    {(class, field): value}.

  Raises:
    ValueError: unreadable file, an import in it, bad syntax, an unknown class
      or an unknown parameter; names it.
  """
  config_classes = list(config_classes)
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
    message = ' '.join(str(error).split())
    raise ValueError(
        f'{message} ({_FORM} with a class of {sorted(known)})') from error
  bound = {}
  for config_class in config_classes:
    for field in dataclasses.fields(config_class):
      name = f'{config_class.__name__}.{field.name}'
      try:
        bound[config_class, field.name] = gin.query_parameter(name)
      except ValueError:  # Not bound.
        continue
  return bound


_REGISTERED: set[type] = set()


def _register(config_class: type) -> None:
  if config_class not in _REGISTERED:
    gin.external_configurable(config_class)
    _REGISTERED.add(config_class)


def write(folder: str, *configs: Any) -> None:
  """Writes the configs to `<folder>/config.gin`, readable by --gin_config.

  Args:
    folder: made if it does not exist; it may be remote.
    *configs: instances of config classes.
  """
  lines = ['# The hyperparameters in effect.']
  for config in configs:
    lines += [
        f'{type(config).__name__}.{field.name} = '
        f'{getattr(config, field.name)!r}'
        for field in dataclasses.fields(config)
    ]
  path = os.path.join(folder, CONFIG_FILE)
  temporary = f'{path}.{os.getpid()}.tmp'
  tf.io.gfile.makedirs(folder)
  with tf.io.gfile.GFile(temporary, 'w') as stream:
    stream.write('\n'.join(lines) + '\n')
  tf.io.gfile.rename(temporary, path, overwrite=True)


