"""Looking for a missing TPU fails at once, with the reason."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import socket

import pytest

from rigl.compat import tf2
from rigl.training import tpu


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  for name in tpu._VARIABLES:
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(tpu.glob, 'glob', lambda pattern: [])


@pytest.fixture
def has_client(monkeypatch):
  find_spec = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    'find_spec',
    lambda name: True if name == 'cloud_tpu_client' else find_spec(name),
  )


def find(*args, **kwargs):
  with pytest.raises(ValueError) as error:
    tpu.find(*args, **kwargs)
  assert '\n' not in str(error.value)
  return str(error.value)


def test_no_name():
  message = find('')
  assert '--tpu=' in message and 'TPU_NAME' in message


def test_no_device():
  assert 'no TPU' in find('local')


def test_address_that_does_not_answer():
  with socket.socket() as closed:
    closed.bind(('127.0.0.1', 0))
    port = closed.getsockname()[1]
  assert f'grpc://127.0.0.1:{port}' in find(f'grpc://127.0.0.1:{port}')
  # --master is another way to say it.
  assert f'grpc://127.0.0.1:{port}' in find('', master=f'grpc://127.0.0.1:{port}')


def test_address_that_answers(monkeypatch):
  resolved = []
  monkeypatch.setattr(
    tf2.distribute.cluster_resolver,
    'TPUClusterResolver',
    lambda name, **_: resolved.append(name) or 'resolver',
  )
  with socket.socket() as listening:
    listening.bind(('127.0.0.1', 0))
    listening.listen()
    address = f'grpc://127.0.0.1:{listening.getsockname()[1]}'
    assert tpu.find(address) == 'resolver'
  assert resolved == [address]


@pytest.mark.parametrize('address', ['grpc://host', 'grpc://:1', 'grpc://h:x'])
def test_address_of_another_form(address):
  assert 'grpc://<host>:<port>' in find(address)


def test_missing_package_is_named(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  package = re.search(r'pip install (\S+)\. ', find('my-tpu'))[1]
  # As the extra has it, which only works in a copy of the repository.
  pyproject = pathlib.Path(__file__).parents[2] / 'pyproject.toml'
  assert f'tpu = ["{package}>=' in pyproject.read_text(encoding='utf-8')


def test_name_outside_of_google_cloud(monkeypatch, has_client):
  monkeypatch.setattr(tpu, '_answers', lambda *args: False)
  for zone, project in (('', ''), ('us-central1-a', ''), ('', 'p')):
    message = find('my-tpu', zone, project)
    assert 'my-tpu' in message and '--tpu_zone' in message


def test_errors_of_the_look_up_are_one_line(monkeypatch, has_client):

  def fail(*args, **kwargs):
    raise RuntimeError('no\ncredentials')

  monkeypatch.setattr(tf2.distribute.cluster_resolver, 'TPUClusterResolver', fail)
  message = find('my-tpu', 'us-central1-a', 'p')
  assert 'my-tpu' in message and 'no credentials' in message


def test_name_and_place_reach_the_resolver(monkeypatch, has_client):
  seen = []
  monkeypatch.setattr(
    tf2.distribute.cluster_resolver,
    'TPUClusterResolver',
    lambda name, zone, project: seen.append((name, zone, project)),
  )
  tpu.find('my-tpu', 'us-central1-a', 'p')
  monkeypatch.setattr(tpu, '_answers', lambda *args: True)
  monkeypatch.setenv('TPU_NAME', 'other')
  tpu.find('')
  assert seen == [('my-tpu', 'us-central1-a', 'p'), ('other', None, None)]
