"""Trains a small network of which 90 % of the weights are zero, with RigL."""

import numpy as np

from rigl import sparse_optimizers, sparse_utils
from rigl.compat import tf
from rigl.model_pruning import layers, pruning

rng = np.random.RandomState(0)
prototypes = rng.randn(10, 8, 8, 3)

with tf.Graph().as_default(), tf.Session() as session:
  tf.set_random_seed(0)
  images = tf.placeholder(tf.float32, [None, 8, 8, 3])
  labels = tf.placeholder(tf.int64, [None])
  net = layers.masked_conv2d(images, 16, 3, scope='conv')
  logits = layers.masked_fully_connected(net, 10, activation_fn=None, scope='logits')
  loss = tf.losses.sparse_softmax_cross_entropy(labels, logits)
  hits = tf.cast(tf.equal(labels, tf.argmax(logits, 1)), tf.float32)

  optimizer = sparse_optimizers.SparseRigLOptimizer(
    tf.train.MomentumOptimizer(0.01, 0.9),
    begin_step=0,
    end_step=150,
    frequency=10,
    drop_fraction=0.3,
    drop_fraction_anneal='cosine',
  )
  train_op = optimizer.minimize(loss, tf.train.get_or_create_global_step())
  masks = pruning.get_masks()
  session.run(tf.global_variables_initializer())
  session.run(
    sparse_utils.get_mask_init_fn(masks, 'erdos_renyi_kernel', 0.9, custom_sparsity_map={})
  )

  def run(fetches, n):  # on n pictures of ten classes, under noise
    y = rng.randint(10, size=n)
    noisy = prototypes[y] + 2 * rng.randn(n, 8, 8, 3)
    return session.run(fetches, {images: noisy, labels: y})

  for _ in range(200):
    run(train_op, 64)
  print(f'accuracy {run(tf.reduce_mean(hits), 1000):.3f}')
  print(f'sparsity {run(sparse_utils.calculate_sparsity(masks), 1):.3f}')
