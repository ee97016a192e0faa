"""Sparse training on JAX: with fit, then with a jitted loop of one's own."""

import os

os.environ['KERAS_BACKEND'] = 'jax'  # Before Keras is imported.

import jax
import keras
import numpy as np

import rigl.keras
from rigl.mnist import mnist_data

EPOCHS = 10  # of 50 batches, with fit
STEPS = 500  # of the loop
BATCH = 100

keras.utils.set_random_seed(0)
data = mnist_data.load_mnist('', explicit=False)  # 5,000 digits ship with rigl.
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network():
  return keras.Sequential(
    [
      keras.Input((28, 28)),
      keras.layers.Rescaling(1 / 255),
      keras.layers.Flatten(),
      keras.layers.Dense(300, 'relu'),
      keras.layers.Dense(100, 'relu'),
      keras.layers.Dense(10),
    ]
  )


def sparse_optimizer(n_steps):
  return rigl.keras.RigL(
    keras.optimizers.SGD(0.1, momentum=0.9),
    sparsity=0.95,
    frequency=50,
    end_step=n_steps * 3 // 4,
    drop_fraction_anneal='cosine',
  )


def report(how, model):
  said = np.argmax(model.predict(data.test_images, verbose=0), axis=1)
  print(
    f'{how}: error {np.mean(said != data.test_labels):.2%}, '
    f'sparsity {rigl.keras.sparsity_of(model):.3f}'
  )


model = network()
model.compile(sparse_optimizer(EPOCHS * 50), loss_of)
model.fit(
  data.train_images,
  data.train_labels,
  batch_size=BATCH,
  epochs=EPOCHS,
  verbose=2,
  callbacks=[rigl.keras.SparsityLogger()],
)
report('fit', model)

model, optimizer = network(), sparse_optimizer(STEPS)
# First build, which makes the weights sparse, then read their values.
optimizer.build(model.trainable_variables)
weights = [v.value for v in model.trainable_variables]
others = [v.value for v in model.non_trainable_variables]
state = [v.value for v in optimizer.variables]


@jax.jit
def train(weights, others, state, images, labels):
  def loss(weights):
    logits, after = model.stateless_call(weights, others, images, training=True)
    return loss_of(labels, logits), after

  gradients, others = jax.grad(loss, has_aux=True)(weights)
  return *optimizer.stateless_apply(state, gradients, weights), others


rng = np.random.default_rng(0)
for _ in range(STEPS):
  batch = rng.integers(len(data.train_images), size=BATCH)
  weights, state, others = train(
    weights, others, state, data.train_images[batch], data.train_labels[batch]
  )
for variable, value in zip(
  (*model.trainable_variables, *model.non_trainable_variables, *optimizer.variables),
  (*weights, *others, *state),
):
  variable.assign(value)
report('loop', model)
