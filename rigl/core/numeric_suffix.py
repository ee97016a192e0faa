"""Option values with a numeric suffix, such as exponential_3, grad_scale_10."""

from __future__ import annotations

import re
from typing import Any


def split(option: Any) -> tuple[str, float]:
  """The name before the last underscore of an option's value, and the number after it.

  'exponential_3' gives ('exponential', 3.0), 'exponential_.3' 0.3, and
  'exponential' ('exponential', 1.0). A number consists of digits and at most
  one point; a sign or exponent stays part of the name.

  Raises:
    ValueError: `option` is no string or ends with an underscore.
  """
  if not isinstance(option, str):
    raise ValueError(f'{option!r} is not a string.')
  if option.endswith('_'):
    raise ValueError(
      f'{option!r} ends with an underscore; a number must follow it, as in exponential_3.'
    )
  match = re.fullmatch(r'(.*)_(\d+\.?\d*|\.\d+)', option)
  return (match.group(1), float(match.group(2))) if match else (option, 1.0)
