"""Unpickling without calling what a pickle names."""

from __future__ import annotations

import os
import pathlib
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest

from rigl.cifar_resnet import cifar_pickle
from tests import tiny_cifar

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = tiny_cifar.make_images(n_train=3, n_test=1)
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def batch(protocol: int = 2) -> bytes:
  return tiny_cifar.python_batch(DATA.train_images, DATA.train_labels, protocol)


def python2_batch() -> bytes:
  return tiny_cifar.python2_batch(DATA.train_images, DATA.train_labels)


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('is_fortran', [False, True])
@pytest.mark.parametrize('make_key', [str, str.encode])
def test_what_python_3_pickles(protocol, is_fortran, make_key):
  array = np.arange(200, 224).astype(np.uint8).reshape(2, 3, 4)
  expected = {
    'data': np.asfortranarray(array) if is_fortran else array,
    'labels': [0, 1, 255, 256, 65536, -1, 2**40],
    'text': 'text \u00e9',
    'bytes': bytes(range(256)),
    'same': [array, array, None, True, False],
    'nested': {'list': [[], ['x'], (1, 2)]},
  }
  content = pickle.dumps({make_key(key): value for key, value in expected.items()}, protocol)
  found = cifar_pickle.read_dict(content, 'a file')
  assert found.keys() == expected.keys()
  np.testing.assert_array_equal(found['data'], array)
  assert found['data'].dtype == np.uint8
  for key in ('labels', 'text', 'bytes', 'nested'):
    assert found[key] == expected[key], key
  # The memo: the same object, not two of them.
  assert found['same'][0] is found['same'][1]


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('dtype', [np.uint8, np.int8, np.uint16, np.int32, np.int64, np.uint64])
@pytest.mark.parametrize('is_writeable', [True, False])
def test_arrays_and_scalars_of_integers(protocol, dtype, is_writeable):
  array = np.arange(12).astype(dtype).reshape(3, 4)
  array.flags.writeable = is_writeable
  found = cifar_pickle.read_dict(
    pickle.dumps(
      {'array': array, 'turned': array.T, 'part': array[:, ::2], 'list': list(array[0])}, protocol
    ),
    'a file',
  )
  for name, expected in (
    ('array', array),
    ('turned', array.T),
    ('part', array[:, ::2]),
    ('list', array[0]),
  ):
    np.testing.assert_array_equal(found[name], expected)
  for value in (found['array'], found['list'][0]):
    assert value.dtype == dtype


def test_what_python_2_pickles():
  content = python2_batch()
  # Python's own unpickler reads the pickle as intended.
  expected = pickle.loads(content, encoding='bytes')
  found = cifar_pickle.read_dict(content, 'a file')
  assert found.keys() == {key.decode() for key in expected}
  np.testing.assert_array_equal(found['data'], expected[b'data'])
  np.testing.assert_array_equal(found['data'], tiny_cifar.planes(DATA.train_images))
  assert found['labels'] == expected[b'labels'] == DATA.train_labels.tolist()
  assert found['batch_label'] == b'training batch 1 of 5'


# --- Attacks -----------------------------------------------------------------


class Attack:
  """Unpickling it calls a function."""

  def __init__(self, function, *arguments):
    self._call = function, arguments

  def __reduce__(self):
    return self._call


def attacks(target: pathlib.Path) -> dict[str, Attack]:
  """Calls in malicious pickles, by the name that is refused."""
  return {
    f'{os.name}.system': Attack(os.system, f'touch {target}'),
    'builtins.eval': Attack(eval, f'__import__("os").mkdir({str(target)!r})'),
    'builtins.exec': Attack(exec, f'import os; os.mkdir({str(target)!r})'),
    f'{os.name}.mkdir': Attack(os.mkdir, str(target)),
    'builtins.getattr': Attack(getattr, 'x', 'upper'),
    'numpy.load': Attack(np.load, str(target), None, True),
    'numpy.save': Attack(np.save, str(target), 1),
    'numpy.memmap': Attack(np.memmap, str(target), np.uint8, 'w+', 0, 9),
    'numpy.float64': Attack(np.float64, 1.0),
  }


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize('name', attacks(pathlib.Path('x')))
def test_what_a_pickle_names_is_refused_and_does_nothing(tmp_path, name, protocol):
  target = tmp_path / 'attacked'
  content = pickle.dumps({'data': attacks(target)[name], 'labels': [0]}, protocol)
  with pytest.raises(ValueError, match='may be malicious') as error:
    cifar_pickle.read_dict(content, 'file.bin')
  old_name = name.replace('builtins', '__builtin__')
  assert str(error.value).startswith('file.bin: expected a complete pickle')
  assert f'it names {name}, ' in str(error.value) or (f'it names {old_name}, ' in str(error.value))
  assert '\n' not in str(error.value)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('protocol', PROTOCOLS)
@pytest.mark.parametrize(
  'name', [f'{os.name}.system', f'{os.name}.mkdir', 'builtins.eval', 'builtins.exec']
)
def test_the_trap_works(tmp_path, name, protocol):
  target = tmp_path / 'attacked'
  pickle.loads(pickle.dumps(attacks(target)[name], protocol))
  assert target.exists()


def test_attack_behind_good_content_and_in_a_key(tmp_path):
  good = {b'data': np.zeros((1, 3072), np.uint8), b'labels': [1]}
  attack = attacks(tmp_path / 'x')['builtins.eval']
  for content in ({**good, b'z': attack}, {**good, attack: 1}, [attack], attack):
    with pytest.raises(ValueError, match='malicious'):
      cifar_pickle.read_dict(pickle.dumps(content, 2), 'file')
  assert not (tmp_path / 'x').exists()


def test_a_named_module_is_not_imported(module_that_must_not_run):
  name = module_that_must_not_run.encode()
  for content in (b'\x80\x02}U\x04datac%s\nfunction\n)Rs.' % name, b'(i%s\nfunction\n.' % name):
    with pytest.raises(ValueError, match='names surprise_module.function'):
      cifar_pickle.read_dict(content, 'file')


# Pieces of pickles of protocol 2.
DTYPE = b'cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R'
ARRAY = b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n)U\x01b\x87R'


def filled(shape: bytes, content: bytes = b'U\x04abcd', dtype: bytes = DTYPE) -> bytes:
  """A dict with an array that has this state."""
  return b'\x80\x02}U\x04data' + ARRAY + b'(K\x01' + shape + dtype + b'\x89' + content + b'tbs.'


@pytest.mark.parametrize(
  'content, message',
  [
    (b'', 'found 0 bytes'),
    (b'<!DOCTYPE html>', 'found 15 bytes'),
    (b'\x80\x02}', 'found 3 bytes .*exhausted'),
    (b'\x80\x02].', 'holds a list'),
    (b'\x80\x02N.', 'holds a NoneType'),
    (b'\x80\x02.', 'refused'),
    (b'\x80\x02}h\x05.', 'refused'),
    (b'\x80\x02}]]s.', 'unhashable'),
    (b'\x80\x02}K\x01a.', 'refused'),
    (b'\x80\x02cnumpy\nndarray\n)R.', 'not callable'),
    (b'\x80\x02cnumpy\nndarray\n)\x81.', 'refused'),
    (b'\x80\x02cnumpy\ndtype\nU\x01OK\x00K\x01\x87R.', 'an array of object'),
    (b'\x80\x02cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R.', 'an array of float64'),
    (b'\x80\x02cnumpy\ndtype\nU\x02V8K\x00K\x01\x87R.', r'an array of \|V8'),
    (b'\x80\x02P1\n.', 'persistent'),
    (b'\x80\x02\x82\x07.', 'unregistered extension'),
    (filled(b'K\x05\x85'), 'buffer size does not match'),
    (filled(b'J\xff\xff\xff\xffJ\xfc\xff\xff\xff\x86'), 'refused'),
    (filled(b'\x8a\x08' + b'\xff' * 7 + b'\x3f' + b'K\x04\x86'), 'refused'),
    (filled(b'U\x04abcdK\x01\x86'), 'refused'),
    (filled(b'K\x04\x85', b'NNNN'), 'refused'),
    (filled(b'K\x04\x85', dtype=b'U\x01O'), 'refused'),
    (filled(b'K\x04\x85', dtype=b'K\x00'), 'refused'),
    # Indices of the memo of a pickle.
    (b'\x80\x02}r\xff\xff\xff\x7f.', 'no object number 2147483647'),
    (b'}p2147483647\n.', 'no object number 2147483647'),
    # Lengths of data that do not follow.
    (b'\x80\x02T\xff\xff\xff\x7f', 'refused'),
    (b'\x80\x04\x8e' + b'\xff' * 7 + b'\x0f', 'refused'),
    (b'\x80\x04\x95' + b'\xff' * 7 + b'\x0f', 'refused'),
    (b'\x80\x02\x8b\xff\xff\xff\x7f', 'refused'),
  ],
)
def test_bad_content(content, message):
  with pytest.raises(ValueError, match=message) as error:
    cifar_pickle.read_dict(content, 'some/file')
  assert str(error.value).startswith('some/file: expected a complete pickle')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('core', [b'core', b'_core'])
def test_good_content_made_of_the_same_pieces(core):
  """The names are those of numpy 1 and 2."""
  buffer = (
    b'\x80\x02}U\x04datacnumpy.core.numeric\n_frombuffer\n(U\x04abcd'
    + DTYPE
    + b'K\x04\x85U\x01CtRs.'
  )
  scalar = b'\x80\x02}U\x04datacnumpy.core.multiarray\nscalar\n' + DTYPE + b'U\x01a\x86Rs.'
  for content, expected in ((filled(b'K\x04\x85'), b'abcd'), (buffer, b'abcd'), (scalar, b'a')):
    found = cifar_pickle.read_dict(content.replace(b'numpy.core', b'numpy.' + core), 'file')
    assert found['data'].tobytes() == expected


def test_numbers_in_a_file_need_no_memory():
  """Each would need 2 GB or more."""
  bombs = [
    # A list of 8 bytes per object, with room for as many again.
    b'\x80\x02}r' + struct.pack('<I', 2**27) + b'.',
    b'\x80\x04\x8e' + struct.pack('<Q', 10**11),
    b'\x80\x05\x96' + struct.pack('<Q', 10**11),
    filled(b'\x8a\x06' + (10**11).to_bytes(6, 'little') + b'\x85'),
    b'\x80\x02cnumpy.core.numeric\n_frombuffer\n(\x8a\x06'
    + (10**11).to_bytes(6, 'little')
    + DTYPE
    + b'K\x01\x85U\x01CtR.',
    b'\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x8a\x06'
    + (10**11).to_bytes(6, 'little')
    + b'\x85U\x01b\x87R.',
  ]
  code = (
    'from rigl.cifar_resnet import cifar_pickle\n'
    f'for bomb in {bombs!r}:\n'
    '  try: cifar_pickle.read_dict(bomb, "file")\n'
    '  except ValueError: print("refused")\n'
    'print(*(line for line in open("/proc/self/status") if "VmHWM" in line))'
  )
  *refused, _, kibibytes, _ = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, check=True, capture_output=True, text=True
  ).stdout.split()
  assert refused == ['refused'] * len(bombs)
  assert int(kibibytes) < 2**20


def test_a_dtype_is_not_changed_by_its_state():
  """Numpy would take flags from it, which change the meaning of bytes."""
  state = b'(K\x03U\x01>N(U\x01atU\x02xxK\x08K\x01K\x3ft'
  before = repr(np.dtype(np.uint8)), np.dtype(np.uint8).flags
  found = cifar_pickle.read_dict(filled(b'K\x04\x85', dtype=DTYPE + state + b'b'), 'file')
  assert found['data'].tobytes() == b'abcd'
  assert (repr(np.dtype(np.uint8)), np.dtype(np.uint8).flags) == before
  # Numpy's own dtype would then have other flags.
  copy = np.dtype('u1', copy=True)
  copy.__setstate__((3, '|', None, None, None, 8, 1, 63))
  assert copy.flags == 63


# --- Damage ------------------------------------------------------------------


@pytest.mark.parametrize('make', [batch, lambda: batch(5), python2_batch])
def test_truncated_content(make):
  content = make()
  cuts = {0, 1, 2, 50, len(content) // 2, len(content) - 2, len(content) - 1}
  for cut in cuts | set(range(0, len(content), 97)):
    with pytest.raises(ValueError, match=f'found {cut} bytes'):
      cifar_pickle.read_dict(content[:cut], 'file')


# A warning of pickletools about text that is then refused.
@pytest.mark.filterwarnings('ignore:invalid escape:DeprecationWarning')
@pytest.mark.parametrize(
  'make', [lambda: batch(0), batch, lambda: batch(4), lambda: batch(5), python2_batch]
)
def test_damaged_content_is_read_or_refused_and_nothing_else(make):
  content = make()
  # Not in the pixels, which may have any value.
  pixels = tiny_cifar.planes(DATA.train_images).tobytes()
  begin = content.find(pixels)
  positions = [i for i in range(len(content)) if not 0 <= begin <= i < begin + len(pixels)]
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
