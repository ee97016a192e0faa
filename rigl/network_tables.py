"""The ImageNet networks as tables, from which they are built and counted."""

from __future__ import annotations

from typing import Sequence

# Depth -> (kind of block, number of blocks in each group).
RESNETS = {
  18: ('residual', (2, 2, 2, 2)),
  34: ('residual', (3, 4, 6, 3)),
  50: ('bottleneck', (3, 4, 6, 3)),
  101: ('bottleneck', (3, 4, 23, 3)),
  152: ('bottleneck', (3, 8, 36, 3)),
  200: ('bottleneck', (3, 24, 36, 3)),
}

# (number of convolutions, filters) of each group. Max pooling halves the image
# between groups; average pooling follows the last.
VGGS = {'vgg_a': (1, 1, 2, 2, 2), 'vgg_16': (2, 2, 3, 3, 3), 'vgg_19': (2, 2, 4, 4, 4)}
VGG_FILTERS = (64, 128, 256, 512, 512)


def _blocks(*groups: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
  """(filters, stride) of each block; groups are (filters, first stride, number of blocks)."""
  return tuple((filters, 1 if i else stride) for filters, stride, n in groups for i in range(n))


# The separable convolutions.
MOBILENET_V1 = _blocks((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 2, 6), (1024, 2, 2))
# The inverted residuals.
MOBILENET_V2 = _blocks(
  (16, 1, 1), (24, 2, 2), (32, 2, 3), (64, 2, 4), (96, 1, 3), (160, 2, 3), (320, 1, 1)
)


def make_divisible(channels: float, divisor: int = 8) -> int:
  """The multiple of `divisor` nearest to `channels`, not over 10 % below it."""
  rounded = max(divisor, int(channels + divisor // 2) // divisor * divisor)
  return rounded + divisor if rounded < 0.9 * channels else rounded


def mobilenet_filters(
  blocks: Sequence[tuple[int, int]], width: float
) -> tuple[int, list[tuple[int, int]]]:
  """(filters of the initial convolution, [(filters, stride) of each block]) of a MobileNet.

  The width multiplies filters, to multiples of 8 except for block 0. Blocks
  round int(filters * width); the initial convolution rounds filters * width
  itself: at width 0.28 it has 16 filters, as 8 would be more than 10 % below
  8.96.
  """
  return make_divisible(width * 32), [
    (make_divisible(int(width * filters), 8 if i else 1), stride)
    for i, (filters, stride) in enumerate(blocks)
  ]


def mobilenet_v2_features(width: float) -> int:
  """The number of features that the classifier sees, never below 1280."""
  return make_divisible(int(max(width, 1.0) * 1280))
