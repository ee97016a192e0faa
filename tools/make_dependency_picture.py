"""Draws the imports between parts of rigl/ into docs/architecture.md.

    python -m tools.make_dependency_picture

A part is a folder of rigl/ or a module in rigl/ itself. Imports are read from
the sources. Implied arrows are left out: A --> C if A --> B --> C.
"""

from __future__ import annotations

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'architecture.md'
BEGIN = '<!-- dependencies: made by tools/make_dependency_picture.py -->'
END = '<!-- end of dependencies -->'

# Nearly all parts import it, which would hide the rest of the picture.
LEFT_OUT = 'compat'

Graph = dict[str, set[str]]


def imported(tree: ast.Module) -> set[str]:
  """The parts of rigl/ that a module imports, lazily or not."""
  names = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return {
      name.split('.')[1] for name in names if name.startswith('rigl.')
  }


def dependencies(package: pathlib.Path) -> Graph:
  """{part: parts it imports} of a package, without LEFT_OUT."""
  graph: Graph = {}
  for path in sorted(package.rglob('*.py')):
    part = path.relative_to(package).with_suffix('').parts[0]
    if part in ('__init__', LEFT_OUT):
      continue
    found = imported(ast.parse(path.read_text(encoding='utf-8')))
    graph.setdefault(part, set()).update(found - {part, LEFT_OUT})
  return graph


def reachable(graph: Graph, part: str) -> set[str]:
  """The parts that `part` imports, directly or indirectly.

  Raises:
    ValueError: parts import each other in a circle.
  """
  seen: set[str] = set()
  left = list(graph[part])
  while left:
    one = left.pop()
    if one == part:
      raise ValueError(f'{part} imports itself by way of others.')
    if one not in seen:
      seen.add(one)
      left += graph[one]
  return seen


def without_implied(graph: Graph) -> Graph:
  """The smallest graph in which the same parts can be reached."""
  below = {part: reachable(graph, part) for part in graph}
  return {
      part: direct - set().union(*(below[one] for one in direct))
      for part, direct in graph.items()
  }


def picture(package: pathlib.Path) -> str:
  """A Mermaid diagram of the package, as a Markdown block."""
  graph = without_implied(dependencies(package))
  lines = ['```mermaid', 'graph TD']
  for part in sorted(graph):
    label = f'{part}/' if (package / part).is_dir() else f'{part}.py'
    lines.append(f'  {part}["{label}"]')
  for part in sorted(graph):
    lines += [f'  {part} --> {one}' for one in sorted(graph[part])]
  return '\n'.join([*lines, '```'])


def updated(text: str, package: pathlib.Path) -> str:
  """A page with the picture between its marks.

  Raises:
    ValueError: the page does not have each mark once.
  """
  if text.count(BEGIN) != 1 or text.count(END) != 1:
    raise ValueError(f'The page needs the lines {BEGIN!r} and {END!r}, once.')
  before, rest = text.split(BEGIN)
  after = rest.split(END)[1]
  return f'{before}{BEGIN}\n{picture(package)}\n{END}{after}'


if __name__ == '__main__':
  PAGE.write_text(
      updated(PAGE.read_text(encoding='utf-8'), ROOT / 'rigl'),
      encoding='utf-8')
