"""A Keras optimizer that wraps another one and keeps a model sparse.

Inactive weights are held at exactly 0, so the gradient that Keras computes for
a kernel is the dense gradient, the one with respect to mask * weights. Layers
stay unchanged, and after training there is nothing to strip.

`SparseOptimizer` adds to a method of `rigl.core.methods` the variables, the
condition of an update, and the order of training and update.
"""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, Optional, Sequence, Union

import keras
import numpy as np
from absl import logging

from rigl.core import messages, methods, seeding
from rigl.keras import arguments, backends, first_masks, kernel_variables
from rigl.keras.arguments import Arguments
from rigl.keras.kernel_variables import Kernel
from rigl.keras.selection import Filters, Sparsities, Sparsity
from rigl.keras.step import Step, hold_at_zero


class SparseOptimizer(keras.optimizers.Optimizer):
  """Trains with the optimizer it wraps and updates masks by a method.

  Derive from it to use a method of your own:

      @keras.saving.register_keras_serializable()
      class Mine(rigl.keras.SparseOptimizer):
        method_class = MyMethod

  Attributes:
    method_class: the class of the method, see rigl.core.methods.
    method: the method itself.
    inner_optimizer: trains the weights.
  """

  method_class: ClassVar[type[methods.Method]] = methods.Method

  def __init__(
    self,
    inner_optimizer: keras.optimizers.Optimizer,
    sparsity: Sparsity = 0.9,
    distribution: str = 'erdos_renyi_kernel',
    custom_sparsities: Optional[Mapping[str, float]] = None,
    filters: Filters = None,
    mask_init: Union[str, Mapping[str, np.ndarray]] = 'random',
    seed: int = 0,
    name: Optional[str] = None,
    **hyperparameters: Any,
  ):
    """Wraps an optimizer.

    Args:
      inner_optimizer: not built yet.
      sparsity: share of zeros, in [0, 1], of all sparse kernels together; or
        {name or regular expression: sparsity}, which leaves all other kernels
        dense. A name is a path, or parts of it such as `dense_1`. See
        `layer_sparsities`.
      distribution: how a single sparsity is distributed over the kernels:
        uniform, erdos_renyi or erdos_renyi_kernel.
      custom_sparsities: {name or regular expression: sparsity} of exceptions
        to a single sparsity.
      filters: which kernels are sparse: a regular expression to find in their
        paths, a list of these, or a function of the variable.
      mask_init: initial masks: random; magnitude, the largest weights of a
        trained network; or {path: 0/1 array}. A kernel that already has the
        wanted number of zeros keeps its other weights instead.
      seed: seed of all random numbers.
      name: name of the optimizer.
      **hyperparameters: hyperparameters of the method.

    Raises:
      TypeError: an unknown hyperparameter.
      ValueError: the inner optimizer is not an optimizer, is built, or is a
        LossScaleOptimizer; or a value is out of range.
    """
    arguments.check_inner(inner_optimizer, type(self).__name__)
    super().__init__(learning_rate=0.0, name=name)
    self.inner_optimizer = inner_optimizer
    sparsities = Sparsities(sparsity, distribution, custom_sparsities, filters)
    self._arguments = Arguments(sparsities, mask_init, seed, hyperparameters)
    self.method = self.make_method(sparsities, **hyperparameters)
    arguments.check_method(self.method, mask_init, type(self).__name__)
    if self.method.warning():
      logging.warning(self.method.warning())
    self._backend = backends.current()
    self.kernels: tuple[Kernel, ...] = ()

  def __init_subclass__(cls, **kwargs):
    """Shows the hyperparameters of the method in help() and editors."""
    super().__init_subclass__(**kwargs)
    signature = inspect.signature(SparseOptimizer.__init__)
    *parameters, _ = list(signature.parameters.values())[1:]
    cls.__signature__ = signature.replace(parameters=[*parameters, *cls.hyperparameters().values()])

  @classmethod
  def hyperparameters(cls) -> dict[str, inspect.Parameter]:
    """The hyperparameters of the method by name, with their defaults."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    return {
      field.name: inspect.Parameter(field.name, keyword, default=field.default)
      for field in dataclasses.fields(cls.method_class)
    }

  @classmethod
  def make_method(cls, sparsities: Sparsities, **hyperparameters: Any) -> methods.Method:
    """The method with its hyperparameters.

    Raises:
      TypeError: one of them is unknown.
      ValueError: one of them is out of range.
    """
    del sparsities
    cls.check_hyperparameters(hyperparameters)
    return cls.method_class(**hyperparameters)

  @classmethod
  def check_hyperparameters(cls, given: Mapping[str, Any]) -> None:
    """Raises TypeError if one of them is unknown."""
    unknown = [name for name in given if name not in cls.hyperparameters()]
    if unknown:
      known = [*list(inspect.signature(SparseOptimizer).parameters)[:-1], *cls.hyperparameters()]
      alike = [name for word in unknown for name in messages.alike(word, known)]
      of_inner = set(unknown) & set(inspect.signature(keras.optimizers.SGD).parameters)
      advice = ' Give the inner optimizer its own arguments.' if of_inner else ''
      raise TypeError(
        f'{cls.__name__} does not know {", ".join(map(repr, unknown))}. It takes '
        f'{", ".join(known)}.{advice}{messages.did_you_mean(alike)}'
      )

  # What Keras asks of an optimizer around another one.

  @property
  def variables(self):
    return self._variables + self.inner_optimizer.variables

  @property
  def learning_rate(self):
    return self.inner_optimizer.learning_rate

  @learning_rate.setter
  def learning_rate(self, learning_rate):
    self.inner_optimizer.learning_rate = learning_rate

  @property
  def iterations(self):
    return self.inner_optimizer.iterations

  @property
  def loss_scale_factor(self):
    # Keras' constructor reads this before the inner optimizer is set.
    inner = getattr(self, 'inner_optimizer', None)
    return inner.loss_scale_factor if inner else None

  @loss_scale_factor.setter
  def loss_scale_factor(self, factor):
    if hasattr(self, 'inner_optimizer'):
      self.inner_optimizer.loss_scale_factor = factor

  def scale_loss(self, loss):
    return self.inner_optimizer.scale_loss(loss)

  def exclude_from_weight_decay(self, var_list=None, var_names=None):
    self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

  def save_own_variables(self, store):
    for i, variable in enumerate(self._saved):
      store[str(i)] = kernel_variables.read(variable)

  def load_own_variables(self, store):
    if len(store.keys()) != len(self._saved):
      warnings.warn(
        f'{self.name} has {len(self._saved)} variables, but the file holds {len(store.keys())} of '
        'its kind: it is not built yet, or the file was written with another method or other '
        'sparse layers. The masks begin anew, with the zeros that the weights have.',
        stacklevel=2,
      )
      self._start()
      return
    for i, variable in enumerate(self._saved):
      variable.assign(store[str(i)])

  def get_config(self):
    return {
      'name': self.name,
      'inner_optimizer': keras.saving.serialize_keras_object(self.inner_optimizer),
      **self._arguments.as_config(),
    }

  @classmethod
  def from_config(cls, config, custom_objects=None):
    config = dict(config)
    for name in ('inner_optimizer', 'filters'):
      if isinstance(config.get(name), Mapping):
        config[name] = keras.saving.deserialize_keras_object(
          config[name], custom_objects=custom_objects
        )
    return cls(**config)

  # The variables.

  @property
  def _saved(self):
    """Our own variables to save."""
    if not self.built:
      return []
    return [self._last_update, *(variable for kernel in self.kernels for variable in kernel.kept)]

  def build(self, variables):
    """Creates the masks, and the variables of the inner optimizer.

    Weights with a value become sparse at once, others at the first step.

    Raises:
      ValueError: there is no kernel; a sparsity matches none; masks depend on
        weights that have no value yet; or the optimizer was built without
        one of the variables.
    """
    if self.built:
      self._positions(variables)
      return
    variables = list(variables)
    self._last_update = self.add_variable(
      (),
      keras.initializers.Constant(self.method.initial_last_update_step),
      'int',
      name='last_mask_update_step',
    )
    # Tuples, since Keras tracks lists.
    sparsities = self._arguments.sparsities.of(variables)
    self.kernels = tuple(
      self._new_kernel(position, variable, sparsity)
      for position, (variable, sparsity) in enumerate(zip(variables, sparsities))
      if sparsity is not None
    )
    self._backend.run_eagerly(self._start)
    with kernel_variables.recorded_slots() as made:
      self.inner_optimizer.build(variables)
    kernel_variables.give_slots(self.kernels, made)
    super().build(variables)

  def _positions(self, variables: Sequence[Any]) -> list[int]:
    """The positions of variables among those of `build`."""
    known = {id(v): i for i, v in enumerate(self._trainable_variables)}
    unknown = [v.path for v in variables if id(v) not in known]
    if unknown:
      raise ValueError(
        f'{self.name} was built without {", ".join(unknown)}. Compile with a new optimizer: each '
        'model needs its own, and so does one whose layers became trainable later. Zeros stay '
        'zeros.'
      )
    return [known[id(v)] for v in variables]

  def _new_kernel(self, position: int, variable: Any, sparsity: float) -> Kernel:
    path, shape, method = variable.path, tuple(variable.shape), self.method

    def add(name, shape, dtype, initializer='zeros'):
      return self.add_variable(shape, initializer, dtype, name=f'{path.replace("/", "_")}_{name}')

    first_state = method.first_state(np.zeros(shape, 'float32'))
    brings_back = method.trains_all_weights or method.prunes_gradually
    return Kernel(
      path,
      position,
      variable,
      sparsity,
      mask=add('mask', shape, 'bool', kernel_variables.all_true),
      state=None if first_state is None else add('mask_state', first_state.shape, 'float32'),
      inactive=add('inactive', shape, variable.dtype) if brings_back else None,
    )

  # The first masks.

  def _start(self) -> None:
    """Initializes all masks, and zeroes weights that have values."""
    self._is_stale = False
    self._waits_for_weights = False
    for number, kernel in enumerate(self.kernels):
      has_value = self._backend.has_value(kernel.variable)
      values = kernel_variables.read(kernel.variable) if has_value else None
      mask = first_masks.first_mask(
        self.method, self._arguments.mask_init, kernel, values, self.seed_for(number, 'mask_init')
      )
      kernel.mask.assign(mask)
      if values is None:
        self._waits_for_weights |= kernel.inactive is not None or not np.all(mask)
        continue
      if kernel.inactive is not None:
        kernel.inactive.assign(values)
      else:
        self._is_stale |= kernel.zero_now(mask, values)
    if self._waits_for_weights:
      self._is_ready = self.add_variable((), 'zeros', 'bool', name='is_ready')

  def seed_for(self, number: int, purpose: str) -> int:
    """The seed of random numbers for a kernel, to combine with the step.

    Args:
      number: index of the kernel among the sparse ones. Its path would not do:
        paths may repeat, and contain counters of the process.
      purpose: what is drawn.
    """
    return seeding.stable_seed(str(number), purpose, self._arguments.seed)

  # A step.

  def apply(self, grads, trainable_variables=None):
    if not grads:
      return
    if trainable_variables is None:
      if not self.built:
        raise ValueError(
          'apply() got gradients without variables before build(): call '
          'optimizer.build(model.trainable_variables) first.'
        )
      trainable_variables = self._trainable_variables
    variables = list(trainable_variables)
    if len(grads) != len(variables):
      raise ValueError(f'apply() got {len(grads)} gradients for {len(variables)} variables.')
    self._backend.once(lambda grads: self._apply(grads, variables), grads)

  def _apply(self, grads: Sequence[Any], variables: Sequence[Any]) -> None:
    """A step of all replicas together."""
    if not self.built:
      self._backend.run_eagerly(lambda: self.build(variables))
      if self._is_stale and not self._backend.is_tracing:
        # The gradient is that of the dense network.
        return
    if self._waits_for_weights:
      self._backend.run_eagerly(self._look_for_weights)
    all_variables = [*self.variables, *self._trainable_variables]
    step = Step(
      self._backend,
      self.method,
      self.inner_optimizer,
      self.kernels,
      self._last_update,
      self.seed_for,
      grads,
      variables,
      self._positions(variables),
      all_variables,
    )
    if self._waits_for_weights:
      self._backend.branch(self._is_ready.value, step.run, self._sparsify, all_variables)
    else:
      step.run()

  def _look_for_weights(self) -> None:
    self._waits_for_weights = not kernel_variables.read(self._is_ready)

  def _sparsify(self) -> None:
    """Zeroes weights that had no value when the masks were made."""
    for kernel in self.kernels:
      if kernel.inactive is not None:
        kernel.inactive.assign(kernel.variable)
    hold_at_zero(self._backend, self.kernels)
    self._is_ready.assign(True)

  # What users ask for.

  def finalize_variable_values(self, var_list):
    # After an error in JAX, variables have no values, and another error would
    # hide the first.
    if all(getattr(variable, '_value', None) is not None for variable in var_list):
      self.inner_optimizer.finalize_variable_values(var_list)
      # On JAX a weight and its average now share memory, which the next fit cannot donate twice.
      for variable in var_list if self.inner_optimizer.use_ema else ():
        variable.assign(np.array(kernel_variables.read(variable)))
      # Averaged weights are not 0 where a connection was active once.
      for kernel in self.kernels:
        kernel.zero_now(kernel_variables.read(kernel.mask), kernel_variables.read(kernel.variable))

  def get_masks(self) -> dict[str, np.ndarray]:
    """{path: bool array [...]} of the sparse kernels; empty before `build`; see `masks_of`."""
    return kernel_variables.masks_of(self.kernels)

  def apply_masks(self) -> None:
    """Sets inactive weights to 0, as each step does.

    Call it after changing weights yourself, e.g. by `model.set_weights`.
    """
    hold_at_zero(self._backend, self.kernels)
