"""The networks' inference in numpy, written apart from the package.

Each function takes {variable name without the network's scope: array} and
images [batch, height, width, 3], and returns logits. Masked layers multiply
weights with masks; names of dense and masked variables are both understood.
"""

from __future__ import annotations

import numpy as np

# Of the networks for ImageNet, and of the WideResNet.
FUSED_EPSILON = 1.001e-5
EPSILON = 1e-5


def conv(x, kernel, stride=1):
  k = kernel.shape[0]
  return _valid_conv(
    np.pad(x, [(0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)]), kernel, stride
  )


def conv_same(x, kernel, stride=1):
  """With ceil(size / stride) outputs, and what padding that takes.

  Of an odd number of zeros, the far side gets one more.
  """
  k = kernel.shape[0]
  totals = [max((-(-size // stride) - 1) * stride + k - size, 0) for size in x.shape[1:3]]
  pads = [(total // 2, total - total // 2) for total in totals]
  return _valid_conv(np.pad(x, [(0, 0), *pads, (0, 0)]), kernel, stride)


def _valid_conv(x, kernel, stride):
  windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))[
    :, ::stride, ::stride
  ]
  return np.tensordot(windows, kernel, ([4, 5, 3], [0, 1, 2]))


def depthwise_conv(x, kernel, stride=1):
  x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
  windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
  return np.einsum('bhwcij,ijc->bhwc', windows[:, ::stride, ::stride], kernel[..., 0])


def max_pool_3x3(x):
  """Stride 2, as 'SAME': of an even size, only the far side is padded."""
  pads = [(size % 2, 1) for size in x.shape[1:3]]
  x = np.pad(x, [(0, 0), *pads, (0, 0)], constant_values=-np.inf)
  windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
  return windows[:, ::2, ::2].max((4, 5))


def max_pool_2x2(x):
  windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(1, 2))
  return windows[:, ::2, ::2].max((4, 5))


def relu(x):
  return np.maximum(x, 0)


class _Variables:
  """Looks up kernels by layer, and normalizations in their order."""

  def __init__(self, values, epsilon=FUSED_EPSILON):
    self._epsilon = epsilon
    self._values = {k: np.asarray(v, np.float64) for k, v in values.items()}
    self._n_batch_norms = 0

  def _find(self, layer, names):
    last = layer.rsplit('/', 1)[-1]
    for name in names:
      for path in (f'{layer}/{name}', f'{layer}/{last}/{name}'):
        if path in self._values:
          return self._values[path]
    return None

  def kernel(self, layer):
    kernel = self._find(layer, ['weights', 'kernel', 'depthwise_weights'])
    return kernel * self._values.get(f'{layer}/mask', 1.0)

  def dense(self, x, layer):
    biases = self._find(layer, ['biases', 'bias'])
    return x @ self.kernel(layer) + (0.0 if biases is None else biases)

  def batch_norm(self, x):
    n = self._n_batch_norms
    self._n_batch_norms += 1
    scope = f'batch_normalization_{n}' if n else 'batch_normalization'
    gamma, beta, mean, variance = (
      self._values[f'{scope}/{name}']
      for name in ('gamma', 'beta', 'moving_mean', 'moving_variance')
    )
    return (x - mean) / np.sqrt(variance + self._epsilon) * gamma + beta


def resnet(values, x, group_sizes, is_bottleneck):
  v = _Variables(values)
  kind = 'bottleneck' if is_bottleneck else 'residual'
  x = relu(v.batch_norm(conv(x, v.kernel('initial_conv'), 2)))
  x = max_pool_3x3(x)
  for group, n_blocks in enumerate(group_sizes, 1):
    for block in range(n_blocks):
      stride = 2 if group > 1 and block == 0 else 1
      suffix = f'block_group{group}_{block}_1'
      shortcut = x
      if block == 0:
        suffix = f'block_group_projection_block_group{group}'
        shortcut = v.batch_norm(conv(x, v.kernel(f'{kind}_projection_{suffix}'), stride))
      strides = (1, stride, 1) if is_bottleneck else (stride, 1)
      for i, s in enumerate(strides, 1):
        x = v.batch_norm(conv(x, v.kernel(f'{kind}_{i}_{suffix}'), s))
        x = relu(x + shortcut if i == len(strides) else x)
  return v.dense(x.mean((1, 2)), 'final_dense')


def mobilenet_v1(values, x):
  v = _Variables(values)
  x = relu(v.batch_norm(conv(x, v.kernel('initial_conv'), 2)))
  for i in range(13):
    stride = 2 if i in (1, 3, 5, 11) else 1
    x = relu(v.batch_norm(depthwise_conv(x, v.kernel(f'depthwise_nxn_{i}'), stride)))
    x = relu(v.batch_norm(conv(x, v.kernel(f'contraction_1x1_{i}'))))
  return v.dense(x.mean((1, 2)), 'final_dense')


def mobilenet_v2(values, x):
  v = _Variables(values)
  x = relu(v.batch_norm(conv(x, v.kernel('initial_conv'), 2)))
  for i in range(17):
    stride = 2 if i in (1, 3, 6, 13) else 1
    inputs = x
    if i:
      x = relu(v.batch_norm(conv(x, v.kernel(f'expand_1x1_{i}'))))
    x = relu(v.batch_norm(depthwise_conv(x, v.kernel(f'depthwise_nxn_{i}'), stride)))
    x = v.batch_norm(conv(x, v.kernel(f'contraction_1x1_{i}')))
    if x.shape == inputs.shape:
      x = x + inputs
  x = relu(v.batch_norm(conv(x, v.kernel('final_1x1_conv'))))
  return v.dense(x.mean((1, 2)), 'final_dense')


def vgg(values, x, group_sizes):
  v = _Variables(values)
  for group, n_convs in enumerate(group_sizes, 1):
    for i in range(1, n_convs + 1):
      x = relu(conv(x, v.kernel(f'conv{group}/conv{group}_{i}')))
    if group < 5:
      x = max_pool_2x2(x)
  return v.dense(x.mean((1, 2)), 'fc8').reshape(len(x), -1)


def wide_resnet(values, x, depth):
  v = _Variables(values, EPSILON)
  x = conv(x, v.kernel('conv_1'))
  for group in (2, 3, 4):
    for block in range((depth - 4) // 6):
      stride = 2 if group > 2 and block == 0 else 1
      inputs, x = x, relu(v.batch_norm(x))
      kernel = v.kernel(f'conv_{group}_{block}_1')
      if kernel.shape[2] != kernel.shape[3]:
        inputs = conv_same(x, v.kernel(f'skip_conv_{group}'), stride)
      x = relu(v.batch_norm(conv_same(x, kernel, stride)))
      x = inputs + conv(x, v.kernel(f'conv_{group}_{block}_2'))
  x = relu(v.batch_norm(x))
  return v.dense(x.mean((1, 2)), 'logits')
