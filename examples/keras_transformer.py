"""Trains a small vision transformer; its projections are 80 % sparse.

Each of 16 patches of a digit is a token. The embeddings of their positions stay
dense, as all embeddings do by default.
"""

import keras
from keras import layers

import rigl.keras
from rigl.mnist import mnist_data

EPOCHS = 15  # of 50 batches
WIDTH, N_HEADS, N_BLOCKS = 64, 4, 2


def block(x):
  """Attention and two dense layers, each with a shortcut around it."""
  y = layers.LayerNormalization()(x)
  x = x + layers.MultiHeadAttention(N_HEADS, key_dim=WIDTH // N_HEADS)(y, y)
  y = layers.Dense(4 * WIDTH, 'gelu')(layers.LayerNormalization()(x))
  return x + layers.Dense(WIDTH)(y)


keras.utils.set_random_seed(0)
data = mnist_data.load_mnist('', explicit=False)  # 5,000 digits ship with rigl.
inputs = keras.Input((28, 28))
x = layers.Reshape((28, 28, 1))(layers.Rescaling(1 / 255)(inputs))
x = layers.Conv2D(WIDTH, 7, strides=7, name='patches')(x)
x = layers.Reshape((16, WIDTH))(x)
# Tensors of the model: an embedding of a constant would be a constant, too.
positions = keras.ops.cumsum(keras.ops.ones_like(x[:, :, 0], 'int32'), axis=1) - 1
x = x + layers.Embedding(16, WIDTH, name='positions')(positions)
for _ in range(N_BLOCKS):
  x = block(x)
x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
model = keras.Model(inputs, layers.Dense(10, 'softmax', name='head')(x))

optimizer = rigl.keras.RigL(
  keras.optimizers.AdamW(2e-3),
  # Takes the kernel [width, heads, key] of a projection for the matrix it is.
  sparsity=rigl.keras.layer_sparsities(model, 0.8, filters=['attention', 'dense']),
  frequency=25,
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
  validation_data=(data.test_images, data.test_labels),
  callbacks=[rigl.keras.SparsityLogger()],
)

for path, mask in optimizer.get_masks().items():
  print(f'{path:45s} {1 - mask.mean():.3f}')
