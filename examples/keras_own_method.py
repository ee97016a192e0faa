"""A sparse training method of one's own: drop at random, grow by gradient."""

import dataclasses

import keras

import rigl.keras
from rigl.core import methods, stateless_random
from rigl.mnist import mnist_data

EPOCHS = 10  # of 50 batches


@dataclasses.dataclass(frozen=True)
class RandomDrop(methods.RigL):
  """Drops at random, grows where the dense gradient is largest."""

  description = 'drops at random, grows by the dense gradient'

  def drop_score(self, layer):
    return stateless_random.uniform(layer.mask, layer.seed('drop'))


@keras.saving.register_keras_serializable('mine')
class RandomDropOptimizer(rigl.keras.SparseOptimizer):
  method_class = RandomDrop


keras.utils.set_random_seed(0)
data = mnist_data.load_mnist('', explicit=False)  # 5,000 digits ship with rigl.
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
optimizer = RandomDropOptimizer(
  keras.optimizers.SGD(0.1, momentum=0.9),
  sparsity=0.95,
  frequency=50,
  end_step=EPOCHS * 50 * 3 // 4,
  drop_fraction=0.1,
  drop_fraction_anneal='cosine',
)
model.compile(optimizer, 'sparse_categorical_crossentropy', metrics=['accuracy'])
model.fit(
  data.train_images,
  data.train_labels,
  batch_size=100,
  epochs=EPOCHS,
  verbose=2,
  validation_data=(data.test_images, data.test_labels),
  callbacks=[rigl.keras.SparsityLogger()],
)

# With the optimizer and its masks, to train on.
model.save('sparse.keras')
loaded = keras.models.load_model('sparse.keras')
loaded.fit(data.train_images, data.train_labels, batch_size=100, verbose=2)
print(f'{type(loaded.optimizer.method).__name__}, sparsity {rigl.keras.sparsity_of(loaded):.3f}')
