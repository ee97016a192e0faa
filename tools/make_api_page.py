"""Writes docs/api.md, the public functions and classes, from the docstrings.

    python tools/make_api_page.py            # writes the page
    python tools/make_api_page.py --check    # fails if it is out of date

The sources are parsed, never imported, so the page is the same wherever it is
made and needs no TensorFlow.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import fnmatch
import pathlib
import re
import sys
from typing import Iterator, Optional, Union

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'api.md'

# (title, patterns of modules without `rigl.`); the first pattern that fits
# decides where a module stands, and in a group the order of the patterns.
GROUPS = (
    ('Optimizers', ('sparse_optimizers', 'sparse_optimizers_base',
                    'optimizer_wrapper')),
    ('Masks and sparsities', ('sparse_utils', 'str_sparsities')),
    ('Masked layers and pruning', ('model_pruning.*',)),
    ('Mathematics of sparse training', ('core.*',)),
    ('Networks', (
        'mnist.mnist_model', 'cifar_resnet.resnet_model',
        'imagenet_resnet.*_model', 'imagenet_resnet.vgg',
        'imagenet_resnet.blocks', 'imagenet_resnet.initializers',
        'imagenet_resnet.pruning_layers')),
    ('Training', ('training.*',)),
    ('Counting FLOPs and bytes', ('micronet.*',)),
)

_INTRODUCTION = '''\
# API

Every public function and class a program may build on, written from the
docstrings by `python tools/make_api_page.py`; do not edit it by hand. What the
scripts take is in their `--help`, how the parts fit together in
[architecture.md](architecture.md), which hooks a method of your own has in
[adding_a_method.md](adding_a_method.md).
'''

_SECTIONS = ('Args', 'Attributes', 'Raises', 'Returns', 'Yields')
_WIDTH = 80

Function = ast.FunctionDef
Definition = Union[ast.FunctionDef, ast.ClassDef]


@dataclasses.dataclass(frozen=True)
class Module:
  """A source file and the name it is imported by, without `rigl.`."""

  name: str
  source: str
  tree: ast.Module

  def text_of(self, node: ast.AST) -> str:
    """The source of a node on one line."""
    return re.sub(
        r'\s+', ' ', ast.get_source_segment(self.source, node) or '')


def load_modules(package: pathlib.Path) -> list[Module]:
  """The modules of a package, by name; folders themselves are left out."""
  modules = []
  for path in sorted(package.rglob('*.py')):
    if path.name.startswith('__'):
      continue
    source = path.read_text(encoding='utf-8')
    name = '.'.join(path.relative_to(package).with_suffix('').parts)
    modules.append(Module(name, source, ast.parse(source)))
  return modules


def grouped(modules: list[Module]) -> list[tuple[str, list[Module]]]:
  """The modules of each group of GROUPS."""
  left = {module.name: module for module in modules}
  groups = []
  for title, patterns in GROUPS:
    names = [
        name for pattern in patterns for name in sorted(left)
        if fnmatch.fnmatchcase(name, pattern)
    ]
    groups.append((title, [left.pop(n) for n in dict.fromkeys(names)]))
  return groups


def public(body: list[ast.stmt]) -> Iterator[Definition]:
  """The functions and classes of a body whose names have no underscore.

  A private class that a public one is derived from counts as public: its
  methods are those of the public one.
  """
  bases = {
      base.id for node in body if isinstance(node, ast.ClassDef)
      for base in node.bases if isinstance(base, ast.Name)
  }
  for node in body:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
      if not node.name.startswith('_') or node.name in bases:
        yield node


def is_property(node: Definition) -> bool:
  """Whether a method is read like an attribute."""
  return any(
      ast.dump(decorator).find('property') >= 0
      for decorator in node.decorator_list)


def has_fields(node: ast.ClassDef) -> bool:
  """Whether the constructor takes the annotated names of the class."""
  marks = [*node.decorator_list, *node.bases]
  return any(
      re.search(r"'(dataclass|NamedTuple)'", ast.dump(mark)) for mark in marks)


def parameters(module: Module, node: Function, is_method: bool) -> list[str]:
  """The source of each parameter, without self."""
  arguments = node.args
  plain = [*arguments.posonlyargs, *arguments.args]
  defaults = [None] * (len(plain) - len(arguments.defaults))
  defaults += arguments.defaults
  texts = [_parameter(module, *pair) for pair in zip(plain, defaults)]
  if arguments.vararg:
    texts.append('*' + module.text_of(arguments.vararg))
  elif arguments.kwonlyargs:
    texts.append('*')
  texts += [
      _parameter(module, *pair)
      for pair in zip(arguments.kwonlyargs, arguments.kw_defaults)
  ]
  if arguments.kwarg:
    texts.append('**' + module.text_of(arguments.kwarg))
  is_static = any(
      isinstance(decorator, ast.Name) and decorator.id == 'staticmethod'
      for decorator in node.decorator_list)
  return texts[1:] if is_method and not is_static else texts


def _parameter(module: Module, argument: ast.arg,
               default: Optional[ast.expr]) -> str:
  text = module.text_of(argument)
  if default is None:
    return text
  equals = ' = ' if argument.annotation else '='
  return f'{text}{equals}{module.text_of(default)}'


def _fields(module: Module, node: ast.ClassDef) -> list[str]:
  return [
      module.text_of(one) for one in node.body
      if isinstance(one, ast.AnnAssign) and not one.target.id.startswith('_')
  ]


def signature(module: Module, node: Definition, owner: str = '') -> str:
  """How a function or class is called, wrapped to 80 columns."""
  name = f'{owner}.{node.name}' if owner else node.name
  if isinstance(node, ast.ClassDef):
    init = _method(node, '__init__')
    if init is not None:
      given = parameters(module, init, is_method=True)
    elif has_fields(node):
      given = _fields(module, node)
    else:
      bases = ', '.join(module.text_of(base) for base in node.bases)
      return f'class {name}({bases})' if bases else f'class {name}'
    return _wrapped(f'class {name}', given, '')
  returns = f' -> {module.text_of(node.returns)}' if node.returns else ''
  if owner and is_property(node):
    return f'{name}{returns.replace(" ->", ":", 1)}'
  return _wrapped(name, parameters(module, node, bool(owner)), returns)


def _wrapped(head: str, given: list[str], tail: str) -> str:
  line = f'{head}({", ".join(given)}){tail}'
  if len(line) <= _WIDTH:
    return line
  inner = ''.join(f'    {one},\n' for one in given)
  return f'{head}(\n{inner}){tail}'


def _method(node: ast.ClassDef, name: str) -> Optional[Function]:
  for one in node.body:
    if isinstance(one, ast.FunctionDef) and one.name == name:
      return one
  return None


def sections(docstring: str) -> tuple[str, dict[str, str]]:
  """A docstring as its text and {section: dedented lines}."""
  pattern = rf'^({"|".join(_SECTIONS)}):\n'
  text, *rest = re.split(pattern, docstring, flags=re.MULTILINE)
  return text.strip(), {
      title: re.sub(r'^  ', '', body, flags=re.MULTILINE).rstrip()
      for title, body in zip(rest[::2], rest[1::2])
  }


def entries(body: str) -> list[tuple[str, str]]:
  """The (name, text) pairs of a section such as Args."""
  found = re.findall(r'^([^\s:][^:\n]*):(.*\n?(?:^[ \n].*\n?)*)', body + '\n',
                     flags=re.MULTILINE)
  return [(name, re.sub(r'\s+', ' ', text).strip()) for name, text in found]


def _escaped(text: str) -> str:
  """Text that Markdown shows as it stands; code stays code."""
  parts = re.split(r'(`[^`\n]*`)', text)
  parts[::2] = [re.sub(r'([*<>]|\b_|_\b)', r'\\\1', part)
                for part in parts[::2]]
  return ''.join(parts)


def markdown(docstring: Optional[str]) -> str:
  """A docstring as Markdown."""
  text, parts = sections(docstring or '')
  blocks = [
      block if block.startswith('    ') else _escaped(block)
      for block in re.split(r'\n\n(?=\S)|\n\n(?=    )', text) if block
  ]
  for title, body in parts.items():
    if title in ('Returns', 'Yields'):
      blocks.append(f'*{title}:* {_escaped(body)}')
      continue
    lines = [f'- `{name}`: {_escaped(what)}' for name, what in entries(body)]
    blocks.append(f'*{title}:*\n\n' + '\n'.join(lines))
  return '\n\n'.join(blocks)


def _entry(module: Module, node: Definition, owner: str = '') -> list[str]:
  blocks = []
  if not owner:
    blocks.append(f'#### `{node.name}`')
  blocks.append(f'```py\n{signature(module, node, owner)}\n```')
  blocks.append(markdown(ast.get_docstring(node)))
  if isinstance(node, ast.ClassDef):
    init = _method(node, '__init__')
    if init is not None and node.bases:
      bases = ', '.join(f'`{module.text_of(base)}`' for base in node.bases)
      blocks.append(f'Bases: {bases}')
    if init is not None:
      blocks.append(markdown(ast.get_docstring(init)))
    for one in public(node.body):
      blocks += _entry(module, one, node.name)
  return [block for block in blocks if block]


def _anchor(heading: str) -> str:
  """What GitHub calls a heading."""
  return re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')


def page(package: pathlib.Path) -> str:
  """The whole page."""
  groups = grouped(load_modules(package))
  blocks = [_INTRODUCTION.strip()]
  for title, modules in groups:
    lines = [f'**{title}**', '']
    for module in modules:
      summary = (ast.get_docstring(module.tree) or '').split('\n\n')[0]
      name = f'rigl.{module.name}'
      lines.append(f'- [`{name}`](#{_anchor(name)}): '
                   f'{_escaped(" ".join(summary.split()))}')
    blocks.append('\n'.join(lines))
  for title, modules in groups:
    blocks.append(f'## {title}')
    for module in modules:
      blocks.append(f'### `rigl.{module.name}`')
      blocks.append(markdown(ast.get_docstring(module.tree)))
      for node in public(module.tree.body):
        blocks += _entry(module, node)
  return '\n\n'.join(block for block in blocks if block) + '\n'


def main() -> int:
  """Writes or checks the page; the exit code says whether it is up to date."""
  parser = argparse.ArgumentParser(
      description=__doc__,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--check', action='store_true',
                      help='only say whether the page is up to date')
  arguments = parser.parse_args()
  text = page(ROOT / 'rigl')
  if not arguments.check:
    PAGE.write_text(text, encoding='utf-8')
  elif not PAGE.exists() or PAGE.read_text(encoding='utf-8') != text:
    print(f'{PAGE} is out of date: run python tools/make_api_page.py')
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main())
