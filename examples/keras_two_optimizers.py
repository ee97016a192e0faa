"""A GAN on TensorFlow: two sparse networks, each with an optimizer of its own.

The generator learns to draw points from a circle.
"""

import keras
import numpy as np
import tensorflow as tf

import rigl.keras

STEPS = 3000
BATCH, N_NOISE = 256, 16
keras.utils.set_random_seed(0)


def network(n_inputs, n_outputs):
  return keras.Sequential(
    [
      keras.Input((n_inputs,)),
      keras.layers.Dense(128, 'relu'),
      keras.layers.Dense(128, 'relu'),
      keras.layers.Dense(n_outputs),
    ]
  )


def sparse_optimizer(sparsity):
  return rigl.keras.RigL(
    keras.optimizers.Adam(1e-3, beta_1=0.5),
    sparsity,
    frequency=100,
    end_step=STEPS * 3 // 4,
    drop_fraction_anneal='cosine',
  )


class GAN(keras.Model):
  """Points of the generator, and whom the discriminator takes for real."""

  def __init__(self):
    super().__init__()
    self.generator = network(N_NOISE, 2)
    self.discriminator = network(2, 1)
    self.of_generator = sparse_optimizer(0.8)
    self.of_discriminator = sparse_optimizer(0.5)
    # Makes the weights sparse, before the first gradient.
    self.of_generator.build(self.generator.trainable_variables)
    self.of_discriminator.build(self.discriminator.trainable_variables)

  def train_step(self, real):
    noise = tf.random.normal([tf.shape(real)[0], N_NOISE])
    with tf.GradientTape() as tape:
      on_real = self.discriminator(real)
      on_fake = self.discriminator(self.generator(noise))
      loss = tf.reduce_mean(tf.nn.softplus(-on_real) + tf.nn.softplus(on_fake))
    variables = self.discriminator.trainable_variables
    self.of_discriminator.apply(tape.gradient(loss, variables), variables)
    with tf.GradientTape() as tape:
      on_fake = self.discriminator(self.generator(noise))
      fooled = tf.reduce_mean(tf.nn.softplus(-on_fake))
    variables = self.generator.trainable_variables
    self.of_generator.apply(tape.gradient(fooled, variables), variables)
    return {'discriminator': loss, 'generator': fooled}


rng = np.random.default_rng(0)
angles = rng.uniform(0, 2 * np.pi, STEPS * BATCH)
real = np.stack([np.cos(angles), np.sin(angles)], axis=1)
gan = GAN()
gan.compile()
gan.fit(real.astype('float32'), batch_size=BATCH, verbose=2)

points = gan.generator.predict(rng.normal(size=(1000, N_NOISE)), verbose=0)
near = np.abs(np.linalg.norm(points, axis=1) - 1) < 0.2
sides = np.unique(np.sign(points[near]), axis=0)
print(f'{near.mean():.1%} of the points are near the circle, in {len(sides)} of 4 quadrants')
for model in (gan.generator, gan.discriminator):
  print(f'sparsity {rigl.keras.sparsity_of(model):.3f}')
