"""--help of the training scripts, and errors of wrong command lines."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys

import pytest
from absl import flags

from rigl.core import methods
from rigl.training import command_line
from tests import script_server
from tests.faults import scripts

GOLDENS = {'mnist': 'mnist_train_eval', 'cifar': 'cifar_resnet_train_eval',
           'imagenet': 'imagenet_train_eval'}
VISUALIZE = 'rigl.mnist.visualize_mask_records'
_FLAG = re.compile(r'^  --(?:\[no\])?(\w+)', re.MULTILINE)


@pytest.fixture(scope='module', params=scripts.SCRIPTS)
def server(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp(request.param)
  with script_server.ScriptServer(
      scripts.SCRIPTS[request.param], folder, COLUMNS='80') as running:
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


def test_help_has_each_flag_once_and_those_not_used_last(
    help_of_script, server, goldens):
  found = groups(help_of_script)
  *titles, footer = found
  assert footer == 'Of every script'
  assert titles == [t for t in command_line.GROUPS if t in titles]
  names = [name for title in titles for name in _FLAG.findall(found[title])]
  assert len(names) == len(set(names))
  golden = goldens(f'flags_{GOLDENS[server.script]}')['flags']
  assert {flag['name'] for flag in golden} <= set(names)
  not_used = [name for name in names
              if re.search(rf'--(\[no\])?{name}\s+Not used', help_of_script)]
  assert not_used == _FLAG.findall(found.get('Not used', ''))


def test_help_begins_with_what_the_script_does_and_a_command(
    help_of_script, server):
  path = scripts.SCRIPTS[server.script].replace('.', '/') + '.py'
  assert re.match(r'Trains [^\n]*\.\n\n    python ', help_of_script)
  assert f'python {path} --training_method=rigl' in help_of_script


def test_help_fits_a_terminal(help_of_script):
  assert max(map(len, help_of_script.splitlines())) <= 80


def test_help_explains_each_method_on_a_line_of_its_own(help_of_script):
  text = groups(help_of_script)['Sparse training']
  assert re.findall(r'^ {28}(\w+): ', text, re.MULTILINE) == list(
      methods.METHODS)


def test_help_has_the_modes_of_the_script(help_of_script, server):
  modes = {'mnist': [], 'cifar': ['train', 'eval', 'train_and_eval'],
           'imagenet': ['train', 'eval', 'eval_once', 'train_and_eval']}
  general = groups(help_of_script)['General']
  described = general.partition('--mode')[2].partition('--seed')[0]
  assert re.findall(r'^ +(\w+): ', described, re.MULTILINE) == (
      modes[server.script])


def test_help_shows_the_defaults_of_the_script(help_of_script, server):
  sparsity = {'mnist': '0.98', 'cifar': '0.9', 'imagenet': '0.9'}
  assert f'in [0, 1). (default: {sparsity[server.script]})' in help_of_script


@pytest.mark.parametrize('flag', ['-h', '-?', '--helpshort'])
def test_help_has_other_names(flag, help_of_script, server):
  assert server.run([flag]).stdout == help_of_script


def test_full_help_has_flags_of_libraries_too(server):
  text = server.run(['--helpfull']).stdout
  assert '--end_sparsity' in text and '--[no]run_with_pdb' in text


@pytest.mark.parametrize('arguments, words', [
    (['--end_sparsitie=0.5'], ['end_sparsitie', 'end_sparsity']),
    (['--maskupdate_frequency=often'], ['maskupdate_frequency', 'often']),
    (['--training_method=lottery'], ['lottery', *methods.METHODS]),
    (['rigl', '--seed=1'], ["Unexpected arguments ['rigl']"]),
])
def test_wrong_command_line_ends_with_a_line_on_it(arguments, words, server):
  result = server.run(arguments)
  assert result.code == 1
  assert not result.stdout
  first, *others = result.stderr.splitlines()
  assert first.startswith('Error: ')
  for word in words:
    assert word in first
  assert others in ([], ['--help lists all flags.'])


@pytest.mark.parametrize('given, meant', [
    ('sparsity', {'mnist': '--end_sparsity or --sparsity_scale',
                  'cifar': '--end_sparsity or --sparsity_begin_step',
                  'imagenet': '--end_sparsity or --first_layer_sparsity'}),
    ('mode', {'mnist': None}),
    ('train_dir', {'mnist': '--save_path', 'imagenet': '--output_dir'}),
    ('save_path', {'cifar': '--train_dir', 'imagenet': '--output_dir'}),
    ('epochs', {'mnist': '--num_epochs or --checkpoint_epochs', 'cifar': None}),
    ('method', dict.fromkeys(scripts.SCRIPTS, '--training_method or ')),
    ('lr', {'mnist': '--learning_rate', 'imagenet': '--base_learning_rate'}),
    ('steps', {'cifar': '--max_steps or', 'imagenet': '--train_steps or'}),
])
def test_unknown_flags_lead_to_those_that_were_meant(given, meant, server):
  if server.script in meant:
    first, _ = server.run([f'--{given}=1']).stderr.splitlines()
    hint = meant[server.script]
    begin = f'Error: There is no flag --{given}.'
    assert first.startswith(
        f'{begin} Did you mean {hint}') if hint else first == begin


def test_help_speaks_of_its_own_script_only(help_of_script, server):
  text = ' '.join(help_of_script.split())
  assert 'On ImageNet' not in text
  assert ('prune has this schedule' in text) == (server.script == 'imagenet')
  assert ('18, 34, 50' in text) == (server.script == 'imagenet')
  assert ('6n + 4' in text) == (server.script == 'cifar')
  assert ('--master' in groups(help_of_script).get('Devices', '')) == (
      server.script == 'imagenet')
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
      stdout=writer, stderr=subprocess.PIPE, text=True)
  os.close(writer)
  assert (result.returncode, result.stderr) == (0, '')


@pytest.mark.parametrize('mode, expected', [
    ('train', False), ('train_and_eval', False), ('eval', True),
    ('eval_once', True), (None, False), ('no such flag', False)])
def test_evaluation_alone_is_known_by_the_mode(mode, expected, monkeypatch):
  values = flags.FlagValues()
  if mode != 'no such flag':
    flags.DEFINE_string('mode', mode, 'Mode.', flag_values=values)
  values.mark_as_parsed()
  monkeypatch.setattr(command_line, 'FLAGS', values)
  assert command_line.only_evaluates() is expected


# --- Groups ------------------------------------------------------------------


@pytest.fixture
def module():
  """A module's name, whose flags are forgotten after the test."""
  before = set(flags.FLAGS)
  yield __name__
  for name in set(flags.FLAGS) - before:
    delattr(flags.FLAGS, name)


def test_groups_come_in_their_order_and_flags_as_they_are_defined(module):
  with command_line.group('Output'):
    flags.DEFINE_string('test_folder', '', 'Folder.')
  with command_line.group('General'):
    flags.DEFINE_float('test_speed', 0.5, 'How fast.')
    flags.DEFINE_bool('test_aloud', True, 'Whether to speak.')
  text = command_line.help_text(module)
  assert text.startswith('--help of the training scripts')
  assert '''

General:
  --test_speed              How fast. (default: 0.5)
  --[no]test_aloud          Whether to speak. (default: true)

Output:
  --test_folder             Folder.

''' in text


def test_own_flags_come_before_shared_ones_where_they_say_more(module):
  with command_line.group('Network', is_shared=True):
    flags.DEFINE_integer('test_shared', 1, 'Shared.')
  with command_line.group('Network'):
    flags.DEFINE_integer('test_own', 1, 'Own.')
  text = command_line.help_text(module)
  assert text.index('--test_own') < text.index('--test_shared')


def test_options_stand_on_lines_of_their_own(module):
  with command_line.group('General'):
    flags.DEFINE_enum('test_shape', 'round', ['round', 'round_ish', 'flat'],
                      'Shape. round: a disc; round_ish: an egg: nearly; '
                      'flat: a line.')
  assert '''
  --test_shape              Shape. (default: round)
                            round: a disc;
                            round_ish: an egg: nearly;
                            flat: a line.
''' in command_line.help_text(module)


def test_long_name_has_a_line_of_its_own(module):
  with command_line.group('General'):
    flags.DEFINE_string('test_with_a_name_too_long', None, 'Text.')
  assert ('\n  --test_with_a_name_too_long\n' + ' ' * 28 + 'Text.\n') in (
      command_line.help_text(module))


def test_default_is_not_torn_off(module, monkeypatch):
  monkeypatch.setenv('COLUMNS', '60')
  with command_line.group('General'):
    flags.DEFINE_integer('test_n', 7, 'A text that fills a line.')
  assert 'A text that fills a line.\n' + ' ' * 28 + '(default: 7)\n' in (
      command_line.help_text(module))


def test_flag_in_no_group_is_an_error(module):
  flags.DEFINE_string('test_alone', '', 'Alone.')
  with pytest.raises(ValueError, match='--test_alone is in no group'):
    command_line.help_text(module)


def test_unknown_group_is_an_error():
  with pytest.raises(ValueError, match="'Colours' is not one of General, "):
    with command_line.group('Colours'):
      pass


# Of the flags that are text, those that are no path.
NO_PATHS = {
    'data_format', 'drop_fraction_anneal', 'gcp_project', 'gin_bindings',
    'grow_init', 'init_method', 'layer', 'mask_init_method', 'master',
    'model_architecture', 'network_type', 'optimizer', 'precision',
    'pruning_hparams', 'tpu', 'tpu_job_name', 'tpu_zone', 'training_method'}


def paths_of(script):
  module = importlib.import_module(script)
  return {flag.name for flag in flags.FLAGS.get_key_flags_for_module(module)
          if flag.flag_type() in ('string', 'multi string')} - NO_PATHS


PATHS = [(script, name)
         for script in (*scripts.SCRIPTS.values(), VISUALIZE)
         for name in sorted(paths_of(script))]


def value_of(name, path):
  return [path] if isinstance(flags.FLAGS[name].value, list) else path


@pytest.mark.parametrize('script, name', PATHS)
def test_a_path_may_begin_with_the_home_folder(script, name, monkeypatch):
  """The shell leaves ~ alone where it stands behind =."""
  monkeypatch.setenv('HOME', '/home/me')
  for given, path in (('~', '/home/me'), ('~/a/~b', '/home/me/a/~b'),
                      ('/a/~', '/a/~'), ('', '')):
    assert command_line.parse(['x.py', f'--{name}={given}']) == ['x.py']
    assert flags.FLAGS[name].value == value_of(name, path)
    flags.FLAGS[name].unparse()


@pytest.mark.parametrize('script, name', PATHS)
@pytest.mark.parametrize('path, remedy', [
    ('~/x', 'Give the whole path, or set HOME.'),
    ('~', 'Give the whole path, or set HOME.'),
    ('~nobody/x', 'Give the whole path.')])
def test_a_home_folder_that_nobody_knows_is_one_line(
    script, name, path, remedy, no_home):
  with pytest.raises(SystemExit) as stop:
    command_line.parse(['x.py', f'--{name}={path}'])
  user = path.split('/')[0]
  assert stop.value.code == (
      f'Error: --{name}={path!r}: the home folder {user} is unknown here. '
      f'{remedy}')
