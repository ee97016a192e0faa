"""Command lines of the training scripts: flags, parsing, --help, errors.

Each setting of the schema of a script is a flag, and says what --help says of it.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import Any, Callable, Mapping, Optional, Sequence

from absl import app, flags

from rigl.core import messages
from rigl.training.schema import GROUPS, Schema

# Flags belong to the script that asks for them, in --helpfull.
flags.disclaim_key_flags()

FLAGS = flags.FLAGS

_DEFINE_BY_TYPE: dict[type, Callable[..., Any]] = {
  bool: flags.DEFINE_bool,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
  str: flags.DEFINE_string,
  tuple: flags.DEFINE_multi_string,
  type(None): flags.DEFINE_string,
}

_FOOTER = """\
In every script:
  --helpfull                all flags there are, those of libraries too
  --flagfile=FILE           reads flags from a file"""

_TEXT_COLUMN = 28
_MIN_TEXT_WIDTH = 30
_MAX_WIDTH = 100
# textwrap does not break lines here.
_UNBREAKABLE = '\N{NO-BREAK SPACE}'

# What the scripts, and others, call the folder of their runs.
_RUN_FOLDERS = ('output_dir', 'train_dir', 'save_path', 'model_dir', 'logdir')
_OTHER_NAMES = {'lr': 'learning_rate'}
_MAX_SUGGESTIONS = 4


def define(schema: Schema) -> None:
  """Defines the flags of a script.

  Scripts may share a process. A flag that another one has defined stays: only
  its type matters, since the schema has the defaults, checks and help texts.
  """
  for name, field in schema.fields.items():
    if name not in FLAGS:
      default = schema.default_of(name)
      _DEFINE_BY_TYPE[type(field.default)](
        name, list(default) if isinstance(default, tuple) else default, field.metadata['help']
      )
  for name, default in schema.not_used.items():
    if name not in FLAGS:
      _DEFINE_BY_TYPE[type(default)](name, default, 'Not used.')
  for name, setting in schema.other_names.items():
    if name not in FLAGS:
      flags.DEFINE_alias(name, setting)


def given(schema: Schema) -> dict[str, Any]:
  """{setting: value} of the flags that the user has given."""
  flag_names = {**{name: name for name in schema.fields}, **schema.other_names}
  return {
    setting: FLAGS[name].value
    for name, setting in flag_names.items()
    if not FLAGS[name].using_default_value
  }


def _description(
  text: str, default: Any, options: Mapping[str, str] | Sequence[str] = ()
) -> list[str]:
  """What a flag means, its default and its options, as paragraphs."""
  parts = [' '.join(text.split())]
  if default not in (None, '', ()):
    shown = str(default).lower() if isinstance(default, bool) else default
    parts[0] += f' (default:{_UNBREAKABLE}{shown})'
  if isinstance(options, Mapping):
    parts += [f'{option}: {meaning}' for option, meaning in options.items()]
  return parts


def _entry(name: str, default: Any, description: list[str], width: int) -> str:
  """The lines of a flag in --help."""
  name = f'  --{"[no]" * isinstance(default, bool)}{name}'
  indent = ' ' * _TEXT_COLUMN
  text = '\n'.join(
    textwrap.fill(
      part,
      width,
      initial_indent=indent,
      subsequent_indent=indent + '  ' * (i > 0),
      break_long_words=False,
      break_on_hyphens=False,
    )
    for i, part in enumerate(description)
  ).replace(_UNBREAKABLE, ' ')
  if len(name) + 2 > _TEXT_COLUMN:
    return f'{name}\n{text}'
  return name + text[len(name) :]


def help_text(schema: Schema, module: str, more: str = '') -> str:
  """What --help prints: the docstring of a module, the flags by groups, and `more`."""
  # 80 columns where the output is not a terminal.
  columns = shutil.get_terminal_size(fallback=(80, 24)).columns
  width = max(min(columns, _MAX_WIDTH), _TEXT_COLUMN + _MIN_TEXT_WIDTH)
  entries: dict[str, list[str]] = {title: [] for title in GROUPS}
  for name, field in schema.fields.items():
    default, metadata = schema.default_of(name), field.metadata
    entries[metadata['group']].append(
      _entry(name, default, _description(metadata['help'], default, metadata['options']()), width)
    )
  for name, setting in schema.other_names.items():
    entries[schema.fields[setting].metadata['group']].append(
      _entry(name, None, [f'Another name of --{setting}.'], width)
    )
  for name, default in schema.not_used.items():
    entries['Not used'].append(_entry(name, default, _description('Not used.', default), width))
  blocks = [(sys.modules[module].__doc__ or '').strip()]
  blocks += ['\n'.join([f'{title}:', *some]) for title, some in entries.items() if some]
  return '\n\n'.join([*blocks, f'{_FOOTER}\n{more}'.rstrip()])


class _HelpFlag(flags.BooleanFlag):
  """--help and others, which print `help_text`."""

  def __init__(self, name: str, short_name: Optional[str], *arguments: Any):
    # absl has defined flags of these names.
    super().__init__(name, False, 'show this help', short_name, allow_override=True)
    self._arguments = arguments

  def parse(self, arg: Any) -> None:
    """Prints the text and ends the program; `arg` is 'true', or what follows --help=."""
    if self.parser.parse(arg):
      try:
        print(help_text(*self._arguments), flush=True)
      except BrokenPipeError:
        # The reader has closed the pipe, as in `--help | head`: drop the rest,
        # which Python would write at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
      sys.exit()


def define_help(schema: Schema, module: str, more: str = '') -> None:
  """Makes --help, --helpshort, -h and -? print `help_text` of the arguments."""
  app.define_help_flags()
  for name, short_name in (('help', '?'), ('helpshort', None), ('h', None)):
    flags.DEFINE_flag(_HelpFlag(name, short_name, schema, module, more))


def only_evaluates() -> bool:
  """Whether --mode asks a script for evaluation alone."""
  return 'mode' in FLAGS and (FLAGS['mode'].value or '').startswith('eval')


def suggestions(word: str, schema: Schema) -> list[str]:
  """The few flags that a user may have meant by `word`, which is not a flag.

  Those that contain its words, such as num_epochs for epochs, come before
  those that are spelled nearly alike.
  """
  if word in _RUN_FOLDERS:
    return [schema.folder] if schema.folder else []
  names = [*schema.fields, *schema.other_names, *schema.not_used]

  def words(name: str) -> list[str]:
    return [part.rstrip('s') for part in name.split('_')]

  wanted = words(_OTHER_NAMES.get(word, word))
  containing = [
    name
    for name in names
    if any(words(name)[i : i + len(wanted)] == wanted for i in range(len(words(name))))
  ]
  # The last words say what a flag is: end_sparsity, and then sparsity_scale.
  containing.sort(
    key=lambda name: (f'_{word}_' not in f'_{name}_', words(name)[-len(wanted) :] != wanted)
  )
  return list(dict.fromkeys([*containing, *messages.alike(word, FLAGS)]))[:_MAX_SUGGESTIONS]


def parse(argv: list[str], schema: Schema) -> list[str]:
  """Parses and checks the flags, or ends the program with one line on what is wrong.

  Returns the name of the program alone; anything else that is not a flag is an error.
  """
  try:
    program, *rest = FLAGS(argv)
    schema.checked(given(schema))
  except flags.UnrecognizedFlagError as error:
    similar = [f'--{name}' for name in suggestions(error.flagname, schema)]
    sys.exit(
      f'Error: There is no flag --{error.flagname}.'
      f'{messages.did_you_mean(similar)}\n--help lists all flags.'
    )
  except flags.Error as error:
    sys.exit(f'Error: {error}\n--help lists all flags.')
  except ValueError as error:
    sys.exit(f'Error: {error}')
  if rest:
    sys.exit(f'Error: Unexpected arguments {rest}: flags begin with --.\n--help lists all flags.')
  return [program]
