"""Tests of the counting rules, against formulas and by hand."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from rigl.micronet import counting
from rigl.micronet.counting import (
  Add,
  Arithmetic,
  Conv2D,
  DepthWiseConv2D,
  DotProducts,
  FullyConnected,
  GlobalAvg,
  Scale,
  count_ops,
  get_info,
)

BAD_BITS = [
  (-3, 'must be > 0, got -3'),
  (0, 'must be > 0, got 0'),
  (float('nan'), 'must be > 0, got nan'),
  (float('inf'), 'must be finite, got inf'),
]

# One of each operation with a kernel, with every flag both ways.
KERNEL_OPS = [
  Conv2D(8, (3, 3, 4, 5), (1, 1), 'same', True, 'relu'),
  Conv2D(9, (3, 3, 4, 5), (2, 2), 'valid', False, None),
  DepthWiseConv2D(8, (3, 3, 6, 1), (2, 2), 'same', True, 'swish'),
  FullyConnected((30, 7), True, 'sigmoid'),
  FullyConnected((30, 7), False, None),
  DotProducts(100, 10, 16, 10, 10, 'relu'),
]
OTHER_OPS = [GlobalAvg(7, 3), Scale(7, 3), Add(7, 3), Arithmetic(3, 4)]


def _name(op):
  return type(op).__name__


class TestByHand:
  def test_convolution(self):
    # 4x4 output positions, 5 channels: 80 dot products of length 3*3*2 = 18.
    op = Conv2D(4, (3, 3, 2, 5), (1, 1), 'same', False, None)
    assert count_ops(op, 0.0, 32) == (90 * 32, 80 * 18, 80 * 17)

  def test_bias_and_activation_of_a_convolution(self):
    op = Conv2D(4, (3, 3, 2, 5), (1, 1), 'same', True, 'swish')
    assert count_ops(op, 0.0, 32) == ((90 + 5) * 32, 80 * (18 + 3), 80 * (17 + 1 + 1))

  def test_sparse_convolution_stores_a_mask(self):
    op = Conv2D(4, (3, 3, 2, 5), (1, 1), 'same', True, None)
    # Half of the weights, one bit for each, and the dense biases.
    assert count_ops(op, 0.5, 32) == (45 * 32 + 90 + 5 * 32, 80 * 9, 80 * 9)

  def test_strided_valid_convolution(self):
    # ceil((9 - 3 + 1) / 2) = 4 rows.
    op = Conv2D(9, (3, 3, 2, 5), (2, 2), 'valid', False, None)
    assert count_ops(op, 0.0, 8) == (90 * 8, 80 * 18, 80 * 17)

  def test_depthwise_convolution(self):
    # 2x2 positions, 6 channels: 24 dot products of length 9. The rules charge
    # a single bias, added once at each position.
    op = DepthWiseConv2D(4, (3, 3, 6, 1), (2, 2), 'same', True, 'relu')
    assert count_ops(op, 0.0, 32) == ((54 + 1) * 32, 24 * 10, 24 * 8 + 4)

  def test_depthwise_multiplier(self):
    op = DepthWiseConv2D(4, (3, 3, 6, 2), (1, 1), 'same', False, None)
    assert count_ops(op, 0.0, 32) == (108 * 32, 192 * 9, 192 * 8)

  def test_fully_connected(self):
    op = FullyConnected((300, 10), True, 'sigmoid')
    assert count_ops(op, 0.9, 32) == pytest.approx(
      (300 * 32 + 3000 + 320, 10 * 30 + 20, 10 * 29 + 10 + 10)
    )

  def test_operations_without_kernel(self):
    assert count_ops(GlobalAvg(7, 512), 0.5, 32) == (0, 512, 48 * 512)
    assert count_ops(Scale(7, 512), 0.5, 32) == (0, 49 * 512, 0)
    assert count_ops(Add(7, 512), 0.5, 32) == (0, 0, 49 * 512)
    assert count_ops(Arithmetic(5, 6), 0.5, 32) == (0, 5, 6)

  def test_general_dot_products_equal_the_convolution(self):
    conv = Conv2D(4, (3, 3, 2, 5), 1, 'same', True, 'relu')
    dots = DotProducts(90, 18, 16, 5, 5, 'relu')
    assert count_ops(conv, 0.3, 32) == count_ops(dots, 0.3, 32)

  @pytest.mark.parametrize(
    'size, kernel, padding, stride, expected',
    [
      (224, 7, 'same', 2, 112),
      (230, 7, 'same', 2, 115),
      (225, 3, 'same', 2, 113),
      (224, 3, 'valid', 1, 222),
      (7, 1, 'same', 1, 7),
      (5, 5, 'valid', 3, 1),
    ],
  )
  def test_output_size(self, size, kernel, padding, stride, expected):
    assert counting.conv_output_size(size, kernel, padding, stride) == expected


class TestInvariants:
  @pytest.mark.parametrize('op', KERNEL_OPS, ids=_name)
  def test_flops_are_linear_in_the_density(self, op):
    dense, empty = count_ops(op, 0.0, 32), count_ops(op, 1.0, 32)
    for sparsity in (0.1, 0.37, 0.5, 0.9, 0.999):
      expected = empty.flops * sparsity + dense.flops * (1 - sparsity)
      assert count_ops(op, sparsity, 32).flops == pytest.approx(expected)

  @hypothesis.given(
    size=st.integers(5, 40),
    kernel=st.sampled_from([1, 3, 5]),
    c_in=st.integers(1, 20),
    c_out=st.integers(1, 20),
    stride=st.integers(1, 3),
    padding=st.sampled_from(['same', 'valid']),
    sparsity=st.floats(0.0, 1.0),
  )
  def test_splitting_the_channels_of_a_convolution_adds_up(
    self, size, kernel, c_in, c_out, stride, padding, sparsity
  ):

    def count(channels):
      shape = (kernel, kernel, c_in, channels)
      return count_ops(Conv2D(size, shape, stride, padding, True, 'relu'), sparsity, 32)

    parts = counting.add_counts([count(c_out), count(3)])
    assert parts == pytest.approx(count(c_out + 3))

  @pytest.mark.parametrize('op', OTHER_OPS, ids=_name)
  def test_sparsity_leaves_other_operations_alone(self, op):
    assert count_ops(op, 0.9, 32) == count_ops(op, 0.0, 8)
    assert not counting.has_kernel(op)

  @pytest.mark.parametrize('op', KERNEL_OPS, ids=_name)
  def test_stored_bits(self, op):
    bits = [count_ops(op, 0.0, size).param_bits for size in (1, 8, 32)]
    assert bits == [bits[0], 8 * bits[0], 32 * bits[0]]
    assert counting.has_kernel(op)
    # Any sparsity above zero needs the mask.
    n_weights = counting._AS_DOTS[type(op)](op).n_weights
    assert count_ops(op, 1e-12, 32).param_bits == pytest.approx(bits[2] + n_weights)

  @pytest.mark.parametrize('op', [KERNEL_OPS[0], OTHER_OPS[0]], ids=_name)
  @pytest.mark.parametrize('bits, message', BAD_BITS)
  def test_impossible_bits(self, op, bits, message):
    with pytest.raises(ValueError, match=f'^param_bits {message}'):
      count_ops(op, 0.0, bits)


class TestAgainstEnumeration:
  """Counts by visiting every weight of a masked kernel at every position."""

  @pytest.mark.parametrize('padding', ['same', 'valid'])
  @pytest.mark.parametrize('stride', [1, 2])
  @pytest.mark.parametrize('sparsity', [0.0, 0.25, 0.5])
  def test_masked_convolution(self, padding, stride, sparsity):
    shape = (3, 3, 4, 6)
    mask = np.ones(shape)
    mask.reshape(-1)[: int(sparsity * mask.size)] = 0
    np.random.RandomState(0).shuffle(mask.reshape(-1))
    padded = np.pad(np.zeros((9, 9)), 1 if padding == 'same' else 0)
    mults = adds = 0
    for _ in range(0, padded.shape[0] - 2, stride):
      for _ in range(0, padded.shape[1] - 2, stride):
        for channel in range(6):
          n_products = int(mask[..., channel].sum())
          mults += n_products
          adds += n_products - 1
    op = Conv2D(9, shape, (stride, stride), padding, False, None)
    counts = count_ops(op, sparsity, 32)
    assert (counts.n_mults, counts.n_adds) == (mults, adds)

  @pytest.mark.parametrize('sparsity', [0.0, 0.25, 0.5])
  def test_masked_depthwise_convolution(self, sparsity):
    mask = np.ones((3, 3, 8, 1))
    mask.reshape(-1)[: int(sparsity * mask.size)] = 0
    n_positions = 5 * 5
    products = [int(mask[:, :, channel].sum()) for channel in range(8)]
    op = DepthWiseConv2D(9, mask.shape, (2, 2), 'same', False, None)
    counts = count_ops(op, sparsity, 32)
    assert counts.n_mults == n_positions * sum(products)
    assert counts.n_adds == n_positions * sum(n - 1 for n in products)


class TestErrors:
  @pytest.mark.parametrize('function', [lambda op: count_ops(op, 0.0, 32), get_info])
  def test_unknown_operation_is_named(self, function):

    class Attention:
      pass

    with pytest.raises(ValueError, match=r'operation Attention .*Conv2D'):
      function(Attention())

  def test_unknown_activation_is_named(self):
    op = FullyConnected((3, 4), True, 'gelu')
    with pytest.raises(ValueError, match=r"'gelu'.* relu, swish"):
      count_ops(op, 0.0, 32)

  @pytest.mark.parametrize(
    'op, message',
    [
      (Conv2D(8, (3, 5, 4, 5), 1, 'same', True, None), 'square kernels'),
      (Conv2D(8, (3, 3, 4, 5), (1, 2), 'same', True, None), 'square strides'),
      (Conv2D(8, (3, 3, 4, 5), 1, 'causal', True, None), "'causal' is not"),
      (Conv2D(2, (3, 3, 4, 5), 1, 'valid', True, None), 'leaves nothing'),
      (Conv2D(8, (3, 3, 4, 5), (0, 0), 'same', True, None), 'stride must be > 0, got 0'),
      (DepthWiseConv2D(8, (3, 3, 4, 1), -1, 'same', True, None), 'stride must be > 0, got -1'),
      (Conv2D(8, (3, 4, 5), 1, 'same', True, None), 'four dimensions'),
    ],
  )
  def test_impossible_convolution(self, op, message):
    with pytest.raises(ValueError, match=message):
      count_ops(op, 0.0, 32)

  @pytest.mark.parametrize('sparsity', [-0.1, 1.1, float('nan')])
  def test_impossible_sparsity(self, sparsity):
    with pytest.raises(ValueError, match='sparsity must be in'):
      count_ops(KERNEL_OPS[0], sparsity, 32)


def test_field_order_is_part_of_the_interface():
  conv = ('input_size', 'kernel_shape', 'strides', 'padding', 'use_bias', 'activation')
  assert Conv2D._fields == DepthWiseConv2D._fields == conv
  assert FullyConnected._fields == ('kernel_shape', 'use_bias', 'activation')
  for cls in (GlobalAvg, Scale, Add):
    assert cls._fields == ('input_size', 'n_channels')


@pytest.mark.parametrize(
  'op, info',
  [
    (KERNEL_OPS[0], (8, 3, 4, 5)),
    (KERNEL_OPS[2], (8, 3, 6, 6)),
    (KERNEL_OPS[3], (-1, -1, 30, 7)),
    (OTHER_OPS[0], (7, -1, 3, 3)),
    (OTHER_OPS[1], (7, -1, 3, 3)),
    (OTHER_OPS[2], (7, -1, 3, 3)),
    (OTHER_OPS[3], (-1, -1, -1, -1)),
  ],
)
def test_get_info(op, info):
  assert get_info(op) == info


class TestMicroNetCounter:
  ops = (
    ('stem', Conv2D(4, (3, 3, 2, 5), (1, 1), 'same', True, 'relu')),
    (
      'block_0',
      [('expand', Conv2D(4, (1, 1, 5, 10), (1, 1), 'same', True, 'relu')), ('add', Add(4, 10))],
    ),
    ('fc', FullyConnected((10, 3), True, None)),
  )

  def _table(self, capsys, *args, **kwargs):
    counting.MicroNetCounter(self.ops).print_summary(*args, **kwargs)
    lines = capsys.readouterr().out.splitlines()[1:]
    return {line.split()[0]: [float(cell) for cell in line.split()[-3:]] for line in lines}

  def test_blocks_are_one_line(self, capsys):
    table = self._table(capsys, 0.0, 32, 32, 32)
    assert list(table) == ['stem', 'block_0', 'fc', 'total']
    expected = [(60 * 32) / 8e6, (160 * 6) / 1e6, (160 * 5 + 160) / 1e6]
    assert table['block_0'] == pytest.approx(expected, abs=1e-3)

  def test_blocks_can_be_opened(self, capsys):
    table = self._table(capsys, 0.0, 32, 32, 32, summarize_blocks=False)
    assert list(table) == ['stem', 'expand', 'add', 'fc', 'total']

  def test_total_is_the_sum(self, capsys):
    table = self._table(capsys, 0.0, 32, 32, 32)
    counts = counting.add_counts(
      count_ops(op, 0.0, 32)
      for op in (self.ops[0][1], self.ops[1][1][0][1], self.ops[1][1][1][1], self.ops[2][1])
    )
    assert table['total'] == pytest.approx(
      [counts.param_bits / 8e6, counts.n_mults / 1e6, counts.n_adds / 1e6], abs=1e-3
    )

  def test_sparsity_by_name(self, capsys):
    table = self._table(capsys, {'fc': 1.0}, 32, 32, 32)
    dense = self._table(capsys, 0.0, 32, 32, 32)
    assert table['stem'] == dense['stem']
    assert table['fc'] != dense['fc']

  def test_sparsity_of_an_operation_in_a_block(self, capsys):
    # Multiplications that count a million times, to be seen in the table.
    table = self._table(capsys, {'expand': 1.0}, 32, 32, 32 * 10**6)
    assert table['block_0'][1] == 160

  @pytest.mark.parametrize('name', ['fc_typo', 'block_0', 'add'])
  def test_sparsity_of_what_has_no_kernel(self, capsys, name):
    message = rf"\['{name}'\], .* are \['stem', 'expand', 'fc'\]"
    with pytest.raises(ValueError, match=message):
      self._table(capsys, {name: 0.9}, 32, 32, 32)
    assert not capsys.readouterr().out

  def test_process_counts(self):
    counter = counting.MicroNetCounter(self.ops, add_bits_base=32, mul_bits_base=16)
    assert counter.process_counts(8e6, 2e6, 3e6, 8, 16) == (1.0, 1.0, 1.5)

  @pytest.mark.parametrize('bits, message', BAD_BITS)
  @pytest.mark.parametrize('name', ['add_bits_base', 'mul_bits_base'])
  def test_impossible_base(self, name, bits, message):
    with pytest.raises(ValueError, match=f'^{name} {message}'):
      counting.MicroNetCounter(self.ops, **{name: bits})

  @pytest.mark.parametrize('bits, message', BAD_BITS)
  @pytest.mark.parametrize('name', ['param_bits', 'add_bits', 'mul_bits'])
  def test_impossible_bits(self, capsys, name, bits, message):
    widths = {'param_bits': 32, 'add_bits': 32, 'mul_bits': 32, name: bits}
    with pytest.raises(ValueError, match=f'^{name} {message}'):
      counting.MicroNetCounter(self.ops).print_summary(0.5, **widths)
    assert not capsys.readouterr().out

  def test_columns_line_up(self, capsys):
    counting.MicroNetCounter(self.ops).print_summary(0.5, 32, 32, 32)
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines}) == 1
