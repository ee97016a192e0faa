"""The snippets and commands of the README and the docs work as they stand."""

from __future__ import annotations

import importlib
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from rigl.compat import tf

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = ['README.md', *(f'docs/{p.name}' for p in (ROOT / 'docs').glob('*.md'))]
SCRIPTS = ('rigl.mnist.mnist_train_eval', 'rigl.cifar_resnet.resnet_train_eval')


def _blocks(language: str) -> list[tuple[str, str]]:
  return [(page, block) for page in PAGES for block in re.findall(
      rf'```{language}\n(.*?)```', (ROOT / page).read_text(), re.DOTALL)]


def _commands() -> list[str]:
  """The commands of bash blocks, continued lines joined, comments cut."""
  commands = []
  for _, block in _blocks('bash'):
    for line in block.replace('\\\n', ' ').splitlines():
      words = shlex.split(line, comments=True)
      if words:
        commands.append(shlex.join(words))
  return sorted(set(commands))


def _module_and_arguments(command: str) -> tuple[str, list[str]]:
  words = shlex.split(command)
  if '-m' not in words:
    return '', []
  at = words.index('-m')
  return words[at + 1], words[at + 2:]


SCRIPT_COMMANDS = [c for c in _commands()
                   if _module_and_arguments(c)[0] in SCRIPTS]


@pytest.mark.parametrize('page,code', _blocks('python'))
def test_python_snippet_runs(page, code, capsys):
  with tf.Graph().as_default():
    exec(compile(code, page, 'exec'), {'__name__': 'snippet'})
  for promised in re.findall(r"# (sparsity \d\.\d+)", code):
    assert promised in capsys.readouterr().out


@pytest.mark.parametrize('command', SCRIPT_COMMANDS)
def test_flags_of_script_commands_are_valid(command):
  name, arguments = _module_and_arguments(command)
  script = importlib.import_module(name)
  if '--help' in arguments or '--gin_config=my.gin' in arguments:
    arguments = [a for a in arguments
                 if a not in ('--help', '--gin_config=my.gin')]
  # Placeholders such as $SEED stand for a number.
  arguments = [re.sub(r'\$\w+', '1', a) for a in arguments]
  with flagsaver.flagsaver():
    script.sparse_flags.set_script_defaults(script.SCRIPT_DEFAULTS)
    flags.FLAGS([name, *arguments])
    script.configs_from_flags()


def test_there_are_commands_to_check():
  assert len(SCRIPT_COMMANDS) >= 5


def test_first_run_trains(tmp_path):
  text = (ROOT / 'README.md').read_text()
  command = re.search(
      r'<!-- 30 second run -->\n```bash\n(.*?)```', text, re.DOTALL).group(1)
  _, arguments = _module_and_arguments(
      shlex.join(shlex.split(command.replace('\\\n', ' '))))
  arguments = [a for a in arguments
               if not a.startswith(('--num_epochs', '--save_path'))]
  result = subprocess.run(
      [sys.executable, '-m', 'rigl.mnist.mnist_train_eval', *arguments,
       '--num_epochs=2', f'--save_path={tmp_path}'],
      capture_output=True, text=True, check=False, cwd=tmp_path)
  assert result.returncode == 0, result.stderr
  assert 'epoch   2/2' in result.stdout
  assert 'Test error: final' in result.stdout


def test_local_links_exist():
  for page in PAGES:
    folder = (ROOT / page).parent
    for target in re.findall(r'\]\(([^)#:]+)\)', (ROOT / page).read_text()):
      assert (folder / target).exists(), f'{page} links to {target}'
