"""Parts of error messages."""

from __future__ import annotations

import difflib
import re
from typing import Iterable, Sequence

# Starts this library's messages inside TensorFlow's errors.
MARK = 'Bad input data: '


def first_few(names: Sequence[str], n: int, separator: str = ', ') -> str:
  """The first `n` names, and how many more there are."""
  more = f' and {len(names) - n} more' if len(names) > n else ''
  return separator.join(names[:n]) + more


def alike(word: str, options: Iterable[str]) -> list[str]:
  """Options spelled like `word`, closest first."""
  return difflib.get_close_matches(word, list(options), cutoff=0.72)


def did_you_mean(words: Iterable[str]) -> str:
  """' Did you mean a or b?', or '' without words."""
  words = list(words)
  return f' Did you mean {" or ".join(words)}?' if words else ''


def reason(error: Exception) -> str:
  """The message of an error in one line, without TensorFlow's traceback.

  Args:
    error: error of TensorFlow or Python. If a tf.Assert raised it with a text
      that starts with MARK, the rest of that text is the message.
  """
  text = getattr(error, 'message', None) or str(error)
  own = re.search(re.escape(MARK) + r'(.*)\]', text)
  if own:
    # Assert escapes quotes with backslashes, as C does.
    said = own[1].encode('latin-1', 'backslashreplace').decode('unicode_escape')
  else:
    # TensorFlow puts the message between the place of the op and its stack.
    before, mark, _ = text.partition('[[{{node')
    lines = before.strip().splitlines()
    said = lines[-1] if mark and lines else text
  return ' '.join(said.split()) or type(error).__name__
