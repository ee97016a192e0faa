"""Reads the pickles of CIFAR-10's python version without unpickling them.

A pickle is a program for a small stack machine, and unpickling one from a
stranger runs whatever that program names. An Unpickler with a list of allowed
classes would still hand sizes and flags from the file to numpy's constructors,
which trust them. Here nothing that a file names is ever called: the few
instructions that dicts, lists, strings and arrays of bytes are made of are
carried out on plain data, and all others are refused.
"""

from __future__ import annotations

import dataclasses
import math
import pickletools
from typing import Any, Callable

import numpy as np

_ENCODE = '_codecs.encode'
_DTYPE = 'numpy.dtype'
_RECONSTRUCT = ('numpy.core.multiarray._reconstruct',
                'numpy._core.multiarray._reconstruct')
_ALLOWED_NAMES = (_ENCODE, _DTYPE, 'numpy.ndarray', *_RECONSTRUCT)


class _Mark:
  """Where on the stack the items of a list, tuple or dict begin."""


class _ByteType:
  """Stands for numpy's type of unsigned bytes."""


@dataclasses.dataclass(frozen=True)
class _Name:
  """Stands for something importable, which is not imported."""

  name: str


@dataclasses.dataclass
class _Array:
  """Stands for an array until its content follows."""

  content: np.ndarray | None = None


def read_dict(content: bytes, source: str) -> dict[str, Any]:
  """Reads a pickled dict of bytes, strings, integers, lists and uint8 arrays.

  Pickles of Python 2, as the original files are, and of Python 3 up to
  protocol 4 are understood.

  Args:
    content: the whole file.
    source: its name, for error messages.

  Returns:
    The dict, its keys as text. Strings that Python 2 has written are bytes.

  Raises:
    ValueError: the pickle is truncated, damaged, or holds anything else.
  """
  machine = _Machine()
  try:
    for opcode, argument, _ in pickletools.genops(content):
      machine.run(opcode.name, argument)
    result = machine.result()
  except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
    raise ValueError(
        f'{source}: expected a complete pickle of a CIFAR-10 batch, found '
        f'{len(content)} bytes that are refused: {error}') from error
  return result


class _Machine:
  """The stack and the memo of a pickle, and what its instructions do."""

  def __init__(self):
    self._stack: list[Any] = []
    self._memo: dict[int, Any] = {}

  def run(self, opcode: str, argument: Any) -> None:
    if opcode in _IGNORED:
      return
    if opcode in _CONSTANTS:
      self._stack.append(_CONSTANTS[opcode](argument))
    elif opcode in _INSTRUCTIONS:
      _INSTRUCTIONS[opcode](self, argument)
    else:
      raise ValueError(f'the instruction {opcode} is not allowed.')

  def result(self) -> dict[str, Any]:
    """What is left when the pickle has ended."""
    (result,) = self._stack
    if not isinstance(result, dict):
      raise ValueError(f'it holds a {type(result).__name__}, not a dict.')
    return {
        key: value.content if isinstance(value, _Array) else value
        for key, value in result.items()
    }

  def _pop(self, kind: type) -> Any:
    value = self._stack.pop()
    if not isinstance(value, kind):
      raise ValueError(f'a {kind.__name__} was expected, found a '
                       f'{type(value).__name__}.')
    return value

  def _pop_items(self) -> list[Any]:
    items = []
    while not isinstance(item := self._stack.pop(), _Mark):
      items.append(item)
    return items[::-1]

  def _top(self, kind: type) -> Any:
    value = self._pop(kind)
    self._stack.append(value)
    return value

  def put(self, index: int) -> None:
    self._memo[index] = self._stack[-1]

  def memoize(self, argument: None) -> None:
    del argument
    self.put(len(self._memo))

  def get(self, index: int) -> None:
    self._stack.append(self._memo[index])

  def short_tuple(self, n: int) -> None:
    items = [self._stack.pop() for _ in range(n)]
    self._stack.append(tuple(items[::-1]))

  def marked_tuple(self, argument: None) -> None:
    del argument
    self._stack.append(tuple(self._pop_items()))

  def append(self, argument: None) -> None:
    del argument
    item = self._stack.pop()
    self._top(list).append(item)

  def appends(self, argument: None) -> None:
    del argument
    items = self._pop_items()
    self._top(list).extend(items)

  def set_item(self, argument: None) -> None:
    del argument
    value, key = self._stack.pop(), self._stack.pop()
    self._top(dict)[_text(key)] = value

  def set_items(self, argument: None) -> None:
    del argument
    items = self._pop_items()
    keys = [_text(key) for key in items[::2]]
    self._top(dict).update(zip(keys, items[1::2]))

  def name(self, argument: str) -> None:
    """Of a function or class; `argument` is 'module name'."""
    name = argument.replace(' ', '.')
    if name not in _ALLOWED_NAMES:
      raise ValueError(f'it names {name}, which a CIFAR-10 batch does not '
                       'need; the file may be malicious. Nothing of it was '
                       'run.')
    self._stack.append(_Name(name))

  def stack_name(self, argument: None) -> None:
    del argument
    name, module = self._pop(str), self._pop(str)
    self.name(f'{module} {name}')

  def call(self, argument: None) -> None:
    """Stands in for the three calls that an array of bytes is made with."""
    del argument
    arguments, name = self._pop(tuple), self._pop(_Name).name
    if name == _ENCODE:
      text, encoding = map(_text, arguments)
      if encoding != 'latin1':
        raise ValueError(f'bytes are expected as latin1, found {encoding!r}.')
      self._stack.append(text.encode('latin1'))
    elif name == _DTYPE:
      kind = _text(arguments[0])
      if kind != 'u1':
        raise ValueError(f'arrays must be of uint8 (u1), found {kind!r}.')
      self._stack.append(_ByteType())
    elif name in _RECONSTRUCT:
      self._stack.append(_Array())
    else:
      raise ValueError(f'{name} must not be called.')

  def build(self, argument: None) -> None:
    """Fills the array that is on the stack."""
    del argument
    state = self._pop(tuple)
    if isinstance(self._stack[-1], _ByteType):
      return
    array = self._top(_Array)
    _, shape, kind, is_fortran, content = state
    if not isinstance(kind, _ByteType):
      raise ValueError('an array is not of uint8.')
    if not all(type(size) is int for size in shape):
      raise ValueError('the shape of an array does not consist of integers.')
    if len(content) != math.prod(shape):
      raise ValueError(f'an array of shape {shape} needs {math.prod(shape)} '
                       f'bytes, found {len(content)}.')
    array.content = np.frombuffer(content, np.uint8).reshape(
        shape, order='F' if is_fortran else 'C')


def _text(value: Any) -> str:
  """A name as text; it is bytes or text, as the Python that wrote it likes.
  """
  if isinstance(value, bytes):
    return value.decode('latin1')
  if not isinstance(value, str):
    raise ValueError(f'a name was expected, found a {type(value).__name__}.')
  return value


def _same(argument: Any) -> Any:
  return argument


def _latin1(argument: str) -> bytes:
  # pickletools gives the bytes of a Python 2 string as latin1 text.
  return argument.encode('latin1')


_IGNORED = ('PROTO', 'FRAME', 'STOP')

_CONSTANTS: dict[str, Callable[[Any], Any]] = {
    'MARK': lambda _: _Mark(),
    'NONE': lambda _: None,
    'NEWTRUE': lambda _: True,
    'NEWFALSE': lambda _: False,
    'EMPTY_DICT': lambda _: {},
    'EMPTY_LIST': lambda _: [],
    'EMPTY_TUPLE': lambda _: (),
    'BINSTRING': _latin1,
    'SHORT_BINSTRING': _latin1,
    **dict.fromkeys(
        ('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINBYTES', 'SHORT_BINBYTES',
         'BINUNICODE', 'SHORT_BINUNICODE'), _same),
}

_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    'BINPUT': _Machine.put,
    'LONG_BINPUT': _Machine.put,
    'MEMOIZE': _Machine.memoize,
    'BINGET': _Machine.get,
    'LONG_BINGET': _Machine.get,
    'TUPLE1': lambda machine, _: machine.short_tuple(1),
    'TUPLE2': lambda machine, _: machine.short_tuple(2),
    'TUPLE3': lambda machine, _: machine.short_tuple(3),
    'TUPLE': _Machine.marked_tuple,
    'APPEND': _Machine.append,
    'APPENDS': _Machine.appends,
    'SETITEM': _Machine.set_item,
    'SETITEMS': _Machine.set_items,
    'GLOBAL': _Machine.name,
    'STACK_GLOBAL': _Machine.stack_name,
    'REDUCE': _Machine.call,
    'BUILD': _Machine.build,
}
