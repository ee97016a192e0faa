"""--help of the training scripts, and errors of wrong command lines."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from rigl.core import methods
from rigl.mnist import mnist_train_eval
from rigl.training import command_line
from rigl.training.schema import GROUPS, Schema, Settings, setting
from tests import script_server
from tests.faults import scripts

GOLDENS = {
  'mnist': 'mnist_train_eval',
  'cifar': 'cifar_resnet_train_eval',
  'imagenet': 'imagenet_train_eval',
}
_FLAG = re.compile(r'^  --(?:\[no\])?(\w+)', re.MULTILINE)


@pytest.fixture(scope='module', params=scripts.SCRIPTS)
def server(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp(request.param)
  with script_server.ScriptServer(scripts.SCRIPTS[request.param], folder, COLUMNS='80') as running:
    running.script = request.param
    yield running


def groups(text):
  """{heading: text below it} of what --help prints."""
  parts = re.split(r'^([A-Z][\w ]*):$', text, flags=re.MULTILINE)
  return dict(zip(parts[1::2], parts[2::2]))


@pytest.fixture(scope='module')
def help_of_script(server):
  result = server.run(['--help'])
  assert result.code == 0
  assert not result.stderr
  return result.stdout


# --- The three scripts -------------------------------------------------------


def test_help_has_each_flag_once_and_those_not_used_last(help_of_script, server, goldens):
  found = groups(help_of_script)
  *titles, footer = found
  assert footer == 'In every script'
  assert titles == [t for t in GROUPS if t in titles]
  names = [name for title in titles for name in _FLAG.findall(found[title])]
  assert len(names) == len(set(names))
  golden = goldens(f'flags_{GOLDENS[server.script]}')['flags']
  assert {flag['name'] for flag in golden} <= set(names)
  not_used = [name for name in names if re.search(rf'--(\[no\])?{name}\s+Not used', help_of_script)]
  assert not_used == _FLAG.findall(found.get('Not used', ''))


def test_help_begins_with_what_the_script_does_and_a_command(help_of_script, server):
  assert re.match(r'Trains [^\n]*\.\n\n    python ', help_of_script)
  assert f'python -m {scripts.SCRIPTS[server.script]} --training_method=rigl' in help_of_script


def test_help_fits_a_terminal(help_of_script):
  assert max(map(len, help_of_script.splitlines())) <= 80


def test_help_explains_each_method_on_a_line_of_its_own(help_of_script):
  text = groups(help_of_script)['Sparse training']
  assert re.findall(r'^ {28}(\w+): ', text, re.MULTILINE) == list(methods.METHODS)


def test_help_has_the_modes_of_the_script(help_of_script, server):
  modes = {
    'mnist': [],
    'cifar': ['train', 'eval', 'train_and_eval'],
    'imagenet': ['train', 'eval', 'eval_once', 'train_and_eval'],
  }
  general = groups(help_of_script)['General']
  described = general.partition('--mode')[2].partition('--seed')[0]
  assert re.findall(r'^ +(\w+): ', described, re.MULTILINE) == (modes[server.script])


def test_help_shows_the_defaults_of_the_script(help_of_script, server):
  sparsity = {'mnist': '0.98', 'cifar': '0.9', 'imagenet': '0.9'}
  assert re.search(rf'--end_sparsity [^-]*\(default: {sparsity[server.script]}\)', help_of_script)


@pytest.mark.parametrize('flag', ['-h', '-?', '--helpshort'])
def test_help_has_other_names(flag, help_of_script, server):
  assert server.run([flag]).stdout == help_of_script


def test_full_help_has_flags_of_libraries_too(server):
  text = server.run(['--helpfull']).stdout
  assert '--end_sparsity' in text and '--[no]run_with_pdb' in text


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['--end_sparsitie=0.5'], ['end_sparsitie', 'end_sparsity']),
    (['--maskupdate_frequency=often'], ['maskupdate_frequency', 'often']),
    (['--training_method=lottery'], ['lottery', *methods.METHODS]),
    (['rigl', '--seed=1'], ["Unexpected arguments ['rigl']"]),
  ],
)
def test_wrong_command_line_ends_with_a_line_on_it(arguments, words, server):
  result = server.run(arguments)
  assert result.code == 1
  assert not result.stdout
  first, *others = result.stderr.splitlines()
  assert first.startswith('Error: ')
  for word in words:
    assert word in first
  assert others in ([], ['--help lists all flags.'])


@pytest.mark.parametrize(
  'given, meant',
  [
    (
      'sparsity',
      {
        'mnist': '--end_sparsity or --sparsity_scale',
        'cifar': '--end_sparsity or --sparsity_begin_step',
        'imagenet': '--end_sparsity or --first_layer_sparsity',
      },
    ),
    ('mode', {'mnist': None}),
    ('train_dir', {'mnist': '--save_path', 'imagenet': '--output_dir'}),
    ('save_path', {'cifar': '--train_dir', 'imagenet': '--output_dir'}),
    ('epochs', {'mnist': '--num_epochs or --checkpoint_epochs', 'cifar': None}),
    ('method', dict.fromkeys(scripts.SCRIPTS, '--training_method or ')),
    ('lr', {'mnist': '--learning_rate', 'imagenet': '--base_learning_rate'}),
    ('steps', {'cifar': '--max_steps or', 'imagenet': '--train_steps or'}),
  ],
)
def test_unknown_flags_lead_to_those_that_were_meant(given, meant, server):
  if server.script in meant:
    first, _ = server.run([f'--{given}=1']).stderr.splitlines()
    hint = meant[server.script]
    begin = f'Error: There is no flag --{given}.'
    assert first.startswith(f'{begin} Did you mean {hint}') if hint else first == begin


def test_help_speaks_of_its_own_script_only(help_of_script, server):
  text = ' '.join(help_of_script.split())
  assert 'On ImageNet' not in text
  assert ('18, 34, 50' in text) == (server.script == 'imagenet')
  assert ('6n + 4' in text) == (server.script == 'cifar')
  assert ('--master' in groups(help_of_script).get('Devices', '')) == (server.script == 'imagenet')
  assert 'random (the same in each), erdos_renyi,' in text


def test_script_names_its_own_modes(server):
  if server.script != 'mnist':
    error = server.run(['--mode=test']).stderr
    assert ('eval_once' in error) == (server.script == 'imagenet')


def test_help_may_be_read_in_part():
  reader, writer = os.pipe()
  os.close(reader)
  result = subprocess.run(
    [sys.executable, '-m', 'rigl.mnist.visualize_mask_records', '--help'],
    stdout=writer,
    stderr=subprocess.PIPE,
    text=True,
  )
  os.close(writer)
  assert (result.returncode, result.stderr) == (0, '')


@pytest.mark.parametrize(
  'mode, expected',
  [
    ('train', False),
    ('train_and_eval', False),
    ('eval', True),
    ('eval_once', True),
    (None, False),
    ('no such flag', False),
  ],
)
def test_evaluation_alone_is_known_by_the_mode(mode, expected, monkeypatch):
  values = flags.FlagValues()
  if mode != 'no such flag':
    flags.DEFINE_string('mode', mode, 'Mode.', flag_values=values)
  values.mark_as_parsed()
  monkeypatch.setattr(command_line, 'FLAGS', values)
  assert command_line.only_evaluates() is expected


# --- Entries of --help -------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Own(Settings):
  """Settings of each kind."""

  folder: str = setting('', 'Output', 'Folder.', is_path=True)
  speed: float = setting(0.5, 'General', 'How fast.')
  aloud: bool = setting(True, 'General', 'Whether to speak.')
  shape: str = setting(
    'round',
    'Network',
    'Shape.',
    options={'round': 'a disc', 'flat': 'a line; of text that goes on and on and on'},
  )
  with_a_name_that_is_too_long: str = setting(None, 'Data', 'Text.')
  n: int = setting(7, 'Devices', 'A text that fills a line.')


SCHEMA = Schema(
  (),
  Own,
  'folder',
  defaults={'speed': 2.0},
  other_names={'velocity': 'speed'},
  not_used={'colour': 'red'},
)


def test_help_has_groups_in_their_order_and_defaults_of_the_schema(monkeypatch):
  monkeypatch.setenv('COLUMNS', '60')
  text = command_line.help_text(SCHEMA, __name__, 'The end.')
  assert (
    text
    == f"""{sys.modules[__name__].__doc__}

General:
  --speed                   How fast. (default: 2.0)
  --[no]aloud               Whether to speak.
                            (default: true)
  --velocity                Another name of --speed.

Network:
  --shape                   Shape. (default: round)
                            round: a disc
                            flat: a line; of text that goes
                              on and on and on

Data:
  --with_a_name_that_is_too_long
                            Text.

Output:
  --folder                  Folder.

Devices:
  --n                       A text that fills a line.
                            (default: 7)

Not used:
  --colour                  Not used. (default: red)

In every script:
  --helpfull                all flags there are, those of libraries too
  --flagfile=FILE           reads flags from a file
The end."""
  )


@pytest.mark.parametrize(
  'word, meant',
  [
    ('speeds', ['speed']),
    ('logdir', ['folder']),
    ('colours', ['colour']),
    ('velocitys', ['velocity']),
  ],
)
def test_suggestions_are_of_the_schema(word, meant):
  assert command_line.suggestions(word, SCHEMA)[:1] == meant


@pytest.mark.parametrize(
  'path, remedy',
  [
    ('~/x', 'Give the whole path, or set HOME.'),
    ('~', 'Give the whole path, or set HOME.'),
    ('~nobody/x', 'Give the whole path.'),
  ],
)
def test_a_home_folder_that_nobody_knows_is_one_line(path, remedy, no_home):
  with flagsaver.flagsaver(), pytest.raises(SystemExit) as stop:
    command_line.parse(['x.py', f'--save_path={path}'], mnist_train_eval.SCHEMA)
  user = path.split('/')[0]
  assert stop.value.code == (
    f'Error: save_path={path!r}: the home folder {user} is unknown here. {remedy}'
  )
