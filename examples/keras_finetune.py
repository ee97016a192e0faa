"""Makes a trained network sparse, by magnitude, and trains it on.

The first blocks of MobileNet learn the digits that ship with rigl, as a dense
network. Then mask_init='magnitude' keeps the largest 20 % of the weights; RigL
trains these and improves on the choice.
"""

import keras
from keras import layers

import rigl.keras
from rigl.mnist import mnist_data

WEIGHTS = None  # 'imagenet': begin with trained weights, which Keras downloads.
EPOCHS = 12  # of 50 batches, dense; as many follow, sparse

keras.utils.set_random_seed(0)
data = mnist_data.load_mnist('', explicit=False)
train = data.train_images[..., None], data.train_labels
test = data.test_images[..., None], data.test_labels

backbone = keras.applications.MobileNet((32, 32, 3), alpha=0.5, include_top=False, weights=WEIGHTS)
features = keras.Model(backbone.input, backbone.get_layer('conv_pw_5_relu').output)
inputs = keras.Input((28, 28, 1))
x = layers.Rescaling(1 / 127.5, -1)(layers.ZeroPadding2D(2)(inputs))
x = features(layers.Concatenate()([x, x, x]))
x = layers.GlobalAveragePooling2D()(x)
model = keras.Model(inputs, layers.Dense(10, 'softmax', name='head')(x))


def adam(learning_rate):
  # Falls to 0, so that the averages of the batch normalization settle.
  return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, EPOCHS * 50))


def train_by(optimizer):
  model.compile(optimizer, 'sparse_categorical_crossentropy', metrics=['accuracy'])
  model.fit(*train, batch_size=100, epochs=EPOCHS, verbose=2)
  _, accuracy = model.evaluate(*test, verbose=0)
  return accuracy


dense = train_by(adam(2e-3))

optimizer = rigl.keras.RigL(
  adam(1e-3),
  mask_init='magnitude',
  # Depthwise convolutions stay dense, and here the head too.
  sparsity=rigl.keras.layer_sparsities(model, 0.8, custom_sparsities={'head/kernel': 0.0}),
  frequency=25,
  end_step=EPOCHS * 50 * 3 // 4,
  drop_fraction=0.1,
  drop_fraction_anneal='cosine',
)
sparse = train_by(optimizer)

print(f'accuracy {dense:.2%} dense, {sparse:.2%} sparse')
print(f'sparsity {rigl.keras.sparsity_of(model):.3f}')
model.save('sparse.keras')
