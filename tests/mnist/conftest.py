"""Fixtures: a tiny data set and a short training of every method."""

from __future__ import annotations

import functools

import pytest


@pytest.fixture(scope='session')
def data(tmp_path_factory):
  """Folder of the IDX files of a tiny MNIST."""
  from tests import tiny_mnist

  return tiny_mnist.write_idx_files(tmp_path_factory.mktemp('mnist'))


@pytest.fixture(scope='session')
def trained(data, tmp_path_factory):
  """fn(method) -> folder of a training of two epochs; each is trained once."""
  from tests import tiny_mnist

  @functools.lru_cache(maxsize=None)
  def train(method):
    folder = tmp_path_factory.mktemp('runs') / method
    tiny_mnist.train(
      tiny_mnist.arguments(
        data,
        folder,
        training_method=method,
        num_epochs=2,
        mask_record_frequency=tiny_mnist.RECORD_FREQUENCY,
      )
    )
    return folder

  return train
