"""The layering and the house rules, read off the syntax trees of rigl/.

MAY_IMPORT is the contract: a new module needs a row that fits it, and a new
dependency between modules is a change of that table, made on purpose.
"""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import functools
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# Largest lengths of modules, scripts, and functions without docstring.
MAX_LINES = 400
MAX_SCRIPT_LINES = 250
MAX_FUNCTION_LINES = 60

# (module, what of ours it may import). The first row that fits counts; a name
# stands for a module or a whole folder. OWN is the folder the module is in.
OWN = '<own>'
NUMPY_ONLY = (
  'core.checks', 'core.layer_names', 'core.messages', 'core.ordering',
  'core.seeding')
FRONT = (OWN, 'model_pruning', 'tf_random', 'core', 'network_tables',
         'compat')
# The data modules of a folder may import one another, but no model.
DATA = (
  '*_data', '*_input', '*_pickle', 'data_helper', 'preprocessing',
  'record_output', 'synthetic_*',
)
MAY_IMPORT = (
  ('rigl', ()),
  ('__main__', ()),
  ('compat', ()),
  ('console', ()),
  ('str_sparsities', ()),
  ('network_tables', ()),
  ('core.distributions', (*NUMPY_ONLY, 'str_sparsities')),
  *((name, NUMPY_ONLY) for name in NUMPY_ONLY),
  # The rest of core runs without TensorFlow.
  ('core.tf_selection', ('core', 'compat')),
  ('core.shared_graphs', ('compat',)),
  ('core.arrays', ('compat',)),
  ('core', ('core',)),
  ('tf_random', ('compat',)),
  ('subgraphs', ('compat',)),
  (
    'micronet',
    ('micronet', 'checkpoint_files', 'console', 'core.checks',
     'core.distributions', 'network_tables', 'gin_configs', 'compat'),
  ),
  ('keras', ('keras', 'core', 'micronet', 'compat')),
  # Rebuilds networks of scripts; the rest of its folder knows no script.
  ('inference.runs',
   ('inference', 'training.export', 'cifar_resnet.resnet_model',
    'checkpoint_files', 'core.layer_names', 'compat')),
  ('inference',
   ('inference', 'core', 'micronet', 'checkpoint_files', 'console',
    'files', 'compat')),
  ('replicas', ('compat',)),
  ('checkpoints',
   ('checkpoint_files', 'gin_configs', 'core.connections', 'core.layer_names')),
  ('checkpoint_files', ('core.layer_names', 'core.messages', 'compat')),
  ('files', ()),
  ('text_files', ('files', 'compat')),
  ('gin_configs', ('text_files', 'core.messages', 'compat')),
  ('model_pruning', ('model_pruning', 'replicas', 'core', 'compat')),
  ('optimizer_wrapper', ('subgraphs', 'replicas', 'core', 'compat')),
  ('dense_gradients', ('optimizer_wrapper', 'replicas', 'core', 'compat')),
  ('sparse_optimizers_base', ('sparse_optimizer', 'core', 'compat')),
  ('sparse_optimizer',
   ('dense_gradients', 'optimizer_wrapper', 'replicas', 'sparse_utils', 'core',
    'compat')),
  ('sparse_utils', ('core', 'compat', 'micronet.keras_counting')),
  (
    'sparse_optimizers',
    ('sparse_optimizers_base', 'sparse_optimizer', 'optimizer_wrapper',
     'replicas', 'model_pruning', 'core', 'compat'),
  ),
  ('files', ()),
  (
    'compare',
    ('compare', 'training.history', 'training.hooks', 'training.names',
     'training.script', 'training.tpu_estimator',
     'console', 'core.checks', 'core.methods', 'micronet.formatting'),
  ),
  (
    'training',
    ('training', 'sparse_optimizers', 'optimizer_wrapper', 'sparse_utils',
     'model_pruning', 'checkpoint_files', 'gin_configs', 'text_files', 'files',
     'replicas', 'core', 'compat'),
  ),
  (
    '*_train_eval',
    ('training', OWN, 'model_pruning', 'replicas', 'core.checks', 'compat'),
  ),
  # Parts of the scripts that are not parts of their models.
  *(
    (name,
     ('training', OWN, 'model_pruning', 'files', 'replicas', 'core.checks',
      'core.layer_names', 'network_tables', 'compat'))
    for name in (
      '*.cifar_config', '*.imagenet_config', '*.mnist_config',
      '*.cifar_experiment', '*.imagenet_experiment', '*.imagenet_model',
      '*.mnist_experiment', 'imagenet_resnet.utils',
    )
  ),
  # A command as well, which trains nothing.
  ('mnist.visualize_mask_records', ('console', 'core.checks', OWN)),
  # A command, which writes what the data modules read.
  ('imagenet_resnet.convert_images',
   ('imagenet_resnet.record_output', 'console', 'core.checks',
    'core.messages', 'core.seeding', 'compat')),
  ('imagenet_resnet.record_output', ('files', 'compat')),
  # A hook of a script, not a part of its model.
  ('*.epoch_log',
   ('files', 'training.history', 'training.hooks', 'training.iterations',
    'training.mask_watch', 'training.summaries', OWN, 'core.connections',
    'compat')),
  ('mnist.mask_records', ('files', 'core.layer_names')),
  *(
    (
      f'*.{name}',
      ('data', 'compat', 'core.checks', 'tf_random', 'core.messages',
       'core.ordering', 'core.seeding',
       *(f'{OWN}.{sibling}' for sibling in DATA)),
    )
    for name in DATA if name != 'record_output'
  ),
  ('data', ('data', 'core.messages', 'core.seeding', 'compat')),
  # `train` of each package, which loads the rest inside the function.
  ('cifar_resnet',
   (*FRONT, 'cifar_resnet.cifar_experiment', 'training.calls')),
  ('imagenet_resnet',
   (*FRONT, 'imagenet_resnet.imagenet_experiment', 'training.calls')),
  ('mnist', (*FRONT, 'mnist.mnist_experiment', 'training.calls')),
)
# Imported only inside functions, since these count and read without it.
LAZY = (('sparse_utils', 'micronet.keras_counting'),
        ('micronet', 'compat'), ('micronet', 'checkpoint_files'),
        ('micronet', 'gin_configs'),
        ('compare.cli', 'compare.workers'))

FLAGS_ALLOWED = (
  'training.command_line', 'training.setting_flags', 'compare.workers',
)
ESTIMATOR_ALLOWED = ('training.tpu_estimator',)
TENSORFLOW_ALLOWED = ('compat',)
# Defines an unpickler that calls nothing that a pickle names.
PICKLE_ALLOWED = ('cifar_resnet.cifar_pickle',)
# These folders import only rigl, numpy and the standard library.
PURE = ('core', 'micronet', 'network_tables', 'str_sparsities')
FOREIGN = {'PIL', 'absl', 'gin', 'keras', 'matplotlib', 'tensorflow',
           'tensorflow_datasets'}
# Packages of the 2020 implementation that this library replaces.
CLONED = {'google_' + 'research', 'official', 'tensorflow_estimator'}
# Spelled so that a search for the words does not find this line.
LEFTOVER = re.compile(r'\b(TOD[O]|FIXM[E]|X{3})\b')


@dataclasses.dataclass(frozen=True)
class Module:
  """A source file and the name it is imported by, without `rigl.`."""

  name: str
  source: str = dataclasses.field(repr=False)

  @functools.cached_property
  def tree(self):
    return ast.parse(self.source)

  @functools.cached_property
  def imports(self):
    """A list of (dotted name, line, whether inside a function)."""
    return list(_imports(self.tree, in_function=False))

  @functools.cached_property
  def own_imports(self):
    """The same for imports from rigl, without `rigl.`."""
    return [
      (name.partition('.')[2], line, lazy)
      for name, line, lazy in self.imports
      if name.split('.')[0] == 'rigl'
    ]

  def fits(self, patterns):
    return any(_covers(pattern, self.name) for pattern in patterns)


def _imports(node, in_function):
  """`from a import b` counts as a.b, whether b is a module or a name in a."""
  if isinstance(node, ast.Import):
    yield from ((a.name, node.lineno, in_function) for a in node.names)
  elif isinstance(node, ast.ImportFrom):
    # Relative imports would not be recognized by the table.
    prefix = '.' * node.level + (node.module or '')
    for alias in node.names:
      yield f'{prefix}.{alias.name}', node.lineno, in_function
  in_function |= isinstance(node, ast.FunctionDef)
  for child in ast.iter_child_nodes(node):
    yield from _imports(child, in_function)


def _covers(pattern, name):
  """Whether `name` is `pattern` or something inside it."""
  return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(
    name, pattern + '.*'
  )


def _row_of(module):
  return next((row for row in MAY_IMPORT if _covers(row[0], module.name)), None)


def _nodes(module, kind):
  return (node for node in ast.walk(module.tree) if isinstance(node, kind))


def _dotted(node):
  """The source of a chain of names such as `tf.nn.relu`, or ''."""
  parts = []
  while isinstance(node, ast.Attribute):
    parts.append(node.attr)
    node = node.value
  if not isinstance(node, ast.Name):
    return ''
  return '.'.join([node.id, *reversed(parts)])


# Each check takes a module and yields what is wrong, as (line, message).


def check_layers(module):
  row = _row_of(module)
  if row is None:
    yield 1, 'no row of MAY_IMPORT fits this module'
    return
  own = module.name.rpartition('.')[0]
  allowed = [name.replace(OWN, own) for name in row[1]]
  for name, line, _ in module.own_imports:
    if not any(_covers(pattern, name) for pattern in allowed):
      yield line, f'may not import rigl.{name}, only {allowed}'


def check_lazy_imports(module):
  for pattern, target in LAZY:
    if module.fits([pattern]):
      for name, line, lazy in module.own_imports:
        if _covers(target, name) and not lazy:
          yield line, f'imports rigl.{name} outside a function'


def check_scripts_are_not_imported(module):
  for name, line, _ in module.own_imports:
    if _covers('*_train_eval', name):
      yield line, f'imports the script rigl.{name}'


def check_imports_are_absolute(module):
  for name, line, _ in module.imports:
    if name.startswith('.'):
      yield line, f'relative import of {name}'


def check_tensorflow_comes_from_compat(module):
  if not module.fits(TENSORFLOW_ALLOWED):
    for name, line, _ in module.imports:
      if name.split('.')[0] == 'tensorflow':
        yield line, f'imports {name}, not rigl.compat'


def check_no_private_or_cloned_code(module):
  names = [(name, line) for name, line, _ in module.imports]
  names += [
    (_dotted(node), node.lineno) for node in _nodes(module, ast.Attribute)
  ]
  for name, line in names:
    first, *rest = name.split('.')
    private = first in ('tensorflow', 'tf', 'tf2') and rest[:1] in (
      ['contrib'], ['python']
    )
    if private or first in CLONED:
      yield line, f'uses {name}'


def check_pure_modules(module):
  if module.fits(PURE):
    for name, line, _ in module.imports:
      if name.split('.')[0] in FOREIGN:
        yield line, f'imports {name}; only numpy and rigl are allowed here'


def check_flags(module):
  if module.fits(FLAGS_ALLOWED):
    return
  for name, line, _ in module.imports:
    if _covers('absl.flags', name):
      yield line, 'imports absl.flags'
  for node in _nodes(module, ast.Attribute):
    if _dotted(node) in ('absl.flags', 'tf.app.flags', 'tf.flags'):
      yield node.lineno, f'uses {_dotted(node)}'


def check_estimator(module):
  """Finds names of the API; a variable may be called estimator."""
  if module.fits(ESTIMATOR_ALLOWED):
    return
  used = [(node.attr, node.lineno) for node in _nodes(module, ast.Attribute)]
  used += [(name.split('.')[-1], line) for name, line, _ in module.imports]
  for name, line in used:
    if re.fullmatch(r'(TPU)?Estimator(Spec)?|estimator', name):
      yield line, f'uses {name}'


def check_no_salted_hash(module):
  """Python salts hashes anew in each process, so no seed may come from one."""
  for node in _nodes(module, ast.Call):
    if _dotted(node.func) == 'hash':
      yield node.lineno, 'calls the built-in hash'


def check_no_pickle(module):
  for name, line, _ in module.imports:
    if (name.split('.')[0] in ('cPickle', 'cloudpickle', 'dill', 'pickle') and
        not module.fits(PICKLE_ALLOWED)):
      yield line, f'imports {name}'
  for node in _nodes(module, ast.keyword):
    refused = isinstance(node.value, ast.Constant) and node.value.value is False
    if node.arg == 'allow_pickle' and not refused:
      yield node.value.lineno, 'may unpickle'


def check_no_leftovers(module):
  for number, line in enumerate(module.source.splitlines(), start=1):
    if LEFTOVER.search(line):
      yield number, f'leftover: {line.strip()}'


def check_length(module):
  n_lines = len(module.source.splitlines())
  limit = (
    MAX_SCRIPT_LINES if module.fits(['*_train_eval']) else MAX_LINES)
  if n_lines > limit:
    yield n_lines, f'{n_lines} lines; at most {limit} are allowed'


def check_function_length(module):
  for node in _nodes(module, ast.FunctionDef):
    n_lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node):
      n_lines -= node.body[0].end_lineno - node.body[0].lineno + 1
    if n_lines > MAX_FUNCTION_LINES:
      yield node.lineno, (
        f'{node.name} has {n_lines} lines beside its docstring; at most '
        f'{MAX_FUNCTION_LINES} are allowed')


CHECKS = {
  name[len('check_'):]: value
  for name, value in dict(globals()).items()
  if name.startswith('check_')
}

def _modules():
  for path in sorted((ROOT / 'rigl').rglob('*.py')):
    parts = path.relative_to(ROOT / 'rigl').with_suffix('').parts
    if parts[-1] == '__init__':
      parts = parts[:-1]
    yield Module('.'.join(parts) or 'rigl', path.read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def modules():
  found = list(_modules())
  names = {module.name for module in found}
  assert {'rigl', 'compat', 'core.mask_math', 'sparse_utils'} <= names
  return found


@pytest.mark.parametrize('check', CHECKS)
def test_rule_holds(check, modules):
  problems = [
    f'rigl.{module.name}, line {line}: {message}'
    for module in modules
    for line, message in CHECKS[check](module)
  ]
  assert not problems, '\n'.join(problems)


def test_every_row_fits_a_module(modules):
  used = {id(_row_of(module)) for module in modules}
  assert [row[0] for row in MAY_IMPORT if id(row) not in used] == []


def test_every_folder_is_a_package():
  package = ROOT / 'rigl'
  folders = {
    folder
    for path in package.rglob('*.py')
    for folder in path.parents
    if package in (folder, *folder.parents)
  }
  assert [
    folder for folder in folders if not (folder / '__init__.py').exists()
  ] == []
