"""How scripts start, and how they end after a user's mistake."""

from __future__ import annotations

import logging as python_logging

import pytest
from absl import app, logging

from rigl.compat import tf
from rigl.mnist import mnist_config
from rigl.training import command_line, script, signals
from tests import terminals


@pytest.fixture
def run(monkeypatch):
  """script.run with a minimal app.run."""
  former = logging.get_verbosity(), tf.get_logger().level
  monkeypatch.setattr(app, 'run', lambda main, **kwargs: main(['script.py']))
  yield lambda main: script.run(main, mnist_config.SCHEMA)
  logging.get_absl_handler().setFormatter(logging.PythonFormatter())
  logging.set_verbosity(former[0])
  tf.get_logger().setLevel(former[1])


def raises(error):
  def main(argv):
    raise error

  return main


def test_main_gets_the_arguments(run):
  seen = []
  run(seen.append)
  assert seen == [['script.py']]


@pytest.mark.parametrize(
  'error',
  [
    ValueError('end_sparsity must be in [0, 1), got 1.5.'),
    FileNotFoundError('no such folder'),
    PermissionError('may not write'),
    OverflowError('too large'),
    tf.errors.InvalidArgumentError(None, None, 'no such axis'),
  ],
)
def test_mistakes_end_in_one_line_and_a_bad_exit_code(run, error):
  with pytest.raises(SystemExit) as stop:
    run(raises(error))
  # As sys.exit does it, a string is printed and the code is 1.
  assert stop.value.code == f'Error: {error}'


def test_a_path_that_the_terminal_cannot_show(run, monkeypatch):
  def show():
    run(lambda argv: print('Run: /tmp/\u00e9'))

  assert terminals.printed(monkeypatch, 'ascii', show) == 'Run: /tmp/?\n'


def test_errors_of_tensorflow_end_in_one_line(run):
  error = tf.errors.DataLossError(None, None, "Node: 'x'\nbad record\n\t [[{{node x}}]]\nat line 3")
  with pytest.raises(SystemExit, match='^Error: bad record$'):
    run(raises(error))


@pytest.mark.parametrize(
  'error', [TypeError('x'), RuntimeError('x'), KeyError('x'), AssertionError('x')]
)
def test_mistakes_of_ours_keep_their_traceback(run, error):
  with pytest.raises(type(error)):
    run(raises(error))


def test_a_stopped_training_ends_with_the_code_of_the_signal(run, capsys):
  with pytest.raises(SystemExit) as stop:
    run(raises(signals.StoppedError(15, 'Stopped at step 3 of 9.')))
  assert stop.value.code == 143
  assert capsys.readouterr().err == 'Stopped at step 3 of 9.\n'


@pytest.mark.parametrize(
  'mode, promise',
  [
    ('train', ' The same command goes on from the last checkpoint, if there is one.'),
    ('train_and_eval', ' The same command goes on from the last checkpoint, if there is one.'),
    ('eval', ''),
    ('eval_once', ''),
  ],
)
def test_ctrl_c_is_no_traceback(mode, promise, run, capsys, monkeypatch):
  monkeypatch.setattr(command_line, 'only_evaluates', lambda: mode.startswith('eval'))
  with pytest.raises(SystemExit) as stop:
    run(raises(KeyboardInterrupt()))
  assert stop.value.code == 130
  assert capsys.readouterr().err == f'Stopped by Ctrl-C.{promise}\n'


@pytest.mark.parametrize(
  'path, characters', [('a\\b', '\\'), ("it's *", '*'), ('[1]\\?', '? [ \\')]
)
def test_folder_with_wildcards_is_shown_as_it_is(path, characters):
  with pytest.raises(ValueError) as error:
    script.check_folder('save_path', path)
  assert str(error.value).startswith(f'save_path={path} has {characters} in it')


def test_traceback_is_there_for_who_asks(run, monkeypatch):
  messages = []
  monkeypatch.setattr(logging, 'debug', lambda text, **kwargs: messages.append((text, kwargs)))
  with pytest.raises(SystemExit):
    run(raises(ValueError('x')))
  ((_, kwargs),) = messages
  assert kwargs['exc_info']


@pytest.mark.parametrize('verbosity', [logging.INFO, logging.WARNING])
def test_tensorflow_is_silent(run, verbosity):
  logging.set_verbosity(verbosity)
  tf.get_logger().setLevel('INFO')
  run(lambda argv: None)
  assert tf.get_logger().level == tf.logging.ERROR


@pytest.mark.parametrize('level, begin', [(logging.INFO, ''), (logging.WARNING, 'Warning: ')])
def test_messages_have_no_place_and_time(run, level, begin):
  logging.set_verbosity(logging.INFO)
  run(lambda argv: None)
  record = logging.get_absl_logger().makeRecord(
    'absl', logging.converter.absl_to_standard(level), 'hooks.py', 54, 'Signal %d.', (15,), None
  )
  assert logging.get_absl_handler().format(record) == f'{begin}Signal 15.'


def test_messages_have_place_and_time_for_who_asks(run):
  logging.set_verbosity(logging.DEBUG)
  run(lambda argv: None)
  record = logging.get_absl_logger().makeRecord(
    'absl', python_logging.INFO, 'hooks.py', 54, 'Signal.', (), None
  )
  text = logging.get_absl_handler().format(record)
  assert 'hooks.py:54]' in text and text.endswith('Signal.')


def test_tensorflow_speaks_when_asked_for_more(run):
  logging.set_verbosity(logging.DEBUG)
  tf.get_logger().setLevel('INFO')
  run(lambda argv: None)
  assert tf.get_logger().level == tf.logging.INFO
