"""The snippets and commands of the README and the docs work."""

from __future__ import annotations

import argparse
import doctest
import importlib
import importlib.util
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from rigl.compat import tf, tf2
from rigl.core import methods
from rigl.micronet import cli
from rigl.training import tpu_estimator

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = ['README.md', *sorted(f'docs/{path.name}' for path in (ROOT / 'docs').glob('*.md'))]
SCRIPTS = (
  'rigl.mnist.mnist_train_eval',
  'rigl.cifar_resnet.resnet_train_eval',
  'rigl.imagenet_resnet.imagenet_train_eval',
)
# What parses its arguments with argparse in `main`.
PROGRAMS = re.compile(
  r'rigl\.compare|rigl\.micronet|'
  r'rigl\.imagenet_resnet\.(sample_data|convert_images)|benchmarks\..*'
)
# Each block of this page goes on from the one before.
ONE_PROGRAM = 'docs/adding_a_method.md'
# Need Keras 3; tests/keras/examples_test.py runs them.
KERAS_PAGES = ('README.md', 'docs/keras.md', 'docs/your_data.md')
# By tests/inference/page_test.py, which need packages of their own.
INFERENCE_PAGE = 'docs/inference.md'
# By tests/trained_network_page_test.py, in the folder of a run.
TRAINED_PAGE = 'docs/trained_network.md'


def _text(page: str) -> str:
  return (ROOT / page).read_text(encoding='utf-8')


def _blocks(page: str, language: str) -> list[str]:
  return re.findall(rf'```{language}\n(.*?)```', _text(page), re.DOTALL)


def _outside_blocks(page: str) -> str:
  return re.sub(r'```.*?```', '', _text(page), flags=re.DOTALL)


def _lines(page: str) -> list[str]:
  """Commands: lines of bash blocks, prompts of console blocks, inline code."""
  lines = ''.join(_blocks(page, 'bash')).replace('\\\n', ' ').splitlines()
  for block in _blocks(page, 'console'):
    lines += re.findall(r'^\$ (.*)', block, re.MULTILINE)
  return lines + re.findall(r'`(python [^`\n]*)`', _outside_blocks(page))


def _split(line: str) -> tuple[str, list[str]]:
  """(module, arguments) of a command that runs code of this project."""
  # What the shell computes is tested apart.
  words = shlex.split(line.split('$(')[0], comments=True)
  if 'python' not in words:
    return '', []
  words = words[words.index('python') + 1 :]
  if words[:1] == ['-m']:
    return words[1], words[2:]
  path = pathlib.PurePosixPath(words[0]) if words else pathlib.PurePosixPath()
  if path.suffix != '.py' or not (ROOT / path).exists():
    return '', []
  return '.'.join(path.with_suffix('').parts), words[1:]


# Placeholders such as $SEED stand for a number.
COMMANDS = sorted(
  {
    (page, module, *(re.sub(r'\$\w+', '1', word) for word in arguments))
    for page in PAGES
    for module, arguments in map(_split, _lines(page))
    if module
  }
)


# --- Commands ----------------------------------------------------------------


def _check_script_flags(name: str, arguments: list[str]) -> None:
  script = importlib.import_module(name)
  with flagsaver.flagsaver():
    flags.FLAGS([name, *arguments])
    script.experiment_from_flags()


@pytest.mark.parametrize(
  'page, name, arguments',
  [
    *((p, m, a) for p, m, *a in COMMANDS if m in SCRIPTS),
    # Behind -- are those of the script that it runs.
    *((p, SCRIPTS[0], a[a.index('--') + 1 :]) for p, m, *a in COMMANDS if m == 'rigl.compare'),
  ],
)
def test_flags_of_script_commands_are_valid(page, name, arguments, monkeypatch):
  # With TensorFlow 2.15 all of them are.
  monkeypatch.setattr(tpu_estimator, 'is_available', lambda: True)
  _check_script_flags(
    name,
    [
      a for a in arguments if not a.startswith('--help') and a not in ('--gin_config=my.gin', '...')
    ],
  )


class _ParsedError(Exception):
  """Ends a program once its arguments are parsed."""


@pytest.mark.parametrize(
  'page, name, arguments', [(p, m, a) for p, m, *a in COMMANDS if PROGRAMS.fullmatch(m)]
)
def test_arguments_of_programs_are_valid(page, name, arguments, monkeypatch):
  parse = argparse.ArgumentParser.parse_args

  def parse_and_stop(self, args=None, namespace=None):
    parse(self, args, namespace)
    raise _ParsedError

  monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_and_stop)
  monkeypatch.setattr(sys, 'argv', [name, *arguments])
  if name.startswith('rigl.'):
    module = importlib.import_module(
      f'{name}.cli' if name in ('rigl.compare', 'rigl.micronet') else name
    )
  else:
    path = ROOT / name.replace('.', '/')
    spec = importlib.util.spec_from_file_location(f'{path.name}_of_docs', path.with_suffix('.py'))
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    monkeypatch.setitem(sys.modules, spec.name, module)
    # As Python does for a program: neighbours can be imported.
    monkeypatch.syspath_prepend(str(path.parent))
    spec.loader.exec_module(module)
  with pytest.raises(_ParsedError):
    module.main()


def test_all_commands_are_of_a_known_kind():
  modules = {module for _, module, *_ in COMMANDS}
  assert modules.issuperset(SCRIPTS)
  others = {name for name in modules.difference(SCRIPTS) if not PROGRAMS.fullmatch(name)}
  # tests/keras/examples_test.py runs the example, commands_test.py runs rigl.
  assert others <= {
    'examples.keras_mnist',
    'pytest',
    'rigl',
    'rigl.inference',
    'rigl.mnist.visualize_mask_records',
  }
  assert len(COMMANDS) >= 15


@pytest.mark.parametrize('page', PAGES)
def test_no_command_hides_in_indented_text(page):
  """Only blocks and inline code are looked at above."""
  assert not re.search(r'^ {4}.*\bpython3? ', _outside_blocks(page), re.MULTILINE)


def test_a_wrong_flag_is_found():
  with pytest.raises(flags.UnrecognizedFlagError):
    _check_script_flags(SCRIPTS[0], ['--training_methods=rigl'])
  with pytest.raises(ValueError, match='end_sparsity'):
    _check_script_flags(SCRIPTS[0], ['--end_sparsity=1.5'])


TRAININGS = re.findall(r'`train (\w+) ([\w ]+)`', _text('docs/imagenet.md'))


@pytest.mark.parametrize('folder, names', TRAININGS)
def test_configs_of_imagenet_trainings_are_valid(folder, names):
  _check_script_flags(SCRIPTS[2], [f'--gin_config={name}' for name in names.split()])


def test_imagenet_trainings_are_found():
  assert len(TRAININGS) == 23


def test_first_run_trains(tmp_path):
  command = re.search(
    r'<!-- 30 second run -->\n```bash\n(.*?)```', _text('README.md'), re.DOTALL
  ).group(1)
  _, arguments = _split(command.replace('\\\n', ' '))
  arguments = [a for a in arguments if not a.startswith(('--num_epochs', '--save_path'))]
  result = subprocess.run(
    [
      sys.executable,
      '-m',
      'rigl.mnist.mnist_train_eval',
      *arguments,
      '--num_epochs=2',
      f'--save_path={tmp_path}',
    ],
    capture_output=True,
    text=True,
    check=False,
    cwd=tmp_path,
  )
  assert result.returncode == 0, result.stderr
  assert 'epoch   2/2' in result.stdout
  assert 'Test error: final' in result.stdout


# --- Programs and what they print --------------------------------------------


def _assert_same(expected: str, actual: str) -> None:
  """Equal, but for spaces at the ends of lines and what `...` stands for."""
  actual = ''.join(f'{line.rstrip()}\n' for line in actual.splitlines())
  matches = doctest.OutputChecker().check_output(expected, actual, doctest.ELLIPSIS)
  assert matches, f'expected:\n{expected}\ngot:\n{actual}'


# (page, program, what it prints or None).
PROGRAMS_AND_OUTPUTS = [
  (page, code, printed or None)
  for page in PAGES
  for code, printed in re.findall(
    r'```python\n(.*?)```(?:\n\n```text\n(.*?)```)?', _text(page), re.DOTALL
  )
]
EXAMPLES = [path.read_text(encoding='utf-8') for path in (ROOT / 'examples').glob('*.py')]
# Tests of the examples run those that are a part of one.
SNIPPETS = [
  row
  for row in PROGRAMS_AND_OUTPUTS
  if row[0] not in (*KERAS_PAGES, INFERENCE_PAGE, TRAINED_PAGE)
  and not any(row[1] in example for example in EXAMPLES)
]


def _run(code: str, page: str, namespace: dict[str, object]) -> None:
  # Keras numbers the layers that it names, through all that runs before.
  tf2.keras.backend.clear_session()
  with tf.Graph().as_default():
    exec(compile(code, page, 'exec'), namespace)


@pytest.mark.parametrize('page, code, printed', [row for row in SNIPPETS if row[0] != ONE_PROGRAM])
def test_python_snippet(page, code, printed, capsys):
  _run(code, page, {'__name__': 'snippet'})
  if printed is not None:
    _assert_same(printed, capsys.readouterr().out)


def test_python_snippets_that_build_on_each_other(capsys):
  saved = dict(methods.METHODS)
  namespace = {'__name__': 'snippets'}
  printed = ''
  try:
    for page, code, text in SNIPPETS:
      if page == ONE_PROGRAM:
        _run(code, page, namespace)
        printed += text or ''
  finally:
    methods.METHODS.clear()
    methods.METHODS.update(saved)
  assert printed
  _assert_same(printed, capsys.readouterr().out)


CONSOLE = [
  (page, arguments, printed)
  for page in PAGES
  for arguments, printed in re.findall(
    r'```console\n\$ python -m rigl\.micronet(.*?)\n(.*?)```', _text(page), re.DOTALL
  )
]


@pytest.mark.parametrize('page, arguments, printed', CONSOLE)
def test_output_of_the_counter(page, arguments, printed, capsys):
  assert cli.main(shlex.split(arguments)) == 0
  _assert_same(printed, capsys.readouterr().out)


def test_published_tables_are_the_output_of_the_counter(capsys):
  assert cli.main(['--format=markdown']) == 0
  printed = capsys.readouterr().out.strip()
  begin = printed.index('| Distribution')
  # Its headings are a level below those of the page.
  printed = printed[begin:].replace('\n## ', '\n### ')
  assert printed in _text('docs/flop_counting.md')


def test_programs_are_found():
  assert {page for page, *_ in SNIPPETS} == {
    'docs/adding_a_method.md',
    'docs/compare.md',
    'docs/extending.md',
    'docs/flop_counting.md',
    'docs/graph_mode.md',
  }
  assert sum(printed is not None for *_, printed in SNIPPETS) == 7
  assert len(CONSOLE) == sum(len(_blocks(page, 'console')) for page in PAGES)
  assert {page for page, *_ in CONSOLE} == {'docs/flop_counting.md'}


# --- Links -------------------------------------------------------------------


@pytest.mark.parametrize('page', [*PAGES, 'CHANGELOG.md', 'CONTRIBUTING.md'])
def test_local_links_exist(page):
  for target, anchor in re.findall(r'\]\(([^)#:]*)(?:#([^)]+))?\)', _text(page)):
    path = (ROOT / page).parent / target if target else ROOT / page
    assert path.exists(), target
    if anchor:
      assert anchor in _anchors(path), (target, anchor)


def _anchors(path: pathlib.Path) -> set[str]:
  """Of the headings of a page, as GitHub and mkdocs make them."""
  return {
    re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
    for heading in re.findall(r'^#+ (.*)', path.read_text(encoding='utf-8'), re.MULTILINE)
  }


def test_the_readme_is_short():
  assert len(_text('README.md').splitlines()) <= 150


@pytest.mark.parametrize(
  'page', [page for page in PAGES if page not in ('README.md', 'docs/index.md')]
)
def test_every_page_is_listed(page):
  assert f']({page.removeprefix("docs/")})' in _text('docs/index.md')


def test_numbers_of_the_choice_are_those_of_the_results():
  measured = re.findall(
    r'\d+\.\d+', ''.join(_text(f'docs/{name}.md') for name in ('results', 'keras', 'flop_counting'))
  )
  cells = re.findall(
    r'^\|(.*\d\.\d.*)\|$', _text('docs/choosing.md').split('## Distribution')[0], re.MULTILINE
  )
  numbers = [n for cell in cells for n in re.findall(r'\d+\.\d+', cell)]
  assert len(numbers) > 40
  for number in numbers:
    assert number in measured, number


def test_errors_elsewhere_are_those_of_the_results():
  results = _text('docs/results.md')
  for page in ('README.md', 'docs/scripts.md'):
    found = re.findall(r'(\d\.\d\d) %', _text(page))
    assert '1.82' in found
    for number in set(found) - {'5.50', '6.40'}:
      assert number in results, (page, number)
