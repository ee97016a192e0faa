"""rigl.keras and the graph front-end make the same masks."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from rigl.core import seeding
from tests.keras import small

if keras.backend.backend() != 'tensorflow':
  pytest.skip('the graph front-end needs TensorFlow', allow_module_level=True)

from rigl import sparse_optimizers  # noqa: E402
from rigl.compat import tf  # noqa: E402
from rigl.model_pruning import pruning  # noqa: E402
from tests import quick_sessions, sparse_net  # noqa: E402

SIZES = (784, 300, 100, 10)
SPARSITY = 0.9
N_STEPS = 100
RATE = 0.1
NAMES = ('layer1', 'layer2', 'layer3')
SEED = 3
SCHEDULE = {'begin_step': 0, 'end_step': 80, 'frequency': 10}


def network():
  model = keras.Sequential(
    [
      keras.Input((SIZES[0],)),
      *(
        keras.layers.Dense(
          n, activation, kernel_initializer=(keras.initializers.GlorotNormal(seed=i))
        )
        for i, (n, activation) in enumerate(zip(SIZES[1:], ('relu', 'relu', None)))
      ),
    ]
  )
  return model


def data():
  rng = np.random.RandomState(0)
  x = rng.rand(N_STEPS, 20, SIZES[0]).astype('float32')
  return x, rng.randint(0, SIZES[-1], (N_STEPS, 20)).astype('int32')


def optimizer_of(method):
  """An optimizer whose draws are those of the graph."""
  cls = small.METHODS[method]

  class WithNamesOfTheGraph(cls):
    def seed_for(self, number, purpose):
      return seeding.stable_seed(f'{NAMES[number]}/weights', purpose, SEED)

  settings = {} if method in ('snip', 'dnw') else SCHEDULE
  if method in small.DYNAMIC:
    settings = {**settings, 'drop_fraction_anneal': 'cosine'}
  return WithNamesOfTheGraph(
    keras.optimizers.SGD(RATE), sparsity=SPARSITY, distribution='uniform', **settings
  )


def graph_optimizer(method, definition):
  inner = tf.train.GradientDescentOptimizer(RATE)
  if method == 'prune':
    return sparse_optimizers.GradualPruningOptimizer(
      inner,
      pruning.PruningHParams(
        begin_pruning_step=definition.begin_step,
        end_pruning_step=definition.end_step,
        pruning_frequency=definition.frequency,
        target_sparsity=SPARSITY,
        sparsity_function_begin_step=definition.ramp_begin_step,
        sparsity_function_end_step=definition.ramp_end_step,
      ),
    )
  return sparse_optimizers.MethodOptimizer(inner, definition, seed=SEED, default_sparsity=SPARSITY)


def graph_masks(method, definition, values, masks, x, labels):
  """The masks after each batch, for each layer."""
  found = []
  with tf.Graph().as_default():
    features = tf.placeholder(tf.float32, [None, SIZES[0]])
    targets = tf.placeholder(tf.int32, [None])
    step = tf.train.get_or_create_global_step()
    output = features
    with tf.variable_scope(tf.get_variable_scope(), use_resource=True):
      for i, (name, mask) in enumerate(zip(NAMES, masks)):
        *_, kernel = sparse_net.add_layer(name, values[2 * i], mask)
        bias = tf.get_variable(f'{name}/bias', initializer=values[2 * i + 1])
        output = output @ kernel + bias
        output = tf.nn.relu(output) if i < 2 else output
    loss = tf.reduce_mean(
      tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=output)
    )
    train = graph_optimizer(method, definition).minimize(loss, step)
    with tf.Session(config=quick_sessions.unoptimized()) as session:
      session.run(tf.global_variables_initializer())
      for batch in zip(x, labels):
        session.run(train, dict(zip((features, targets), batch)))
        found.append(session.run(pruning.get_masks()))
  return found


@pytest.mark.parametrize('method', ['rigl', 'set', 'momentum', 'static', 'snip', 'dnw', 'prune'])
def test_masks_of_a_hundred_batches(method):
  model, optimizer = network(), optimizer_of(method)
  values = [v.copy() for v in small.values(model.trainable_variables)]
  optimizer.build(model.trainable_variables)
  first = small.masks(optimizer)
  small.compiled(model, optimizer)
  x, labels = data()
  n_moved = 0
  expected_masks = graph_masks(method, optimizer.method, values, first, x, labels)
  for i, expected in enumerate(expected_masks):
    before = small.masks(optimizer)
    model.train_on_batch(x[i], labels[i])
    got = small.masks(optimizer)
    n_moved += any(np.any(a != b) for a, b in zip(before, got))
    for a, b in zip(got, expected):
      np.testing.assert_array_equal(a, b != 0, f'batch {i}')
  assert n_moved >= {'static': 0, 'snip': 1}.get(method, 7)
