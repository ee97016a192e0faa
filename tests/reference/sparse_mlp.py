"""Numpy oracle of sparse training: a network of ReLU units and its optimizer.

Written apart from `rigl` and never importing it. Momentum as Keras has it:
velocity = momentum * velocity - rate * gradient.
"""

from __future__ import annotations

import dataclasses
from typing import Callable

import numpy as np

from tests.reference import methods


def gradients(weights, biases, x, labels):
  """Gradients of the mean cross entropy: [(of weights, of biases), ...]."""
  activations = [x]
  for w, b in zip(weights[:-1], biases[:-1]):
    activations.append(np.maximum(activations[-1] @ w + b, 0))
  logits = activations[-1] @ weights[-1] + biases[-1]
  p = np.exp(logits - logits.max(1, keepdims=True))
  p /= p.sum(1, keepdims=True)
  signal = (p - np.eye(p.shape[1], dtype='f')[labels]) / np.float32(len(labels))
  found = []
  for w, a in zip(weights[::-1], activations[::-1]):
    found.append((a.T @ signal, signal.sum(0)))
    signal = (signal @ w.T) * (a > 0)
  return found[::-1]


@dataclasses.dataclass
class Trainer:
  """Trains by a method, a name of the scripts.

  Attributes:
    draw: (number of a layer, step) -> what SET grows by, [...].
  """

  method: str
  weights: list[np.ndarray]
  biases: list[np.ndarray]
  masks: list[np.ndarray]
  sparsities: list[float]
  draw: Callable[[int, int], np.ndarray]
  rate: float = 0.1
  momentum: float = 0.9
  frequency: int = 5
  end_step: int = 100
  fraction: float = 0.3
  average_decay: float = 0.9

  def __post_init__(self):
    self.step = 0
    self.last = {'prune': 0, 'snip': -1}.get(self.method, -self.frequency)
    zeros = lambda: [np.zeros_like(w) for w in self.weights]  # noqa: E731
    self.speeds, self.averages = zeros(), zeros()
    self.bias_speeds = [np.zeros_like(b) for b in self.biases]
    self.thresholds = [0.0] * len(self.weights)
    # Of DNW and pruning: what inactive connections weigh.
    self.whole = [w.copy() for w in self.weights]
    self.weights = [w * m for w, m in zip(self.weights, self.masks)]

  def run(self, x, labels) -> None:
    """One batch."""
    found = gradients(self.weights, self.biases, x, labels)
    dense = [gradient for gradient, _ in found]
    if self.method in ('rigl', 'snip'):
      if self._is_due(self.step):
        self._move(self.step, dense)
        return
      self._train(found)
      return
    self.averages = [
      np.float32(self.average_decay) * a + np.float32(1 - self.average_decay) * g
      for a, g in zip(self.averages, dense)
    ]
    self._train(found)
    seen = self.step - 1 if self.method == 'prune' else self.step
    if self.method == 'dnw' or self._is_due(seen):
      self._move(seen, dense)

  def _is_due(self, step):
    if self.method == 'scratch':
      return False
    if self.method == 'snip':
      return step == 0 and self.last < 0
    return step - self.last >= self.frequency and step <= self.end_step

  def _train(self, found):
    for k, (gradient, of_biases) in enumerate(found):
      if self.method == 'dnw':
        self.weights[k] = self.whole[k]
      else:
        gradient = np.where(self.masks[k], gradient, 0).astype('f')
      m, rate = np.float32(self.momentum), np.float32(self.rate)
      self.speeds[k] = m * self.speeds[k] - rate * gradient
      self.bias_speeds[k] = m * self.bias_speeds[k] - rate * of_biases
      self.weights[k] = self.weights[k] + self.speeds[k]
      self.biases[k] = self.biases[k] + self.bias_speeds[k]
    self.step += 1

  def _move(self, step, dense):
    for k, (mask, weights) in enumerate(zip(self.masks, self.weights)):
      if self.method == 'prune':
        weights = np.where(mask, weights, self.whole[k])
      update = methods.updated(
        self.method,
        methods.Layer(
          mask.astype('f'),
          weights,
          dense[k],
          self.averages[k],
          self.draw(k, step),
          self.thresholds[k],
          self.sparsities[k],
        ),
        step,
        self.end_step,
        self.fraction,
        0.0,
      )
      mask = np.asarray(update.mask) != 0
      new = weights.copy()
      if update.restarted is not None:
        new[np.asarray(update.restarted)] = 0
        self.speeds[k][np.asarray(update.restarted)] = 0
      self.thresholds[k] = update.threshold or 0.0
      self.whole[k], self.masks[k] = new, mask
      self.weights[k] = np.where(mask, new, 0).astype('f')
      if self.method != 'dnw':
        self.speeds[k][~mask] = 0
    self.last = step
