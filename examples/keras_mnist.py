"""Trains LeNet-300-100 on digits with RigL; 95 % of its weights are zero."""

import keras

import rigl.keras
from rigl.mnist import mnist_data

EPOCHS = 30  # of 50 batches

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
optimizer = rigl.keras.RigL(
  keras.optimizers.SGD(0.1, momentum=0.9),
  sparsity=0.95,
  frequency=50,
  end_step=EPOCHS * 50 * 3 // 4,
  drop_fraction_anneal='cosine',
)
model.compile(optimizer, 'sparse_categorical_crossentropy', metrics=['accuracy'])
model.fit(
  data.train_images,
  data.train_labels,
  batch_size=100,
  epochs=EPOCHS,
  verbose=2,
  callbacks=[rigl.keras.SparsityLogger()],
)

_, accuracy = model.evaluate(data.test_images, data.test_labels, verbose=0)
print(f'error {1 - accuracy:.2%}, sparsity {rigl.keras.sparsity_of(model):.3f}')
rigl.keras.summary(model)
model.save('sparse.keras')
