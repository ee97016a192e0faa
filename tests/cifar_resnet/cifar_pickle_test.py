"""Reading pickles without running what they say."""

from __future__ import annotations

import os
import pathlib
import pickle
import sys

import numpy as np
import pytest

from rigl.cifar_resnet import cifar_pickle
from tests import tiny_cifar

DATA = tiny_cifar.make_images(n_train=3, n_test=1)


def batch(protocol: int = 2) -> bytes:
  return tiny_cifar.python_batch(DATA.train_images, DATA.train_labels, protocol)


def python2_batch() -> bytes:
  return tiny_cifar.python2_batch(DATA.train_images, DATA.train_labels)


@pytest.mark.parametrize('protocol', [2, 3, 4])
@pytest.mark.parametrize('is_fortran', [False, True])
@pytest.mark.parametrize('make_key', [str, str.encode])
def test_what_python_3_pickles(protocol, is_fortran, make_key):
  array = np.arange(200, 224).astype(np.uint8).reshape(2, 3, 4)
  expected = {
      'data': np.asfortranarray(array) if is_fortran else array,
      'labels': [0, 1, 255, 256, 65536, -1, 2**40],
      'text': 'text \u00e9',
      'bytes': bytes(range(256)),
      'tuples': [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
      'same': [array, array, None, True, False],
      'nested': {'list': [[], ['x']]},
  }
  content = pickle.dumps(
      {make_key(key): value for key, value in expected.items()}, protocol)
  found = cifar_pickle.read_dict(content, 'a file')
  assert found.keys() == expected.keys()
  np.testing.assert_array_equal(found['data'], array)
  assert found['data'].dtype == np.uint8
  for key in ('labels', 'text', 'bytes', 'tuples', 'nested'):
    assert found[key] == expected[key], key
  # The memo: the same object, not two of them.
  assert found['same'][0] is found['same'][1]
  assert found['same'][2:] == [None, True, False]


def test_what_python_2_pickles():
  content = python2_batch()
  # Python's own unpickler agrees that this is what the test means to write.
  expected = pickle.loads(content, encoding='bytes')
  found = cifar_pickle.read_dict(content, 'a file')
  assert found.keys() == {key.decode() for key in expected}
  np.testing.assert_array_equal(found['data'], expected[b'data'])
  np.testing.assert_array_equal(
      found['data'], tiny_cifar.planes(DATA.train_images))
  assert found['labels'] == expected[b'labels'] == DATA.train_labels.tolist()
  assert found['batch_label'] == b'training batch 1 of 5'


class Attack:
  """Its unpickling calls a function."""

  def __init__(self, function, *arguments):
    self._call = function, arguments

  def __reduce__(self):
    return self._call


def attacks(target: pathlib.Path) -> dict[str, Attack]:
  return {
      'posix.system': Attack(os.system, f'touch {target}'),
      'eval': Attack(eval, f'__import__("os").mkdir({str(target)!r})'),
      'mkdir': Attack(os.mkdir, str(target)),
      'numpy.load': Attack(np.load, str(target), None, True),
  }


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('name', ['posix.system', 'eval', 'mkdir'])
def test_malicious_pickles_are_refused_and_do_nothing(
    tmp_path, name, protocol):
  target = tmp_path / 'attacked'
  attack = attacks(target)[name]
  content = pickle.dumps({'data': attack, 'labels': [0]}, protocol)
  with pytest.raises(ValueError, match='file.bin: expected a complete pickle'):
    cifar_pickle.read_dict(content, 'file.bin')
  assert not target.exists()
  # It would have worked on who trusts it.
  pickle.loads(content)
  assert target.exists()


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('name, named', [
    ('posix.system', f'{os.name}.system'),
    ('eval', r'(__builtin__|builtins)\.eval'),
    ('mkdir', f'{os.name}.mkdir'),
    ('numpy.load', r'numpy\.load'),
])
def test_the_message_says_what_a_malicious_pickle_names(
    tmp_path, name, named, protocol):
  content = pickle.dumps({'data': attacks(tmp_path / 'x')[name]}, protocol)
  with pytest.raises(ValueError, match=rf'it names {named}, which .*malicious'):
    cifar_pickle.read_dict(content, 'file')


def test_attack_behind_good_content_and_in_a_key(tmp_path):
  good = {b'data': np.zeros((1, 3072), np.uint8), b'labels': [1]}
  attack = attacks(tmp_path / 'x')['eval']
  for content in ({**good, b'z': attack}, {**good, attack: 1}, [attack],
                  attack):
    with pytest.raises(ValueError, match='malicious'):
      cifar_pickle.read_dict(pickle.dumps(content, 2), 'file')
  assert not (tmp_path / 'x').exists()


def test_a_named_module_is_not_imported(tmp_path, monkeypatch):
  (tmp_path / 'evil_module.py').write_text('function = print\n')
  monkeypatch.syspath_prepend(str(tmp_path))
  content = b'\x80\x02}U\x04datacevil_module\nfunction\n)Rs.'
  with pytest.raises(ValueError, match='names evil_module.function'):
    cifar_pickle.read_dict(content, 'file')
  assert 'evil_module' not in sys.modules


# What surrounds an array in a pickle of protocol 2.
ARRAY = b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n)U\x01b\x87R'
BYTES = b'cnumpy\ndtype\n(U\x02u1K\x00K\x01tR'


@pytest.mark.parametrize('content, message', [
    (b'', 'found 0 bytes'),
    (b'<!DOCTYPE html>', 'found 15 bytes'),
    (b'\x80\x02}', 'found 3 bytes .*exhausted'),
    (b'\x80\x02].', 'holds a list, not a dict'),
    (b'\x80\x02}}.', 'too many values'),
    (b'\x80\x02.', 'not enough values'),
    (b'\x80\x02}h\x05.', 'refused: 5'),
    (b'\x80\x02}]]s.', 'a name was expected, found a list'),
    (b'\x80\x02]K\x01K\x02s.', 'a dict was expected, found a list'),
    (b'\x80\x02}K\x01K\x02s.', 'a name was expected, found a int'),
    (b'\x80\x02}]K\x01a\x86.', 'holds a tuple'),
    (b'\x80\x02}K\x01a.', 'a list was expected, found a dict'),
    (b'\x80\x02cnumpy\nndarray\n)R.', 'numpy.ndarray must not be called'),
    (b'\x80\x02cnumpy\ndtype\n(U\x01OK\x00K\x01tR.', "uint8 .* found 'O'"),
    (b'\x80\x02cnumpy\ndtype\n(U\x02f8K\x00K\x01tR.', "uint8 .* found 'f8'"),
    (b'\x80\x02c_codecs\nencode\nU\x01aU\x03hex\x86R.', "found 'hex'"),
    (b'\x80\x02c_codecs\nencode\nK\x01K\x02\x86R.', 'name was expected'),
    (b'\x80\x02}U\x04data' + ARRAY + b'(K\x01K\x05\x85' + BYTES +
     b'\x89U\x04abcdtbs.', r'shape \(5,\) needs 5 bytes, found 4'),
    (b'\x80\x02}U\x04data' + ARRAY + b'(K\x01K\x04\x85K\x00' +
     b'\x89U\x04abcdtbs.', 'not of uint8'),
    # Its product would be a string of 4 GB.
    (b'\x80\x02}U\x04data' + ARRAY + b'(K\x01U\x04abcdJ\xff\xff\xff\x3f\x86' +
     BYTES + b'\x89U\x04abcdtbs.', 'shape .* not consist of integers'),
    (b'\x80\x02}U\x04data' + ARRAY + b'(K\x01J\xff\xff\xff\xff'
     b'J\xfc\xff\xff\xff\x86' + BYTES + b'\x89U\x04abcdtbs.', 'refused'),
])
def test_bad_content(content, message):
  with pytest.raises(ValueError, match=message) as error:
    cifar_pickle.read_dict(content, 'some/file')
  assert str(error.value).startswith('some/file: expected a complete pickle')


@pytest.mark.parametrize('make', [batch, python2_batch])
def test_truncated_content(make):
  content = make()
  cuts = {0, 1, 2, 50, len(content) // 2, len(content) - 2, len(content) - 1}
  for cut in cuts | set(range(0, len(content), 97)):
    with pytest.raises(ValueError, match=f'found {cut} bytes'):
      cifar_pickle.read_dict(content[:cut], 'file')


# Of pickletools, about the text of an instruction that is then refused.
@pytest.mark.filterwarnings('ignore:invalid escape:DeprecationWarning')
@pytest.mark.parametrize('make', [batch, lambda: batch(4), python2_batch])
def test_damaged_content_is_read_or_refused_and_nothing_else(make):
  content = make()
  # Pixels may be anything: nearly all damage would go there.
  pixels = tiny_cifar.planes(DATA.train_images).tobytes()
  begin = content.find(pixels)
  positions = [i for i in range(len(content))
               if not begin <= i < begin + len(pixels)]
  random_state = np.random.RandomState(0)
  n_refused = 0
  for _ in range(400):
    damaged = bytearray(content)
    for position in random_state.choice(positions, 2):
      damaged[position] = random_state.randint(256)
    try:
      assert isinstance(cifar_pickle.read_dict(bytes(damaged), 'file'), dict)
    except ValueError:
      n_refused += 1
  assert n_refused > 40
