"""Seeds that are the same in every process, on every replica, after a resume.

Random numbers come from stateless operations, whose seed is a function of the
variable, the purpose, the user's seed and the global step. Python's `hash` is
no use: it is salted per process, so two workers would grow different
connections.
"""

from __future__ import annotations

import hashlib
import re


def canonical_name(variable_name: str) -> str:
  """The name without output index or replica: 'a/mask/replica_1:0' -> 'a/mask'."""
  return re.sub(r'(/replica_\d+)?(:\d+)?$', '', variable_name)


def stable_seed(variable_name: str, purpose: str, user_seed: int = 0) -> int:
  """A seed in [0, 2**31), a digest of its arguments, which fits an int32.

  Args:
    variable_name: name of the variable; ':0' and a replica suffix are ignored.
    purpose: e.g. 'drop_noise', so that two draws for one variable at one step
      differ.
    user_seed: any integer, e.g. the `--seed` flag.
  """
  text = f'{canonical_name(variable_name)}\n{purpose}\n{int(user_seed)}'
  digest = hashlib.blake2b(text.encode('utf-8'), digest_size=4).digest()
  return int.from_bytes(digest, 'little') & 0x7FFFFFFF
