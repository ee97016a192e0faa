"""The `data_format` of layers: the position of the channels."""

from __future__ import annotations

from rigl.core import checks

# Name in this library -> name in TensorFlow's operations.
DATA_FORMATS = {'channels_last': 'NHWC', 'channels_first': 'NCHW'}


def check(data_format: str) -> None:
  """Raises ValueError unless `data_format` is one of DATA_FORMATS."""
  checks.one_of('data_format', data_format, DATA_FORMATS)


def channel_axis(data_format: str) -> int:
  """The axis of the channels of a batch of images."""
  check(data_format)
  return 1 if data_format == 'channels_first' else 3


def spatial_axes(data_format: str) -> list[int]:
  """The axes of height and width of a batch of images."""
  return [axis for axis in (1, 2, 3) if axis != channel_axis(data_format)]
