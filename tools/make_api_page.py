"""Writes docs/api.md, the public functions and classes, from the docstrings.

    python -m tools.make_api_page            # writes the page
    python -m tools.make_api_page --check    # fails if it is out of date

The sources are parsed, never imported, so the page is the same wherever it is
made and needs no TensorFlow.
"""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import pathlib
import re
import sys
from typing import Iterator, Optional, Union

from tools import generated_page

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'api.md'

# (title, patterns of modules without `rigl.`); the first pattern that fits
# decides where a module stands, and in a group the order of the patterns.
GROUPS = (
    ('Keras', ('keras.optimizers', 'keras.sparse_optimizer', 'keras.*')),
    ('Optimizers', ('sparse_optimizers', 'sparse_optimizers_base',
                    'dense_gradients', 'optimizer_wrapper')),
    ('Masks and sparsities', ('sparse_utils', 'str_sparsities')),
    ('Masked layers and pruning', ('model_pruning.*',)),
    ('Mathematics of sparse training', ('core.*',)),
    ('Networks', (
        'mnist.mnist_model', 'cifar_resnet.resnet_model',
        'imagenet_resnet.*_model', 'imagenet_resnet.vgg',
        'imagenet_resnet.blocks', 'imagenet_resnet.initializers',
        'imagenet_resnet.pruning_layers')),
    ('Training', ('training.*',)),
    ('Counting FLOPs and bytes', ('micronet.*', 'network_tables')),
)
# Of the command lines; nothing to build on.
LEFT_OUT = ('micronet.cli', 'micronet.formatting', 'micronet.report',
            'training.command_line', 'training.script')

_INTRODUCTION = '''\
# API

Every public function and class a program may build on, written from the
docstrings by `python -m tools.make_api_page`; do not edit it by hand. What the
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


# {name of a class: where it is}.
Classes = dict[str, tuple[Module, ast.ClassDef]]


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
        if fnmatch.fnmatchcase(name, pattern) and name not in LEFT_OUT
    ]
    groups.append((title, [left.pop(n) for n in dict.fromkeys(names)]))
  return groups


def public(body: list[ast.stmt]) -> Iterator[Definition]:
  """The functions and classes of a body whose names have no underscore.

  A private class that a public one is derived from counts as public: its
  methods are those of the public one.
  """
  bases = {
      base.id for node in body
      if isinstance(node, ast.ClassDef) and not node.name.startswith('_')
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


def constructor(classes: Classes, module: Module, node: ast.ClassDef
               ) -> Optional[tuple[Module, Function]]:
  """The __init__ that says what a class takes: its own, or that of a base.

  One that only passes `*args, **kwargs` on says nothing.
  """
  init = _method(node, '__init__')
  if init is not None and parameters(
      module, init, is_method=True) != ['*args', '**kwargs']:
    return module, init
  for base in node.bases:
    name = base.id if isinstance(base, ast.Name) else ''
    found = name in classes and constructor(classes, *classes[name])
    if found:
      return found
  return None


def signature(classes: Classes, module: Module, node: Definition,
              owner: str = '') -> str:
  """How a function or class is called, wrapped to 80 columns."""
  name = f'{owner}.{node.name}' if owner else node.name
  if isinstance(node, ast.ClassDef):
    found = constructor(classes, module, node)
    if found is not None:
      given = parameters(*found, is_method=True)
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


def entry(classes: Classes, module: Module, node: Definition,
          owner: str = '') -> list[str]:
  """The blocks of Markdown about a function or class."""
  # What only overrides a method is described with that method.
  if owner and not ast.get_docstring(node):
    return []
  blocks = []
  if not owner:
    blocks.append(f'#### `{node.name}`')
  blocks.append(f'```py\n{signature(classes, module, node, owner)}\n```')
  blocks.append(markdown(ast.get_docstring(node)))
  if isinstance(node, ast.ClassDef):
    init = _method(node, '__init__')
    if node.bases and constructor(classes, module, node):
      bases = ', '.join(f'`{module.text_of(base)}`' for base in node.bases)
      blocks.append(f'Bases: {bases}')
    if init is not None:
      blocks.append(markdown(ast.get_docstring(init)))
    for one in public(node.body):
      blocks += entry(classes, module, one, node.name)
  return [block for block in blocks if block]


def _anchor(heading: str) -> str:
  """What GitHub calls a heading."""
  return re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')


def _taken_over(module: Module, listed: set[str]) -> str:
  """A line on what is in __all__ of a module but defined in another."""
  own = {node.name for node in public(module.tree.body)}
  names = [
      name for node in module.tree.body if isinstance(node, ast.Assign)
      and module.text_of(node.targets[0]) == '__all__'
      for name in ast.literal_eval(node.value)
      if name not in own and name in listed
  ]
  links = [f'[`{name}`](#{_anchor(name)})' for name in names]
  return f'Also here: {", ".join(links)}.' if links else ''


def page(package: pathlib.Path) -> str:
  """The whole page."""
  all_modules = load_modules(package)
  groups = grouped(all_modules)
  classes = {
      node.name: (module, node) for module in all_modules
      for node in module.tree.body if isinstance(node, ast.ClassDef)
  }
  listed = {
      node.name for _, modules in groups for module in modules
      for node in public(module.tree.body)
  }
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
      blocks.append(_taken_over(module, listed))
      for node in public(module.tree.body):
        blocks += entry(classes, module, node)
  return '\n\n'.join(block for block in blocks if block) + '\n'


def main() -> int:
  """Writes or checks the page; the exit code says whether it is up to date."""
  return generated_page.run(__doc__, PAGE, page(ROOT / 'rigl'))


if __name__ == '__main__':
  sys.exit(main())
