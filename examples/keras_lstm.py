"""Trains an LSTM that reads digits row by row; 90 % of its weights are zero.

Both matrices of the cell are sparse: `kernel`, which multiplies the inputs, and
`recurrent_kernel`, which multiplies the state.
"""

import keras

import rigl.keras
from rigl.mnist import mnist_data

EPOCHS = 10  # of 157 batches

keras.utils.set_random_seed(0)
data = mnist_data.load_mnist('', explicit=False)  # 5,000 digits ship with rigl.
model = keras.Sequential(
  [
    keras.Input((28, 28)),  # 28 steps of 28 numbers
    keras.layers.Rescaling(1 / 255),
    keras.layers.LSTM(128, name='reader'),
    keras.layers.Dense(10, 'softmax', name='head'),
  ]
)

optimizer = rigl.keras.RigL(
  keras.optimizers.Adam(2e-3),
  # All kernels named here are sparse; the head stays dense.
  sparsity={'reader/.*/kernel': 0.8, 'reader/.*/recurrent_kernel': 0.93},
  frequency=50,
  end_step=EPOCHS * 157 * 3 // 4,
  drop_fraction_anneal='cosine',
)
model.compile(optimizer, 'sparse_categorical_crossentropy', metrics=['accuracy'])
model.fit(
  data.train_images,
  data.train_labels,
  epochs=EPOCHS,
  verbose=2,
  validation_data=(data.test_images, data.test_labels),
  callbacks=[rigl.keras.SparsityLogger()],
)

for path, mask in optimizer.get_masks().items():
  print(f'{path:40s} {1 - mask.mean():.3f}')
