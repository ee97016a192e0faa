"""LeNet-300-100: two hidden layers of ReLU units, dense or masked."""

from __future__ import annotations

from typing import Optional

from rigl.compat import tf
from rigl.mnist import mnist_data
from rigl.model_pruning import dense_layers, sparse_layers

LAYERS = ('layer1', 'layer2', 'layer3')
_HIDDEN_UNITS = (300, 100)


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
  regularizer = dense_layers.l2_regularizer(l2_scale)
  outputs = images
  with tf.variable_scope(tf.get_variable_scope(), reuse=reuse):
    for name, n_units in zip(LAYERS, (*_HIDDEN_UNITS, mnist_data.N_CLASSES)):
      outputs = sparse_layers.sparse_fully_connected(
        outputs,
        n_units,
        activation=None if name == LAYERS[-1] else tf.nn.relu,
        kernel_regularizer=regularizer,
        sparsity_technique='threshold' if model_pruning else 'baseline',
        name=name,
        dense_names=('kernel', 'bias'),
      )
  cross_entropy = tf.reduce_mean(
    tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.cast(labels, tf.int64), logits=outputs)
  )
  is_right = tf.equal(tf.argmax(outputs, axis=1), tf.cast(labels, tf.int64))
  return cross_entropy, tf.reduce_mean(tf.cast(is_right, tf.float32))
