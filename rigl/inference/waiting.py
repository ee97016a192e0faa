"""Synchronization of threads that run compiled code.

As with `vectors`: after a change of this file, touch `kernels`.
"""

from __future__ import annotations

import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from rigl.inference.vectors import pointer_of

_INT = ir.IntType(64)

give_way = types.ExternalFunction('sched_yield', types.int32())


def _of_element(array, emit):
  """An intrinsic on an element of an array of this type, int64.

  `emit` gets the builder and the pointer to the element; it returns the result, int64.
  """

  def generate(context, builder, signature, args):
    data = pointer_of(context, builder, signature, args, 0)
    return emit(builder, builder.gep(data, [args[1]]))

  return types.int64(array, types.int64), generate


@intrinsic
def arrive(typing_context, array, index):
  """Adds 1 to an element of an int64 array, atomically; returns the old value."""
  del typing_context, index
  return _of_element(
    array,
    lambda builder, pointer: builder.atomic_rmw('add', pointer, ir.Constant(_INT, 1), 'seq_cst'),
  )


@intrinsic
def look(typing_context, array, index):
  """Reads an element of an int64 array that another thread may write."""
  del typing_context, index
  return _of_element(array, lambda builder, pointer: builder.load_atomic(pointer, 'seq_cst', 8))


@intrinsic
def pause(typing_context):
  """Tells the CPU that this thread spins."""
  del typing_context

  def generate(context, builder, signature, args):
    if platform.machine().lower() in ('x86_64', 'amd64'):
      kind = ir.FunctionType(ir.VoidType(), [])
      name = 'llvm.x86.sse2.pause'
      builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [])
    return context.get_dummy_value()

  return types.void(), generate
