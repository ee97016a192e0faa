"""The snippets and commands of the README and the docs work as they stand."""

from __future__ import annotations

import argparse
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

from rigl.compat import tf
from rigl.training import methods

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = ['README.md', *sorted(
    f'docs/{path.name}' for path in (ROOT / 'docs').glob('*.md'))]
SCRIPTS = (
    'rigl.mnist.mnist_train_eval', 'rigl.cifar_resnet.resnet_train_eval',
    'rigl.imagenet_resnet.imagenet_train_eval')
# What parses its arguments with argparse in `main`.
PROGRAMS = re.compile(
    r'rigl\.micronet|rigl\.imagenet_resnet\.sample_data|(benchmarks|tools)\..*')


def _text(page: str) -> str:
  return (ROOT / page).read_text(encoding='utf-8')


def _blocks(page: str, language: str) -> list[str]:
  return re.findall(rf'```{language}\n(.*?)```', _text(page), re.DOTALL)


def _lines(page: str) -> list[str]:
  """Commands: lines of bash blocks, prompts of console blocks, inline code."""
  lines = ''.join(_blocks(page, 'bash')).replace('\\\n', ' ').splitlines()
  for block in _blocks(page, 'console'):
    lines += re.findall(r'^\$ (.*)', block, re.MULTILINE)
  without_blocks = re.sub(r'```.*?```', '', _text(page), flags=re.DOTALL)
  return lines + re.findall(r'`(python [^`\n]*)`', without_blocks)


def _split(line: str) -> tuple[str, list[str]]:
  """(module, arguments) of a command that runs code of this project."""
  # What the shell computes is tested apart.
  words = shlex.split(line.split('$(')[0], comments=True)
  if 'python' not in words:
    return '', []
  words = words[words.index('python') + 1:]
  if words[:1] == ['-m']:
    return words[1], words[2:]
  path = pathlib.PurePosixPath(words[0]) if words else pathlib.PurePosixPath()
  if path.suffix != '.py' or not (ROOT / path).exists():
    return '', []
  return '.'.join(path.with_suffix('').parts), words[1:]


# Placeholders such as $SEED stand for a number.
COMMANDS = sorted({
    (page, module, *(re.sub(r'\$\w+', '1', word) for word in arguments))
    for page in PAGES for module, arguments in map(_split, _lines(page))
    if module
})


def _check_script_flags(name: str, arguments: list[str]) -> None:
  script = importlib.import_module(name)
  with flagsaver.flagsaver():
    script.sparse_flags.set_script_defaults(script.SCRIPT_DEFAULTS)
    flags.FLAGS([name, *arguments])
    script.configs_from_flags()


@pytest.mark.parametrize(
    'page, name, arguments',
    [(p, m, a) for p, m, *a in COMMANDS if m in SCRIPTS])
def test_flags_of_script_commands_are_valid(page, name, arguments):
  _check_script_flags(name, [
      a for a in arguments
      if not a.startswith('--help') and a != '--gin_config=my.gin'])


class _ParsedError(Exception):
  """Ends a program once its arguments are parsed."""


@pytest.mark.parametrize(
    'page, name, arguments',
    [(p, m, a) for p, m, *a in COMMANDS if PROGRAMS.fullmatch(m)])
def test_arguments_of_programs_are_valid(page, name, arguments, monkeypatch):
  parse = argparse.ArgumentParser.parse_args

  def parse_and_stop(self, args=None, namespace=None):
    parse(self, args, namespace)
    raise _ParsedError

  monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_and_stop)
  monkeypatch.setattr(sys, 'argv', [name, *arguments])
  if name.startswith('rigl.'):
    module = importlib.import_module(
        'rigl.micronet.cli' if name == 'rigl.micronet' else name)
  else:
    path = ROOT / name.replace('.', '/')
    spec = importlib.util.spec_from_file_location(
        f'{path.name}_of_docs', path.with_suffix('.py'))
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
  with pytest.raises(_ParsedError):
    module.main()


def test_all_commands_are_of_a_known_kind():
  modules = {module for _, module, *_ in COMMANDS}
  assert modules.issuperset(SCRIPTS)
  others = {
      name for name in modules.difference(SCRIPTS)
      if not PROGRAMS.fullmatch(name)}
  assert others <= {'pytest', 'rigl.mnist.visualize_mask_records'}
  assert len(COMMANDS) >= 15


def test_a_wrong_flag_is_found():
  with pytest.raises(flags.UnrecognizedFlagError):
    _check_script_flags(SCRIPTS[0], ['--training_methods=rigl'])
  with pytest.raises(ValueError, match='end_sparsity'):
    _check_script_flags(SCRIPTS[0], ['--end_sparsity=1.5'])


TRAININGS = re.findall(r'`train (\w+) ([\w ]+)`', _text('docs/imagenet.md'))


@pytest.mark.parametrize('folder, names', TRAININGS)
def test_configs_of_imagenet_trainings_are_valid(folder, names):
  configs = ROOT / 'rigl' / 'imagenet_resnet' / 'configs'
  _check_script_flags(SCRIPTS[2], [
      f'--gin_config={configs / name}.gin' for name in names.split()])


def test_imagenet_trainings_are_found():
  assert len(TRAININGS) == 23


def _needs_earlier_blocks(page: str) -> bool:
  return page == 'docs/adding_a_method.md'


@pytest.mark.parametrize(
    'page', [page for page in PAGES if _blocks(page, 'python')])
def test_python_snippets_run(page, capsys):
  saved = dict(methods.METHODS)
  namespace = {'__name__': 'snippet'}
  try:
    for code in _blocks(page, 'python'):
      if not _needs_earlier_blocks(page):
        namespace = {'__name__': 'snippet'}
      with tf.Graph().as_default():
        exec(compile(code, page, 'exec'), namespace)
  finally:
    methods.METHODS.clear()
    methods.METHODS.update(saved)
  if page == 'README.md':
    assert 'sparsity 0.900' in capsys.readouterr().out


def test_first_run_trains(tmp_path):
  command = re.search(
      r'<!-- 30 second run -->\n```bash\n(.*?)```', _text('README.md'),
      re.DOTALL).group(1)
  _, arguments = _split(command.replace('\\\n', ' '))
  arguments = [a for a in arguments
               if not a.startswith(('--num_epochs', '--save_path'))]
  result = subprocess.run(
      [sys.executable, '-m', 'rigl.mnist.mnist_train_eval', *arguments,
       '--num_epochs=2', f'--save_path={tmp_path}'],
      capture_output=True, text=True, check=False, cwd=tmp_path)
  assert result.returncode == 0, result.stderr
  assert 'epoch   2/2' in result.stdout
  assert 'Test error: final' in result.stdout


@pytest.mark.parametrize('page', PAGES)
def test_local_links_exist(page):
  text = _text(page)
  for target in re.findall(r'\]\(([^)#:]+)\)', text):
    assert ((ROOT / page).parent / target).exists(), target
  headings = {
      re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
      for heading in re.findall(r'^#+ (.*)', text, re.MULTILINE)}
  for anchor in re.findall(r'\]\(#([^)]+)\)', text):
    assert anchor in headings, anchor


@pytest.mark.parametrize(
    'page', [page for page in PAGES if page != 'README.md'])
def test_every_page_can_be_reached_from_the_readme(page):
  assert f'({page})' in _text('README.md')


def test_measured_errors_in_the_results_are_those_of_the_readme():
  text = _text('docs/results.md')
  mnist = text[text.index('## MNIST'):text.index('## CIFAR-10')]
  rows = re.findall(r'^\|.*\| (\d\.\d\d) \((\d\.\d\d)\) \|$', mnist,
                    re.MULTILINE)
  assert len(rows) == 14
  for number in {number for row in rows for number in row}:
    assert f' {number} ' in _text('README.md'), number
