"""A training loop of one's own on TensorFlow: tf.GradientTape, tf.function."""

import keras
import numpy as np
import tensorflow as tf

import rigl.keras
from rigl.mnist import mnist_data

STEPS = 1500
BATCH = 100

keras.utils.set_random_seed(0)
data = mnist_data.load_mnist('', explicit=False)  # 5,000 digits ship with rigl.
model = keras.Sequential(
  [
    keras.Input((28, 28)),
    keras.layers.Rescaling(1 / 255),
    keras.layers.Flatten(),
    keras.layers.Dense(300, 'relu'),
    keras.layers.Dense(100, 'relu'),
    keras.layers.Dense(10),
  ]
)
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
optimizer = rigl.keras.RigL(
  keras.optimizers.SGD(0.1, momentum=0.9),
  sparsity=0.95,
  frequency=50,
  end_step=STEPS * 3 // 4,
  drop_fraction_anneal='cosine',
)
# Makes the weights sparse: the first gradient is that of the sparse network.
optimizer.build(model.trainable_variables)


@tf.function(jit_compile=True)
def train(images, labels):
  with tf.GradientTape() as tape:
    loss = loss_of(labels, model(images, training=True))
  gradients = tape.gradient(loss, model.trainable_variables)
  # Leave the gradients dense: RigL grows where they are largest.
  optimizer.apply(gradients, model.trainable_variables)
  return loss


batches = (
  tf.data.Dataset.from_tensor_slices((data.train_images, data.train_labels))
  .shuffle(5000, seed=0)
  .repeat()
)
for step, (images, labels) in enumerate(
  batches.batch(BATCH, drop_remainder=True).take(STEPS), start=1
):
  loss = train(images, labels)
  if step % 100 == 0:
    print(f'step {step}, loss {loss:.4f}')

said = np.argmax(model.predict(data.test_images, verbose=0), axis=1)
print(
  f'error {np.mean(said != data.test_labels):.2%}, sparsity {rigl.keras.sparsity_of(model):.3f}'
)
