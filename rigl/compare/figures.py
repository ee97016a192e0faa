"""Plots the results of a comparison."""

from __future__ import annotations

import collections
import itertools
import pathlib
import statistics
from typing import Any, Callable, Optional, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from rigl.compare.results import Group, sparsities_of

# The colour-blind safe palette of Okabe and Ito, and two greys.
_COLOURS = '#0072b2 #d55e00 #009e73 #cc79a7 #e69f00 #56b4e9 #000000 #7f7f7f #bfbfbf'.split()
_MARKERS = 'osD^vP*Xh'


def write(groups: Sequence[Group], path: pathlib.Path) -> None:
  """Writes the figure: errors, learning curves, sizes if known."""
  has_sizes = any(g.n_bytes is not None and g.sparsity is not None for g in groups)
  figure = Figure(figsize=(5.0 * (2 + has_sizes), 4.0), layout='constrained')
  FigureCanvasAgg(figure)
  axes = list(figure.subplots(1, 2 + has_sizes))
  methods = dict.fromkeys(group.method for group in groups)
  looks = itertools.cycle(zip(_COLOURS, _MARKERS))
  styles = {
    method: {'color': colour, 'marker': marker, 'markersize': 5.0}
    for method, (colour, marker) in zip(methods, looks)
  }
  _draw_errors(axes[0], groups, styles)
  _draw_curves(axes[1], groups, styles)
  if has_sizes:
    _draw_sizes(axes[2], groups, styles)
  for axis in axes:
    axis.set_ylabel('test error in %')
    axis.grid(alpha=0.3)
  axes[0].legend(fontsize='small')
  figure.savefig(path, dpi=150)


def _draw_points(
  axis: Any,
  groups: Sequence[Group],
  styles: dict[str, Any],
  place_of: Callable[[Group], Optional[float]],
) -> None:
  """Plots the errors of each method at place_of(group), of groups with sparsity and place."""
  for method, style in styles.items():
    points = [
      (place, group)
      for group in groups
      if group.method == method and group.sparsity is not None
      for place in [place_of(group)]
      if place is not None
    ]
    if points:
      axis.errorbar(
        [place for place, _ in points],
        [100.0 * g.error for _, g in points],
        yerr=[100.0 * (g.deviation or 0.0) for _, g in points],
        label=method,
        capsize=2.0,
        linewidth=1.2,
        **style,
      )


def _draw_errors(axis: Any, groups: Sequence[Group], styles: dict[str, Any]) -> None:
  """Error over sparsity, with standard deviations."""
  for group in groups:
    if group.sparsity is None:
      _draw_line(axis, group, styles[group.method])
  _draw_points(axis, groups, styles, lambda g: 1.0 - (g.sparsity or 0.0))
  sparsities = sparsities_of(groups)
  if sparsities:
    if len(sparsities) > 1:
      # Each step to the right halves the number of connections.
      axis.set_xscale('log')
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xticks([1.0 - s for s in sparsities], [f'{100 * s:g} %' for s in sparsities])
    axis.invert_xaxis()
  axis.set_xlabel('sparsity')


def _draw_line(axis: Any, group: Group, style: dict[str, Any]) -> None:
  """The error of a network without a sparsity, as a horizontal line."""
  error = 100.0 * group.error
  axis.axhline(error, color=style['color'], linestyle='--', linewidth=1.2, label=group.method)
  if group.deviation is not None:
    deviation = 100.0 * group.deviation
    axis.axhspan(
      error - deviation, error + deviation, color=style['color'], alpha=0.12, linewidth=0.0
    )


def _draw_curves(axis: Any, groups: Sequence[Group], styles: dict[str, Any]) -> None:
  """Error over time, the mean of the seeds, at the highest sparsity."""
  highest = max(sparsities_of(groups), default=None)
  for group in groups:
    if group.sparsity not in (None, highest):
      continue
    errors = collections.defaultdict(list)
    for outcome in group.outcomes:
      for place, error in outcome.errors:
        errors[place].append(100.0 * error)
    is_dense = group.sparsity is None
    axis.plot(
      list(errors),
      [statistics.fmean(some) for some in errors.values()],
      color=styles[group.method]['color'],
      linewidth=1.2,
      linestyle='--' if is_dense else '-',
      marker='.' if len(errors) < 5 else '',
    )
  axis.set_yscale('log')
  axis.xaxis.set_major_locator(MaxNLocator(integer=True))
  axis.yaxis.set_major_formatter('{x:g}')
  axis.yaxis.set_minor_formatter('{x:g}')
  axis.set_xlabel(groups[0].outcomes[0].unit)
  if highest is not None:
    axis.set_title(f'learning curves at {100 * highest:g} %', fontsize='medium')


def _draw_sizes(axis: Any, groups: Sequence[Group], styles: dict[str, Any]) -> None:
  """Error over the bytes that the network takes."""
  _draw_points(axis, groups, styles, lambda g: g.n_bytes and g.n_bytes / 1000.0)
  axis.set_xlabel('kilobytes, without dead units')
