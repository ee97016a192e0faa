"""LeNet-300-100: two hidden layers of ReLU units, dense or masked."""

from __future__ import annotations

from typing import NamedTuple, Optional

from rigl import networks
from rigl.compat import tf
from rigl.mnist import mnist_data
from rigl.model_pruning import dense_layers, sparse_layers


class _Layers(NamedTuple):
  """The layers of `networks.lenet_300_100` in the default graph."""

  technique: str
  regularizer: Optional[dense_layers.TensorFn]

  def dense(self, x: tf.Tensor, units: int, name: str, is_last: bool = False) -> tf.Tensor:
    return sparse_layers.sparse_fully_connected(
      x,
      units,
      activation=None if is_last else tf.nn.relu,
      kernel_regularizer=self.regularizer,
      sparsity_technique=self.technique,
      name=name,
      dense_names=('kernel', 'bias'),
    )


def mnist_network_fc(
  input_batch: tuple[tf.Tensor, tf.Tensor],
  reuse: Optional[bool] = False,
  model_pruning: bool = False,
  l2_scale: float = 1e-4,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Builds the network and its loss.

  Args:
    input_batch: images float32 [batch, n_pixels] in [0, 1] and labels integer
      [batch].
    reuse: True for a second network with the same variables, e.g. for testing.
    model_pruning: whether the layers have masks.
    l2_scale: coefficient of the penalty scale * sum(w ** 2) / 2, which is added
      to the graph's regularization losses, not to the returned loss.

  Returns:
    (cross entropy, accuracy): float32 scalars, means over the batch.
  """
  images, labels = input_batch
  technique = 'threshold' if model_pruning else 'baseline'
  layers = _Layers(technique, dense_layers.l2_regularizer(l2_scale))
  with tf.variable_scope(tf.get_variable_scope(), reuse=reuse):
    outputs = networks.lenet_300_100(layers, images, mnist_data.N_CLASSES)
  cross_entropy = tf.reduce_mean(
    tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.cast(labels, tf.int64), logits=outputs)
  )
  is_right = tf.equal(tf.argmax(outputs, axis=1), tf.cast(labels, tf.int64))
  return cross_entropy, tf.reduce_mean(tf.cast(is_right, tf.float32))
