"""Trains on several devices: tf.distribute.MirroredStrategy around Keras' fit.

Here the devices are two halves of the CPU, so that it runs everywhere; on a
machine with GPUs delete the line that makes them.
"""

import keras
import tensorflow as tf

import rigl.keras
from rigl.mnist import mnist_data

EPOCHS = 10  # of 50 batches

# Before TensorFlow uses any device.
tf.config.set_logical_device_configuration(
  tf.config.list_physical_devices('CPU')[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
# One for the whole process: a second one fails in Keras.
strategy = tf.distribute.MirroredStrategy(
  [device.name for device in tf.config.list_logical_devices('CPU')]
)

keras.utils.set_random_seed(0)
data = mnist_data.load_mnist('', explicit=False)  # 5,000 digits ship with rigl.
with strategy.scope():
  model = keras.Sequential(
    [
      keras.Input((28, 28)),
      keras.layers.Rescaling(1 / 255),
      keras.layers.Flatten(),
      keras.layers.Dense(300, 'relu'),
      keras.layers.Dense(100, 'relu'),
      keras.layers.Dense(10, 'softmax'),
    ]
  )
  optimizer = rigl.keras.RigL(
    keras.optimizers.SGD(0.1, momentum=0.9),
    sparsity=0.95,
    frequency=50,
    end_step=EPOCHS * 50 * 3 // 4,
    drop_fraction_anneal='cosine',
  )
  model.compile(optimizer, 'sparse_categorical_crossentropy', metrics=['accuracy'])

# A batch is shared by the replicas; masks move by the gradient of all of it.
model.fit(
  data.train_images,
  data.train_labels,
  batch_size=100,
  epochs=EPOCHS,
  verbose=2,
  validation_data=(data.test_images, data.test_labels),
  callbacks=[rigl.keras.SparsityLogger()],
)
print(f'{strategy.num_replicas_in_sync} replicas, sparsity {rigl.keras.sparsity_of(model):.3f}')
