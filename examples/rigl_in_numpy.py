"""RigL, the whole algorithm in plain numpy: LeNet-300-100, 95 % sparse."""

import numpy as np

from rigl.mnist import mnist_data

SIZES = (784, 300, 100, 10)
SPARSITY, LEARNING_RATE, MOMENTUM, BATCH = 0.95, 0.05, 0.9, 100
STEPS, UPDATE_EVERY, LAST_UPDATE, DROP_FRACTION = 800, 50, 600, 0.3


def top(score, n):
  """Marks the n highest scores; of equal ones, the first."""
  mask = np.zeros(score.size, bool)
  mask[np.argsort(-score.ravel(), kind='stable')[:n]] = True
  return mask.reshape(score.shape)


def move_mask(mask, weights, dense_gradient, fraction):
  """Drops the smallest weights, grows where the dense gradient is largest."""
  n_drop = int(np.float32(mask.sum()) * np.float32(fraction))
  kept = top(np.where(mask, np.abs(weights), -1.0), mask.sum() - n_drop)
  grown = top(np.where(kept, -1.0, np.abs(dense_gradient)), n_drop)
  return kept | grown, grown & ~mask


def gradients(weights, biases, images, labels):
  """Backpropagation of cross entropy through layers of ReLU units."""
  activations = [images]
  for w, b in zip(weights, biases):
    activations.append(np.maximum(activations[-1] @ w + b, 0.0))
  logits = activations[-2] @ weights[-1] + biases[-1]
  p = np.exp(logits - logits.max(1, keepdims=True))
  p /= p.sum(1, keepdims=True)
  signal = (p - np.eye(10, dtype='f')[labels]) / len(labels)
  found = []
  for w, a in zip(weights[::-1], activations[-2::-1]):
    found.append((a.T @ signal, signal.sum(0)))
    signal = (signal @ w.T) * (a > 0)
  return found[::-1], logits.argmax(1)


def main():
  data = mnist_data.load_mnist('', explicit=False)
  rng = np.random.RandomState(0)
  images, test = (
    x.reshape(-1, 784) / np.float32(255) for x in (data.train_images, data.test_images)
  )
  masks = [
    rng.permutation(np.arange(m * n) >= round(SPARSITY * m * n)).reshape(m, n)
    for m, n in zip(SIZES, SIZES[1:])
  ]
  # A unit has few inputs, so that each weighs more.
  weights = [
    (m * rng.randn(*m.shape) * np.sqrt(2.0 / (len(m) * m.mean()))).astype('f') for m in masks
  ]
  biases = [np.zeros(n, 'f') for n in SIZES[1:]]
  speeds = [[np.zeros_like(w), np.zeros_like(b)] for w, b in zip(weights, biases)]
  for step in range(STEPS):
    batch = rng.randint(len(images), size=BATCH)
    found, _ = gradients(weights, biases, images[batch], data.train_labels[batch])
    is_update = 0 < step <= LAST_UPDATE and step % UPDATE_EVERY == 0
    fraction = DROP_FRACTION / 2 * (1 + np.cos(np.pi * step / LAST_UPDATE))
    for k, (dense_gradient, of_biases) in enumerate(found):
      if is_update:  # Instead of training.
        masks[k], new = move_mask(masks[k], weights[k], dense_gradient, fraction)
        weights[k] = np.where(masks[k] & ~new, weights[k], np.float32(0))
        speeds[k][0] = np.where(masks[k] & ~new, speeds[k][0], np.float32(0))
      else:
        speeds[k][0] = MOMENTUM * speeds[k][0] + masks[k] * dense_gradient
        speeds[k][1] = MOMENTUM * speeds[k][1] + of_biases
        weights[k] = weights[k] - LEARNING_RATE * speeds[k][0]
        biases[k] = biases[k] - LEARNING_RATE * speeds[k][1]
  _, said = gradients(weights, biases, test, data.test_labels)
  zeros = sum((w == 0).sum() for w in weights) / sum(w.size for w in weights)
  print(f'error {np.mean(said != data.test_labels):.2%}, sparsity {zeros:.3f}')


if __name__ == '__main__':
  main()
