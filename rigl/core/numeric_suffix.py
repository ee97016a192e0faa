"""Option values with a numeric suffix, such as exponential_3, grad_scale_10."""

from __future__ import annotations

import re
from typing import Any


def split(token: Any) -> tuple[str, float]:
  """The name before the last underscore of `token` and the number after it.

  'exponential_3' gives ('exponential', 3.0), 'exponential_.3' 0.3, and
  'exponential' ('exponential', 1.0). A number consists of digits and at most
  one point; a sign or exponent stays part of the name.

  Args:
    token: such as a value of drop_fraction_anneal or grow_init.

  Raises:
    ValueError: `token` is no string or ends with an underscore.
  """
  if not isinstance(token, str):
    raise ValueError(f'{token!r} is not a string.')
  if token.endswith('_'):
    raise ValueError(
      f'{token!r} ends with an underscore; a number must follow it, as in exponential_3.'
    )
  match = re.fullmatch(r'(.*)_(\d+\.?\d*|\.\d+)', token)
  return (match.group(1), float(match.group(2))) if match else (token, 1.0)
