"""Selects the sparse kernels of a Keras model, and their sparsities.

The path of its variable identifies a kernel, for example `conv2d_1/kernel`. By
default all weight matrices and convolutions are sparse. Biases, embeddings,
normalization layers, depthwise convolutions and heads of a single unit stay
dense, since they are small and sparsity harms them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional, Union

from rigl.core import checks, distributions

Sparsity = Union[float, Mapping[str, float]]
Filters = Union[None, str, Sequence[str], Callable[[Any], bool]]

DISTRIBUTIONS = ('uniform', *distributions.DISTRIBUTIONS[1:-1])
_KERNELS = ('kernel', 'recurrent_kernel', 'pointwise_kernel')


def is_kernel(variable: Any) -> bool:
  """Whether a variable is sparse unless `filters` say otherwise.

  The kernel of a DepthwiseConv with depth_multiplier > 1 looks like that of a
  convolution here; `layer_sparsities` distinguishes them.
  """
  name = variable.path.rpartition('/')[2]
  shape = tuple(variable.shape)
  return name in _KERNELS and len(shape) >= 2 and 1 not in shape[-2:]


def _is_named(name: str, path: str) -> bool:
  """Whether a name is a path, or consecutive parts of it.

  The path may lack leading parts of the name, as in a loaded Sequential.
  """
  return f'/{name}/' in f'/{path}/' or f'/{name}'.endswith(f'/{path}')


def _check_found(found: Sequence[str], key: str, paths: Sequence[str], argument: str) -> None:
  """Raises ValueError if a key has matched nothing."""
  if found:
    return
  message = (
    f'{argument} names {key!r}, which matches none of the kernels: '
    f'{", ".join(paths) or "there are none"}.'
  )
  if any(key in path for path in paths):
    message += (
      f' A word stands for whole parts of a path; to find it within parts, write {key + ".*"!r}.'
    )
  raise ValueError(
    f'{message} (Paths in a Sequential that was loaded lack the name of the model. Embeddings and '
    'other variables need a function as filters.)'
  )


def _searched(pattern: str, paths: Sequence[str], argument: str) -> list[str]:
  """The paths in which a regular expression is found.

  Raises:
    ValueError: there are none, or the expression is invalid.
  """
  try:
    found = [path for path in paths if re.search(pattern, path)]
  except re.error as error:
    raise ValueError(
      f'{argument} has {pattern!r}, which is neither part of a path nor a regular expression: '
      f'{error}.'
    ) from error
  _check_found(found, pattern, paths, argument)
  return found


def _matching(key: str, paths: Sequence[str], argument: str) -> list[str]:
  """The paths that a key stands for, see `matched`."""
  found = [path for path in paths if path == key] or [
    path for path in paths if _is_named(key, path)
  ]
  # A word is no expression: 'dense' would find dense_1, and in a second model dense_2.
  if not found and not re.fullmatch(r'[\w/-]+', key):
    return _searched(key, paths, argument)
  _check_found(found, key, paths, argument)
  return found


def matched(names: Mapping[str, float], paths: Sequence[str], argument: str) -> dict[str, float]:
  """{path: sparsity} for a map from names or regular expressions.

  Names take precedence, those with more parts first, over expressions, which
  apply in their order.

  Args:
    names: {path, parts of it, or regular expression: sparsity}. A key of letters,
      digits, `_`, `-` and `/` alone is no expression.
    paths: all paths.
    argument: name of the argument that gave the map, for the error.

  Raises:
    ValueError: a key matches nothing, or only paths that other keys decide.
  """

  def precedence(name: str) -> tuple[bool, int]:
    is_name = any(_is_named(name, path) for path in paths)
    return not is_name, -name.count('/') if is_name else 0

  found: dict[str, float] = {}
  for name in sorted(names, key=precedence):
    matching = _matching(name, paths, argument)
    left = [path for path in matching if path not in found]
    if not left:
      raise ValueError(
        f'{argument} of {name!r} has no effect: other keys already decide about '
        f'{", ".join(matching)}. Keys of more parts count first, then the first one that matches.'
      )
    found.update(dict.fromkeys(left, float(names[name])))
  return found


def _check_map(argument: str, sparsities: Any) -> None:
  """Raises ValueError unless an argument is {name or regular expression: sparsity}."""
  if not isinstance(sparsities, Mapping) or not all(isinstance(name, str) for name in sparsities):
    raise ValueError(
      f'{argument} must be {{name or regular expression: sparsity}}, got {sparsities!r}.'
    )
  for name, sparsity in sparsities.items():
    checks.in_unit_interval(f'{argument} of {name!r}', sparsity)


@dataclasses.dataclass(frozen=True)
class Sparsities:
  """The wanted sparsities.

  Attributes:
    sparsity: share of zeros of all sparse kernels together, except those in
      custom_sparsities; or {name or regular expression: share of zeros}, which
      leaves all other kernels dense. See `matched`.
    distribution: how a single sparsity is distributed over the kernels, one of
      DISTRIBUTIONS.
    custom_sparsities: {name or regular expression: sparsity} of exceptions to
      a single sparsity.
    filters: None for `is_kernel`; a regular expression, or a list of them, to
      find in the path of a kernel; or a function of the variable, which alone
      decides.
  """

  sparsity: Sparsity
  distribution: str
  custom_sparsities: Optional[Mapping[str, float]]
  filters: Filters

  def __post_init__(self):
    checks.one_of('distribution', self.distribution, DISTRIBUTIONS)
    if self.custom_sparsities is not None:
      _check_map('custom_sparsities', self.custom_sparsities)
    if isinstance(self.sparsity, Mapping):
      _check_map('sparsity', self.sparsity)
      if self.custom_sparsities:
        raise ValueError(
          'custom_sparsities are exceptions to a sparsity that is one number, got '
          f'{self.sparsity!r}: put them into that.'
        )
    else:
      checks.in_unit_interval('sparsity', self.sparsity)
    filters = self.filters
    if not (filters is None or callable(filters)) and not (
      isinstance(filters, Sequence) and all(isinstance(pattern, str) for pattern in filters)
    ):
      raise ValueError(
        'filters must be a regular expression, a list of them or a function of a variable, got '
        f'{filters!r}.'
      )

  @property
  def highest(self) -> float:
    """The wanted sparsity, or the highest of several."""
    if isinstance(self.sparsity, Mapping):
      return max(self.sparsity.values(), default=0.0)
    return self.sparsity

  def of(
    self,
    variables: Sequence[Any],
    shape_of: Callable[[Any], Sequence[int]] = (lambda variable: variable.shape),
  ) -> list[Optional[float]]:
    """The sparsity of each variable; None for those that stay dense.

    Args:
      variables: Keras variables. If two have the same path, they have the same
        sparsity.
      shape_of: returns the shape that a distribution uses.

    Raises:
      ValueError: there is no kernel, or see `matched`.
    """
    kernels = self._chosen(variables)
    if not kernels:
      raise ValueError(
        'There is no kernel to make sparse. The variables are: '
        f'{", ".join(v.path for v in variables) or "none"}. (A model has none before it is built: '
        'give it a keras.Input, or call it once.) A kernel is called '
        f'{", ".join(_KERNELS)}, and neither of its last two dimensions is 1. A function as '
        'filters can choose others.'
      )
    paths = [v.path for v in kernels.values()]
    if isinstance(self.sparsity, Mapping):
      by_path = matched(self.sparsity, paths, 'sparsity')
    else:
      by_path = matched(self.custom_sparsities or {}, paths, 'custom_sparsities')
    # By position, since paths may repeat.
    found = {str(i): by_path[v.path] for i, v in kernels.items() if v.path in by_path}
    if not isinstance(self.sparsity, Mapping):
      shapes = {str(i): tuple(shape_of(v)) for i, v in kernels.items()}
      distribution = 'random' if self.distribution == 'uniform' else self.distribution
      found = distributions.get_sparsities(shapes, distribution, self.sparsity, found)
    return [found.get(str(i)) for i in range(len(variables))]

  def _chosen(self, variables: Sequence[Any]) -> dict[int, Any]:
    """{position: variable} of the variables that `filters` selects."""
    filters = self.filters
    is_chosen = filters if callable(filters) else is_kernel
    found = {i: v for i, v in enumerate(variables) if is_chosen(v)}
    if filters is None or callable(filters) or not found:
      return found
    paths = [v.path for v in found.values()]
    patterns = [filters] if isinstance(filters, str) else filters
    chosen = {path for pattern in patterns for path in _searched(pattern, paths, 'filters')}
    return {i: v for i, v in found.items() if v.path in chosen}
