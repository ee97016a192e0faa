"""Command lines of the training scripts: groups of flags, --help, mistakes.

A flag's group is said where the flag is defined:

    with command_line.group('Network'):
      flags.DEFINE_integer('depth', 50, 'Depth of the network.')
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import textwrap
from typing import Any, Iterator

from absl import app, flags

from rigl.core import checks, messages
from rigl.training import settings

FLAGS = flags.FLAGS

# In the order of --help.
GROUPS = (
    'General', 'Sparse training', 'Mask updates', 'Gradual pruning', 'Network',
    'Optimisation', 'Data', 'Evaluation', 'Output', 'Devices', 'Not used')

_FOOTER = '''\
Of every script:
  --helpfull                all flags there are, those of libraries too
  --flagfile=FILE           reads flags from a file'''

_TEXT_COLUMN = 28
_MIN_TEXT_WIDTH = 30
_MAX_WIDTH = 100
# textwrap breaks lines at other spaces only.
_UNBREAKABLE = '\N{NO-BREAK SPACE}'

# What the scripts, and others, call the folder of their runs.
_RUN_FOLDERS = ('output_dir', 'train_dir', 'save_path', 'model_dir', 'logdir')
_OTHER_NAMES = {'lr': 'learning_rate'}
_MAX_SUGGESTIONS = 4

# Where a script's own flags say more than those it shares with others.
_OWN_FLAGS_FIRST = ('Network', 'Optimisation', 'Output')

# {name of a flag: its group}, in the order of their definition.
_GROUP_OF: dict[str, str] = {}
_SHARED: set[str] = set()


@contextlib.contextmanager
def group(title: str, is_shared: bool = False) -> Iterator[None]:
  """Puts the flags that are defined in this context into a group of --help.

  Args:
    title: one of GROUPS.
    is_shared: whether several scripts have the flags.

  Raises:
    ValueError: there is no such group.
  """
  checks.one_of('title', title, GROUPS)
  before = set(FLAGS)
  yield
  defined = [name for name in FLAGS if name not in before]
  _GROUP_OF.update(dict.fromkeys(defined, title))
  if is_shared:
    _SHARED.update(defined)


def group_of(name: str) -> str:
  """The group of a flag.

  Args:
    name: name of the flag.

  Raises:
    ValueError: the flag was defined outside `group`.
  """
  if name not in _GROUP_OF:
    raise ValueError(f'--{name} is in no group: define it inside '
                     '`with command_line.group(...)`.')
  return _GROUP_OF[name]


def _description(flag: flags.Flag) -> list[str]:
  """What a flag means, its options and its default, as paragraphs."""
  text = ' '.join(flag.help.split())
  parts = [text]
  if isinstance(flag, flags.EnumFlag):
    # absl begins with the options; the texts explain each of them.
    text = text.split('>: ', 1)[1]
    options = '|'.join(map(re.escape, flag.parser.enum_values))
    parts = re.split(rf' (?=(?:{options}): )', text)
  if flag.default not in (None, '', []):
    default = str(flag.default).lower() if flag.boolean else flag.default
    parts[0] += f' (default:{_UNBREAKABLE}{default})'
  return parts


def _entry(flag: flags.Flag, width: int) -> str:
  """The lines of a flag in --help."""
  name = f'  --[no]{flag.name}' if flag.boolean else f'  --{flag.name}'
  indent = ' ' * _TEXT_COLUMN
  text = '\n'.join(
      textwrap.fill(
          part, width, initial_indent=indent,
          subsequent_indent=indent + '  ' * (i > 0), break_long_words=False,
          break_on_hyphens=False)
      for i, part in enumerate(_description(flag))).replace(_UNBREAKABLE, ' ')
  if len(name) + 2 > _TEXT_COLUMN:
    return f'{name}\n{text}'
  return name + text[len(name):]


def help_text(module: str, more: str = '') -> str:
  """What --help prints: the docstring of a script and its flags, by groups.

  Args:
    module: name of the script's module.
    more: lines to end with.

  Raises:
    ValueError: a flag is in no group.
  """
  # Where the output is no terminal either, unlike older releases of absl.
  columns = shutil.get_terminal_size(fallback=(80, 24)).columns
  width = max(min(columns, _MAX_WIDTH), _TEXT_COLUMN + _MIN_TEXT_WIDTH)
  members: dict[str, list[flags.Flag]] = {title: [] for title in GROUPS}
  for flag in FLAGS.get_key_flags_for_module(module):
    members[group_of(flag.name)].append(flag)
  blocks = [(sys.modules[module].__doc__ or '').strip()]
  order = list(_GROUP_OF)
  for title, some in members.items():
    some.sort(key=lambda flag: order.index(flag.name))
    if title in _OWN_FLAGS_FIRST:
      some.sort(key=lambda flag: flag.name in _SHARED)
    if some:
      entries = [_entry(flag, width) for flag in some]
      blocks.append('\n'.join([f'{title}:', *entries]))
  return '\n\n'.join([*blocks, f'{_FOOTER}\n{more}'.rstrip()])


class _HelpFlag(app.HelpFlag):
  """--help, which prints `help_text`."""

  def __init__(self, module: str, more: str):
    super().__init__()
    # absl has defined a flag of this name.
    self.allow_override = True
    self._arguments = module, more

  def parse(self, arg: Any) -> None:
    """Prints the text and ends the program.

    Args:
      arg: 'true', or what the command line has behind --help=.
    """
    if self.parser.parse(arg):
      try:
        print(help_text(*self._arguments), flush=True)
      except BrokenPipeError:
        # Nobody reads on, as in `--help | head`; nor what is left at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit()


class _ShortHelpFlag(_HelpFlag):
  """--helpshort, which means the same."""

  NAME = 'helpshort'
  SHORT_NAME = None


class _HFlag(_ShortHelpFlag):
  """-h, which other programs have for it."""

  NAME = 'h'


def define_help(module: str, more: str = '') -> None:
  """Makes --help, --helpshort, -h and -? print `help_text`.

  Args:
    module: name of the script's module.
    more: lines to end with.
  """
  app.define_help_flags()
  for flag_class in (_HelpFlag, _ShortHelpFlag, _HFlag):
    flags.DEFINE_flag(flag_class(module, more))


def only_evaluates() -> bool:
  """Whether --mode asks a script for evaluation alone."""
  return 'mode' in FLAGS and (FLAGS['mode'].value or '').startswith('eval')


def suggestions(word: str) -> list[str]:
  """Flags that a user may have meant by one that does not exist.

  Those that contain its words, such as num_epochs for epochs, come before
  those that are spelled nearly alike.

  Args:
    word: what the user gave as the name of a flag.

  Returns:
    At most _MAX_SUGGESTIONS names.
  """
  if word in _RUN_FOLDERS:
    return [name for name in _GROUP_OF if name in _RUN_FOLDERS]

  def words(name: str) -> list[str]:
    return [part.rstrip('s') for part in name.split('_')]

  wanted = words(_OTHER_NAMES.get(word, word))
  containing = [
      name for name in _GROUP_OF
      if any(words(name)[i:i + len(wanted)] == wanted
             for i in range(len(words(name))))]
  # The last words say what a flag is: end_sparsity, and then sparsity_scale.
  containing.sort(key=lambda name: (
      f'_{word}_' not in f'_{name}_', words(name)[-len(wanted):] != wanted))
  alike = messages.alike(word, FLAGS)
  return list(dict.fromkeys([*containing, *alike]))[:_MAX_SUGGESTIONS]


def parse(argv: list[str]) -> list[str]:
  """Parses the flags, or ends the program with one line on what is wrong.

  A ~ at the beginning of a path becomes the home folder.

  Args:
    argv: the command line.

  Returns:
    The name of the program alone, for what is no flag is a mistake.
  """
  try:
    program, *rest = FLAGS(argv)
  except flags.UnrecognizedFlagError as error:
    similar = [f'--{name}' for name in suggestions(error.flagname)]
    sys.exit(f'Error: There is no flag --{error.flagname}.'
             f'{messages.did_you_mean(similar)}\n--help lists all flags.')
  except flags.Error as error:
    sys.exit(f'Error: {error}\n--help lists all flags.')
  if rest:
    sys.exit(f'Error: Unexpected arguments {rest}: flags begin with --.\n'
             '--help lists all flags.')
  try:
    for name in settings.PATHS:
      value = FLAGS[name].value if name in FLAGS else None
      if isinstance(value, list):
        FLAGS[name].value = [
            checks.expanded_path(f'--{name}', path) for path in value]
      elif value:
        FLAGS[name].value = checks.expanded_path(f'--{name}', value)
  except ValueError as error:
    sys.exit(f'Error: {error}')
  return [program]
