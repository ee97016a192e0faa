"""Trains a sparse ConvNet on a folder of pictures, one sub-folder a class.

python keras_image_folder.py my_pictures --epochs=20
"""

import argparse

import keras
from keras import layers

import rigl.keras

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument('folder', help='has a sub-folder for each class')
parser.add_argument('--epochs', type=int, default=20)
parser.add_argument('--size', type=int, default=64, help='pixels, both ways')
parser.add_argument('--sparsity', type=float, default=0.9)
arguments = parser.parse_args()

keras.utils.set_random_seed(0)
train, test = keras.utils.image_dataset_from_directory(
  arguments.folder,
  validation_split=0.2,
  subset='both',
  seed=0,
  image_size=(arguments.size, arguments.size),
)
n_classes = len(train.class_names)


def block(x, n_channels, name):
  x = layers.Conv2D(n_channels, 3, padding='same', use_bias=False, name=name)(x)
  # Its averages follow within the few steps of a small folder.
  x = layers.BatchNormalization(momentum=0.9)(x)
  return layers.MaxPooling2D()(layers.ReLU()(x))


inputs = keras.Input((arguments.size, arguments.size, 3))
x = layers.RandomFlip('horizontal')(layers.Rescaling(1 / 255)(inputs))
for i, n_channels in enumerate((32, 64, 128)):
  x = block(x, n_channels, f'conv{i}')
x = layers.GlobalAveragePooling2D()(x)
model = keras.Model(inputs, layers.Dense(n_classes, 'softmax')(x))

n_steps = arguments.epochs * len(train)
optimizer = rigl.keras.RigL(
  keras.optimizers.SGD(0.05, momentum=0.9),
  sparsity=arguments.sparsity,
  # The first layer has few weights, and every picture goes through them.
  custom_sparsities={'conv0/kernel': 0.0},
  # At least 10 updates of the masks, in the first 75 % of the training.
  frequency=min(100, max(1, n_steps // 14)),
  end_step=n_steps * 3 // 4,
  drop_fraction_anneal='cosine',
)
model.compile(optimizer, 'sparse_categorical_crossentropy', metrics=['accuracy'])
model.fit(
  train,
  validation_data=test,
  epochs=arguments.epochs,
  verbose=2,
  callbacks=[rigl.keras.SparsityLogger()],
)

rigl.keras.summary(model)
model.save('sparse.keras')
