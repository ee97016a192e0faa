"""Prints digests of training runs, to be compared between processes.

First as TensorFlow 2 has it, then with its behaviour disabled.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from rigl.compat import tf
from tests import sparse_net

LAYERS = {
  'block/dense': sparse_net.LayerSpec((12, 10)),
  'block/conv': sparse_net.LayerSpec((3, 3, 4, 5)),
}
DYNAMIC = {'begin_step': 1, 'end_step': -1, 'frequency': 2, 'drop_fraction': 0.4}


def digests(method: str, seed: int) -> dict[str, str]:
  """SHA-256 of the masks of ten steps, and of the final weights."""
  hyper = sparse_net.hyper_of(
    method,
    {
      # Random values too, so that the digests depend on every seed.
      **DYNAMIC,
      'grow_init': 'random_normal_3',
      'stateless_seed_offset': seed,
    },
  )
  masks, weights = hashlib.sha256(), hashlib.sha256()
  with sparse_net.SparseNet(LAYERS, 'momentum', method, hyper, use_resource=None) as net:
    rng = np.random.RandomState(1)
    # Equal scores leave the choice of what to drop to the noise.
    state = net.state()
    net.load({f'{name}/weights': np.sign(state[f'{name}/weights']) for name in LAYERS})
    for _ in range(10):
      net.step(net.random_gradients(rng))
      state = net.state()
      for name in LAYERS:
        masks.update(state[f'{name}/mask'].tobytes())
    for name in LAYERS:
      weights.update(state[f'{name}/weights'].tobytes())
  return {'masks': masks.hexdigest(), 'weights': weights.hexdigest()}


def report() -> dict[str, object]:
  """The digests of all methods, and what may make them differ."""
  with tf.Graph().as_default():
    is_resource = not hasattr(tf.get_variable('v', []), '_ref')
  return {
    'hash': hash('a'),
    'control_flow_v2': tf.control_flow_v2_enabled(),
    'resource_variables': is_resource,
    'digests': {method: digests(method, 0) for method in sparse_net.METHODS},
  }


def main() -> None:
  reports = [report()]
  tf.disable_v2_behavior()
  reports.append(report())
  print(json.dumps(reports))


if __name__ == '__main__':
  main()
