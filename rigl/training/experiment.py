"""An experiment: what a script trains, by which settings, in which folder.

A script defines its data, network, loss and metrics in a subclass. The rest is
here: it reads and checks the settings, trains, evaluates, and resumes from the
checkpoints in the folder.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import os
from typing import TYPE_CHECKING, Any, ClassVar, Collection, Mapping, Optional, Sequence

from rigl import checkpoint_files
from rigl.compat import tf
from rigl.training import (
  checkpoints,
  distribution,
  evaluating,
  factory,
  history,
  hooks,
  mask_init,
  resuming,
  runner,
  script,
  specs,
)
from rigl.training import tpu as tpu_lib
from rigl.training.config import SparsityConfig
from rigl.training.schema import Schema

if TYPE_CHECKING:
  from typing_extensions import Self


@dataclasses.dataclass(frozen=True)
class Experiment(abc.ABC):
  """One training of a script.

  Attributes:
    unscaled: hyperparameters of the method as they are given.
    config: hyperparameters of network and optimizer.
    settings: data, files and devices.
    folder: folder of checkpoints, logs and summaries.
    masked_layers: names of the layers that have a mask in the checkpoint that
      is to be evaluated; None to go by the hyperparameters.
  """

  schema: ClassVar[Schema]
  # Hyperparameters that determine the shapes of variables, and others that must
  # not change when a training resumes.
  network_fields: ClassVar[Sequence[str]] = ()
  lasting_fields: ClassVar[Sequence[str]] = ()

  unscaled: SparsityConfig
  config: Any
  settings: Any
  folder: str = ''
  masked_layers: Optional[Collection[str]] = None

  @classmethod
  @abc.abstractmethod
  def of(cls, given: Mapping[str, Any]) -> Self:
    """The experiment of the settings {name: value}, which are checked, see `Schema`.

    Raises:
      ValueError: the settings are wrong or contradict each other; names them.
    """

  @abc.abstractmethod
  def run(self) -> str:
    """Trains or evaluates; returns the folder of the run, '' if it is gone.

    Raises:
      ValueError: the settings contradict the folder or the data; names them.
      signals.StoppedError: a signal has stopped it.
    """

  @functools.cached_property
  def sparsity(self) -> SparsityConfig:
    """The hyperparameters of the method, with scaled schedules."""
    return self.unscaled.scaled(getattr(self.config, 'training_steps_multiplier', 1.0))

  @property
  def configs(self) -> tuple[Any, ...]:
    """All hyperparameters as they are given, what config.gin keeps of a run."""
    return self.unscaled, self.config

  @property
  def custom_sparsity_map(self) -> dict[str, float]:
    """{layer: sparsity} of the layers that are not as sparse as the others."""
    return {}

  @property
  def first_iteration(self) -> int:
    """Iterations that the training in the folder has done."""
    return resuming.iterations_done(self.folder, self.sparsity)

  def check_common(self, batch_size: int, mode: str = 'train', use_tpu: bool = False) -> None:
    """Raises ValueError for settings that no script supports at this batch size."""
    settings = self.settings
    script.check_folder(self.schema.folder, getattr(settings, self.schema.folder))
    distribution.check(settings.num_replicas, batch_size, mode)
    runner.choose_loop(settings.loop, settings.num_replicas, use_tpu)

  def check_resumable(self) -> None:
    """Raises ValueError if the training in the folder had other settings."""
    resuming.check_same_settings(
      self.folder, self.schema.folder, self.configs, (*self.network_fields, *self.lasting_fields)
    )


class StepExperiment(Experiment):
  """An experiment of a number of steps, evaluated by its checkpoints."""

  # --- What a script defines ------------------------------------------------

  @property
  @abc.abstractmethod
  def network(self) -> str:
    """Name of the network, for the user."""

  @abc.abstractmethod
  def check(self) -> None:
    """Raises ValueError for settings that cannot work, before any work."""

  @property
  @abc.abstractmethod
  def own_folder(self) -> str:
    """The folder that the hyperparameters name, in the folder of runs."""

  @abc.abstractmethod
  def load_data(self) -> Any:
    """The data set, an object with a `source` for the user."""

  @abc.abstractmethod
  def train_input(self, data: Any) -> specs.InputFn:
    """The input_fn of the batches from the next one on."""

  @abc.abstractmethod
  def eval_input(self, data: Any) -> specs.InputFn:
    """The input_fn of all examples to evaluate."""

  @abc.abstractmethod
  def model_fn(
    self, features: tf.Tensor, labels: tf.Tensor, mode: str
  ) -> specs.TrainSpec | specs.EvalSpec:
    """The graph of a mode, 'train' or 'eval'."""

  @abc.abstractmethod
  def text_of(self, metrics: Mapping[str, float]) -> str:
    """The line that tells the user the metrics of an evaluation."""

  @property
  def split(self) -> str:
    """The split that evaluations are recorded as, in metrics.jsonl."""
    return 'test'

  @property
  def pruning_hparams(self) -> str:
    """Further hyperparameters of `prune`, name=value,..."""
    return ''

  def find_tpu(self) -> Optional[tpu_lib.TpuSetup]:
    """The TPU that is to be used; None for CPU or GPU."""
    return None

  @property
  def eval_steps(self) -> Optional[int]:
    """Batches of an evaluation, which a TPU must know; None for all."""
    return None

  @property
  def export_steps(self) -> int:
    """Steps between exports; 0 for none."""
    return 0

  def exporters(self) -> list[tf.train.CheckpointSaverListener]:
    """Listeners that export checkpoints."""
    return []

  def explained_errors(self, data: Any) -> contextlib.AbstractContextManager:
    """A context that explains TensorFlow's errors about the data."""
    del data
    return contextlib.nullcontext()

  def after_training(self) -> None:
    """Called once the last step is done and saved."""

  def describe(self, checkpoint: str) -> None:
    """Prints more about the checkpoint that `eval_once` has evaluated."""

  # --- What follows from it -------------------------------------------------

  @classmethod
  def of(cls, given: Mapping[str, Any]) -> Self:
    """See Experiment.of; an evaluation takes what is not given from the run."""
    settings = cls.schema.settings(given)
    sparsity, config = cls.schema.hyperparameters(given, cls._run_to_evaluate(settings))
    experiment = cls(sparsity, config, settings)
    experiment.check()
    mask_init.check_load_mask_dir(sparsity, settings.load_mask_dir)
    return dataclasses.replace(experiment, folder=experiment.run_folder)

  @classmethod
  def _run_to_evaluate(cls, settings: Any) -> Optional[str]:
    """The run whose config.gin gives an evaluation the settings that are not given."""
    if settings.mode not in evaluating.MODES:
      return None
    path = getattr(settings, cls.schema.folder)
    if settings.mode == 'eval_once':
      path = os.path.join(path, settings.eval_once_ckpt_prefix)
      if not tf.io.gfile.isdir(path):
        return os.path.dirname(path)
    return path

  @property
  def run_folder(self) -> str:
    """The folder of the run: the given folder if that is a run to evaluate."""
    folder = getattr(self.settings, self.schema.folder)
    if evaluating.is_run(self.settings.mode, folder):
      return folder
    return self.own_folder

  def run(self) -> str:
    checkpoint = self._find_checkpoint()
    layers = None if checkpoint is None else checkpoint_files.masked_layers(checkpoint)
    tpu = self.find_tpu()
    data = self.load_data()
    script.announce(
      self.settings.mode,
      f'{self.network}, {self.unscaled}, {self.config.total_steps:,} steps',
      data.source,
      self.folder,
    )
    with self.explained_errors(data):
      dataclasses.replace(self, masked_layers=layers).train_or_evaluate(data, checkpoint, tpu)
    return self.folder

  def _find_checkpoint(self) -> Optional[str]:
    """The checkpoint to evaluate, for `eval` the first one; None without any."""
    settings = self.settings
    if settings.mode == 'eval_once':
      return checkpoint_files.resolve(
        os.path.join(self.folder, settings.eval_once_ckpt_prefix),
        among=getattr(settings, self.schema.folder),
      )
    if settings.mode == 'eval':
      return checkpoint_files.latest(self.folder)
    checkpoints.check_given(settings, 'load_mask_dir', 'initial_value_checkpoint')
    self.check_resumable()
    return None

  def make_scaffold(self) -> tf.train.Scaffold:
    """Sets what a training starts from: masks, and parameters if given."""
    if self.settings.initial_value_checkpoint:
      checkpoints.initialize_parameters_from_ckpt(
        self.settings.initial_value_checkpoint, self.folder
      )
    return mask_init.make_scaffold(
      self.sparsity, self.custom_sparsity_map, self.settings.load_mask_dir
    )

  def train_or_evaluate(
    self, data: Any, checkpoint: Optional[str] = None, tpu: Optional[tpu_lib.TpuSetup] = None
  ) -> None:
    """Does what `mode` says; without a checkpoint it trains, or waits for one."""
    settings = self.settings
    loop = runner.make_loop(
      specs.Job(
        self.model_fn,
        self.folder,
        seed=self.sparsity.seed,
        save_steps=settings.steps_per_checkpoint,
        keep_checkpoint_max=settings.keep_checkpoint_max,
        save_summary_steps=settings.steps_per_summary,
        export_steps=self.export_steps,
      ),
      settings.loop,
      settings.num_replicas,
      tpu,
    )
    eval_input = self.eval_input(data)

    def evaluate(prefix: str) -> None:
      self._report(runner.evaluate(loop, eval_input, prefix, self.eval_steps))

    if settings.mode not in evaluating.MODES:
      self._train(
        loop, self.train_input(data), evaluate if settings.mode == 'train_and_eval' else None
      )
      return
    with evaluating.explained_misfits(
      os.path.dirname(checkpoint) if checkpoint else self.folder, self.configs, self.network_fields
    ):
      if settings.mode == 'eval_once' and checkpoint:
        evaluate(checkpoint)
        self.describe(checkpoint)
        return
      for metrics in runner.evaluate_until(
        loop, eval_input, self.config.total_steps, steps=self.eval_steps
      ):
        self._report(metrics)

  def _train(self, loop: specs.Loop, train_input: specs.InputFn, evaluate: Any) -> None:
    factory.warn_of_late_pruning(self.sparsity, self.config.total_steps, self.pruning_hparams)
    runner.train_in_turns(
      loop,
      train_input,
      self.config.total_steps,
      self.settings.steps_per_eval,
      evaluate,
      hooks=[hooks.WriteConfigHook(self.folder, *self.configs)],
      saving_listeners=self.exporters(),
    )
    self.after_training()

  def _report(self, metrics: Mapping[str, float]) -> None:
    """Prints and records the metrics of a checkpoint."""
    print(self.text_of(metrics), flush=True)
    is_own = self.settings.mode in evaluating.MODES
    history.record_evaluation(
      os.path.join(self.folder, 'eval') if is_own else self.folder, self.split, metrics
    )
