"""Config classes in gin files: reading bindings, writing what was in effect."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from typing import Any, Iterable

import gin

CONFIG_FILE = 'config.gin'

_IMPORT = re.compile(r'^\s*(import|from)\s', re.MULTILINE)
_SCOPED = re.compile(r'^\s*([\w./]*/[\w.]+)\s*=', re.MULTILINE)
_INCLUDE = re.compile(r'^\s*include\s+[\'"](.+?)[\'"]', re.MULTILINE)


def _check(text: str, source: str, above: tuple[str, ...] = ()) -> None:
  """Refuses what gin would run or lose, here and in included files.

  Gin would run the code of a module that is imported; none needs it. It would
  keep a binding in a scope for a call in that scope, and there is none.
  """
  if _IMPORT.search(text):
    raise ValueError(f'{source} imports a module. Only bindings of '
                     'hyperparameters and includes are allowed.')
  scoped = _SCOPED.search(text)
  if scoped:
    raise ValueError(f'{source} binds {scoped.group(1)} in a scope. Only '
                     '<class>.<parameter> = <value> has an effect.')
  for path in _INCLUDE.findall(text):
    _check_file(path, above)


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
        f'{message} (bindings are of the form <class>.<parameter> = <value> '
        f'with a class of {sorted(known)})') from error
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
    folder: exists.
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
  pathlib.Path(temporary).write_text('\n'.join(lines) + '\n')
  os.replace(temporary, path)


