"""Replicas hold the same masks, those that one device would have.

All replicas share each batch. Growth must rank the gradient of the whole batch,
and every draw must be the same on all replicas, or their masks part.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests import sparse_net
from tests.replica_net import BATCH, N_IN, N_OUT, ReplicaNet

N_STEPS = 8
SCHEDULE = {'begin_step': 0, 'end_step': 20, 'frequency': 3,
            'drop_fraction': 0.4}
SPARSITY = {'default_sparsity': 0.5, 'mask_init_method': 'random'}
HYPER = {'snip': SPARSITY, 'dnw': SPARSITY}


def _train(method, n_replicas, inner='momentum'):
  """The states after each step, {variable name: its value on each replica}."""
  rng = np.random.RandomState(0)
  states = []
  with ReplicaNet(method, n_replicas, inner,
                  HYPER.get(method, SCHEDULE)) as net:
    for _ in range(N_STEPS):
      net.step(rng.randn(BATCH, N_IN), rng.randn(BATCH, N_OUT))
      states.append(net.state())
  return states


@pytest.mark.parametrize('method', sorted(sparse_net.METHODS))
@pytest.mark.parametrize('inner', ['momentum', 'adam'])
def test_two_replicas_train_as_one(method, inner):
  ones, twos = _train(method, 1, inner), _train(method, 2, inner)
  moved = 0
  for k, (one, two) in enumerate(zip(ones, twos)):
    assert {n for n in two if n.endswith('/mask')} == {
        n for n in one if n.endswith('/mask')}
    for name, copies in two.items():
      if len(copies) == 2:
        np.testing.assert_array_equal(*copies, err_msg=f'{name}, step {k}')
      if name.endswith('/mask'):
        np.testing.assert_array_equal(copies[0], one[name][0])
        moved += k > 0 and not np.array_equal(
            one[name][0], ones[k - 1][name][0])
      elif name.endswith('/weights'):
        np.testing.assert_allclose(copies[0], one[name][0], rtol=1e-9)
    np.testing.assert_array_equal(
        two['global_step'][0], one['global_step'][0])
  assert (moved > 0) == (method not in ('static', 'snip'))
