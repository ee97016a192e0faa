"""Every public name of rigl/ has a docstring with what it takes and raises."""

from __future__ import annotations

import ast
import collections
import pathlib
import re

import pytest

from tools import make_api_page

ROOT = pathlib.Path(__file__).parents[2]
MODULES = {m.name: m for m in make_api_page.load_modules(ROOT / 'rigl')}

# What overrides a method of TensorFlow or Keras is described there.
OVERRIDES = {
    'apply', 'finalize_variable_values', 'from_config', 'get_config',
    'iterations', 'learning_rate', 'load_own_variables', 'loss_scale_factor',
    'save_own_variables', 'scale_loss',
    'after_create_session', 'after_run', 'after_save', 'apply_gradients',
    'before_run', 'before_save', 'begin', 'compute_gradients', 'end',
    'get_slot', 'get_slot_names', 'variables',
}
# The functions of a script are not called from elsewhere; their arguments are
# its hyperparameters.
SCRIPTS = r'.*_train_eval'


def _overridden():
  """Methods that a base class of ours has: {(class, method)}."""
  # Front-ends have classes of the same names.
  classes = collections.defaultdict(list)
  for module in MODULES.values():
    for node in module.tree.body:
      if isinstance(node, ast.ClassDef):
        classes[node.name].append(node)

  def methods(name, of=()):
    return {
        method for node in classes.get(name, ()) if node not in of
        for method in (
            {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
            | inherited(node, (*of, node)))}

  def inherited(node, of):
    return {method for base in node.bases
            for method in methods(_last(base), of)}

  return {
      (name, method) for name, nodes in classes.items()
      for node in nodes for method in inherited(node, (node,))
  }


def _last(node):
  return getattr(node, 'attr', None) or getattr(node, 'id', '')


OVERRIDDEN = _overridden()


def _definitions(module):
  """(qualified name, owner or None, node) of what is public in a module."""
  for node in make_api_page.public(module.tree.body):
    yield node.name, None, node
    if isinstance(node, ast.ClassDef):
      for one in make_api_page.public(node.body):
        yield f'{node.name}.{one.name}', node, one


def _raised(function):
  """The exception classes that the body of a function itself raises."""
  found, left = set(), list(function.body)
  while left:
    node = left.pop()
    if isinstance(node, (ast.FunctionDef, ast.Lambda)):
      continue
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
      found.add(_last(node.exc.func))
    left += ast.iter_child_nodes(node)
  # A function that makes an exception has a name of lower case.
  return {name for name in found if name[:1].isupper()} - {
      'NotImplementedError'}


def _parameters(module, function, owner):
  texts = make_api_page.parameters(module, function, owner is not None)
  names = [re.match(r'\**(\w*)', text).group(1) for text in texts]
  return [
      name for name, text in zip(names, texts)
      if name and not text.startswith('**') and not name.startswith('_')
  ]


def problems(module):
  """Yields what is missing in a module, as (name, message)."""
  if not ast.get_docstring(module.tree):
    yield module.name, 'has no docstring'
  is_script = re.fullmatch(SCRIPTS, module.name)
  for name, owner, node in _definitions(module):
    is_known = owner is not None and (
        node.name in OVERRIDES or (owner.name, node.name) in OVERRIDDEN)
    docstring = ast.get_docstring(node) or ''
    if is_known:
      continue
    if not docstring:
      yield name, 'has no docstring'
      continue
    if isinstance(node, ast.ClassDef):
      continue
    text, parts = make_api_page.sections(docstring)
    described = {
        word for entry, _ in make_api_page.entries(parts.get('Args', ''))
        for word in re.findall(r'\w+', entry)
    }
    for entry, said in make_api_page.entries(parts.get('Args', '')):
      if said.startswith('of '):
        yield name, f'says what {entry} is of, but not what it is'
    taken = [] if make_api_page.is_property(node) else _parameters(
        module, node, owner)
    for parameter in taken:
      if parameter not in described and not is_script:
        yield name, f'does not say what {parameter} is'
    for error in _raised(node):
      if error not in parts.get('Raises', '') and not re.match(
          rf'Raises (a )?{error}', text):
        yield name, f'does not say that it raises {error}'


@pytest.mark.parametrize('name', MODULES)
def test_public_names_are_documented(name):
  assert not list(problems(MODULES[name]))


@pytest.mark.parametrize('source, message', [
    ('def f(): pass', 'has no docstring'),
    ('class A:\n  def f(self): pass', 'has no docstring'),
    ('def f(x):\n  """One."""', 'does not say what x is'),
    ('def f(x):\n  """One.\n\n  Args:\n    x: of two.\n  """',
     'says what x is of, but not what it is'),
    ('def f(x, *, y=1):\n  """One.\n\n  Args:\n    x: two.\n  """',
     'does not say what y is'),
    ('class A:\n  """One."""\n  def f(self, z):\n    """Two."""',
     'does not say what z is'),
    ('def f():\n  """One."""\n  if f:\n    raise ValueError("no")',
     'does not say that it raises ValueError'),
])
def test_gaps_are_found(source, message):
  source = f'"""A module."""\n{source}'
  module = make_api_page.Module('core.sample', source, ast.parse(source))
  assert message in [what for _, what in problems(module)]


def test_complete_docstrings_pass():
  source = '''"""A module."""
def f(x, *rest, y=1):
  """One.

  Args:
    x: two.
    rest, y: three.

  Raises:
    ValueError: always.
  """
  raise ValueError('no')
'''
  module = make_api_page.Module('core.sample', source, ast.parse(source))
  assert not list(problems(module))


def test_api_page_is_up_to_date(monkeypatch):
  monkeypatch.setattr('sys.argv', ['make_api_page.py', '--check'])
  assert make_api_page.main() == 0, 'run python -m tools.make_api_page'


def test_api_page_lists_what_programs_import():
  page = (ROOT / 'docs' / 'api.md').read_text(encoding='utf-8')
  for name in ('SparseRigLOptimizer', 'masked_conv2d', 'get_mask_init_fn',
               'drop_and_grow', 'SparsityConfig', 'count_model',
               'resnet_v1_', 'WideResNetModel', 'mobilenet_v1'):
    assert f'#### `{name}`\n' in page, name


def test_api_page_leaves_out_scripts_and_data():
  page = (ROOT / 'docs' / 'api.md').read_text(encoding='utf-8')
  assert 'rigl.mnist.mnist_train_eval`' not in page
  assert 'rigl.cifar_resnet.cifar_data`' not in page


def test_api_page_says_what_a_class_takes_from_its_bases():
  source = '''
class Base:
  def __init__(self, width: int = 1): pass
class _Helper(Base): pass
class Wide(_Helper):
  """Wide."""
  def __init__(self, *args, **kwargs): super().__init__(*args, **kwargs)
  def known(self):
    """Known."""
  def overridden(self): pass
class _Hidden(Wide): pass
class Tall(_Unknown): pass
'''
  module = make_api_page.Module('core.sample', source, ast.parse(source))
  classes = {node.name: (module, node) for node in module.tree.body}
  wide = '\n'.join(make_api_page.entry(classes, *classes['Wide']))
  assert 'class Wide(width: int = 1)' in wide
  assert 'Wide.known()' in wide and 'overridden' not in wide
  assert make_api_page.signature(classes, *classes['Tall']) == (
      'class Tall(_Unknown)')
  # A private class counts where a public one is derived from it.
  assert [node.name for node in make_api_page.public(module.tree.body)] == [
      'Base', '_Helper', 'Wide', 'Tall']
