"""What errors say to a user."""

from __future__ import annotations

import difflib
import re
from typing import Iterable, Sequence

# At the start of this library's messages inside of TensorFlow's.
MARK = 'Bad input data: '

def first_few(names: Sequence[str], n: int, separator: str = ', ') -> str:
  """The first `n` names, and how many more there are."""
  more = f' and {len(names) - n} more' if len(names) > n else ''
  return separator.join(names[:n]) + more


def alike(word: str, options: Iterable[str]) -> list[str]:
  """Options that are spelled nearly like a word, the nearest first."""
  return difflib.get_close_matches(word, list(options), cutoff=0.72)


def did_you_mean(words: Iterable[str]) -> str:
  """' Did you mean ...?', or '' without words."""
  words = list(words)
  return f' Did you mean {" or ".join(words)}?' if words else ''


def reason(error: Exception) -> str:
  """The message of an error in one line, without TensorFlow's traceback.

  Args:
    error: error of TensorFlow or of Python; of one that is raised by the Assert
      operation for a text that starts with MARK, it is what follows.
  """
  text = getattr(error, 'message', None) or str(error)
  own = re.search(re.escape(MARK) + r'(.*)\]', text)
  if own:
    # Assert puts backslashes before quotes, as C does.
    said = own[1].encode('latin-1', 'backslashreplace').decode('unicode_escape')
  else:
    # TensorFlow says it between where an operation was made and a stack trace.
    before, mark, _ = text.partition('[[{{node')
    lines = before.strip().splitlines()
    said = lines[-1] if mark and lines else text
  return ' '.join(said.split()) or type(error).__name__
