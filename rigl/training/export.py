"""Exports trained networks as SavedModels without masks.

A masked layer computes with mask * weights. An exported network has this
product as its weights, with exact zeros, and neither masks nor the
multiplication.
"""

from __future__ import annotations

import os
import uuid
from typing import Any, Callable, Mapping, Optional, Sequence

import numpy as np
from absl import logging

from rigl import checkpoint_files
from rigl.compat import tf
from rigl.core import checks, messages
from rigl.model_pruning import mask_collections
from rigl.training import checkpoints

IMAGES_SIGNATURE = 'serving_default'
JPEG_SIGNATURE = 'predict_jpeg'


def _outputs(logits: tf.Tensor, class_names: Optional[Sequence[str]]) -> dict[str, tf.Tensor]:
  logits = tf.cast(logits, tf.float32)
  outputs = {
    'logits': logits,
    'probabilities': tf.nn.softmax(logits),
    'classes': tf.argmax(logits, axis=1),
  }
  if class_names is not None:
    n_classes = logits.shape.as_list()[1]
    if len(class_names) != n_classes:
      raise ValueError(f'There are {len(class_names)} class_names for {n_classes} classes.')
    outputs['class_names'] = tf.gather(tf.constant(list(class_names)), outputs['classes'])
  return outputs


def _build_masked(
  build_logits: Callable[[tf.Tensor], tf.Tensor],
  image_shape: Sequence[int],
  decode: Optional[Callable[[tf.Tensor], tf.Tensor]],
  class_names: Optional[Sequence[str]],
) -> dict[str, Any]:
  """Builds the network as it was trained; see export_saved_model for the arguments.

  Returns {signature: (inputs, outputs)}, both {name: tensor}.
  """
  shape = [None, *image_shape]
  if decode is None:
    encoded, images = None, tf.placeholder(tf.float32, shape, 'images')
  else:
    encoded = tf.placeholder(tf.string, [None], 'image_bytes')
    decoded = tf.map_fn(
      lambda image: tf.cast(decode(image), tf.float32), encoded, fn_output_signature=tf.float32
    )
    # One network for both signatures: if images are fed, nothing is decoded.
    images = tf.placeholder_with_default(tf.ensure_shape(decoded, shape), shape, 'images')
  # TensorFlow 2 lists only resource variables of a loaded model.
  with tf.variable_scope(tf.get_variable_scope(), use_resource=True):
    logits = build_logits(images)
  outputs = _outputs(logits, class_names)
  signatures = {IMAGES_SIGNATURE: ({'images': images}, outputs)}
  if encoded is not None:
    signatures[JPEG_SIGNATURE] = ({'image_bytes': encoded}, outputs)
  return signatures


def _unmasked_meta_graph(outputs: Sequence[tf.Tensor]) -> Any:
  """The default graph with weights in place of masked weights.

  A MetaGraphDef of all ops that the outputs depend on, with the collections of
  their variables.
  """
  unmasked = {
    layer.masked_weights.op.name: tf.convert_to_tensor(layer.weights).op.name
    for layer in mask_collections.masked_layers()
  }
  graph_def = tf.get_default_graph().as_graph_def()
  for node in graph_def.node:
    node.input[:] = [unmasked.get(name, name) for name in node.input]
  needed = [output.op.name for output in outputs]
  reached = {node.name for node in tf.graph_util.extract_sub_graph(graph_def, needed).node}
  for key in (tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.TRAINABLE_VARIABLES):
    variables = tf.get_collection_ref(key)
    variables[:] = [v for v in variables if v.op.name in reached]
  for variable in tf.global_variables():
    definition = variable.to_proto()
    needed += [
      name.partition(':')[0]
      for name in (
        definition.variable_name,
        definition.initializer_name,
        definition.initial_value_name,
        definition.snapshot_name,
      )
    ]
  return tf.train.export_meta_graph(
    graph_def=tf.graph_util.extract_sub_graph(graph_def, needed),
    collection_list=[tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.TRAINABLE_VARIABLES],
  )


def _write(
  meta_graph: Any, values: Mapping[str, np.ndarray], signatures: Mapping[str, Any], folder: str
) -> None:
  """Writes a SavedModel to a folder that must not exist."""
  # A training that runs meanwhile may hold all memory of the GPUs.
  config = tf.ConfigProto(device_count={'GPU': 0})
  with tf.Graph().as_default(), tf.Session(config=config) as session:
    saver = tf.train.import_meta_graph(meta_graph)
    checkpoints.assign(session, [(v, values[v.op.name]) for v in tf.global_variables()])
    builder = tf.saved_model.Builder(folder)
    builder.add_meta_graph_and_variables(
      session, [tf.saved_model.tag_constants.SERVING], signatures, clear_devices=True, saver=saver
    )
    builder.save()


def _publish(temporary: str, path: str) -> None:
  """Renames a folder to `path`, replacing an older one."""
  older = f'{temporary}-older'
  if tf.io.gfile.exists(path):
    tf.io.gfile.rename(path, older)
  try:
    tf.io.gfile.rename(temporary, path)
  except BaseException:
    if tf.io.gfile.exists(older):
      tf.io.gfile.rename(older, path)
    raise
  if tf.io.gfile.exists(older):
    tf.io.gfile.rmtree(older)


def _write_atomically(
  meta_graph: Any,
  values: Mapping[str, np.ndarray],
  signatures: Mapping[str, Any],
  export_dir: str,
  step: int,
) -> str:
  """Like `_write`, to <export_dir>/<step>; returns this path."""
  path = os.path.join(export_dir, str(step))
  # Not a number, so that servers do not load it.
  temporary = os.path.join(export_dir, f'temporary-{step}-{uuid.uuid4().hex}')
  try:
    tf.io.gfile.makedirs(export_dir)
    try:
      _write(meta_graph, values, signatures, temporary)
      _publish(temporary, path)
    finally:
      if tf.io.gfile.exists(temporary):
        tf.io.gfile.rmtree(temporary)
  except (OSError, tf.errors.OpError) as error:
    raise OSError(f'Cannot write the exported model {path}: {messages.reason(error)}') from error
  return path


def export_saved_model(
  build_logits: Callable[[tf.Tensor], tf.Tensor],
  checkpoint: str,
  export_dir: str,
  *,
  image_shape: Sequence[int],
  decode: Optional[Callable[[tf.Tensor], tf.Tensor]] = None,
  class_names: Optional[Sequence[str]] = None,
) -> str:
  """Writes the network of a checkpoint as a SavedModel without masks.

  Its signatures are

      serving_default: images float32 [batch, *image_shape]
      predict_jpeg:    image_bytes string [batch], with `decode` only

  Both have the outputs logits and probabilities, float32 [batch, n_classes],
  classes, int64 [batch], and, if given, class_names, string [batch].

  The folder is renamed into place when it is complete, and replaces an export
  of the same step.

  Args:
    build_logits: float32 images -> logits [batch, n_classes]. Builds the
      network for inference under the names of the checkpoint, masks included.
    checkpoint: prefix or folder.
    export_dir: where to make a folder named by the step.
    image_shape: [height, width, channels].
    decode: an encoded image, a scalar string -> image of `image_shape`.
    class_names: a name for each logit.

  Returns:
    <export_dir>/<step>.

  Raises:
    ValueError: the checkpoint cannot be read, or does not fit the network.
    OSError: the folder cannot be written; names it.
  """
  checkpoint = checkpoint_files.resolve(checkpoint)
  step = checkpoints.read_counters(checkpoint, ['global_step'])['global_step']
  with tf.Graph().as_default():
    signatures = _build_masked(build_logits, image_shape, decode, class_names)
    values = checkpoint_files.fold_masks(checkpoints.read_values(checkpoint, tf.global_variables()))
    meta_graph = _unmasked_meta_graph(list(signatures[IMAGES_SIGNATURE][1].values()))
    left = [v.op.name for v in tf.global_variables() if v.op.name not in values]
    if left:
      raise ValueError(
        f'The network uses {", ".join(left)} elsewhere than in '
        'masked weights, so that masks cannot be folded.'
      )
    signatures = {
      name: tf.saved_model.predict_signature_def(*tensors) for name, tensors in signatures.items()
    }
  return _write_atomically(meta_graph, values, signatures, export_dir, step)


class ExportModelHook(tf.train.CheckpointSaverListener):
  """Exports checkpoints during training and the last one after it.

  Pass it to `runner.train` in `saving_listeners`. It exports the first
  checkpoint at or after each multiple of `every_n_steps` (`export_steps` of
  `specs.Job` causes a checkpoint at each multiple) and, when training ends, the
  last one. If a kill prevents an export, it is not repeated, but the checkpoint
  exists to export from.
  """

  def __init__(
    self,
    export_fn: Callable[[str], Any],
    model_dir: str,
    every_n_steps: int,
    last_step: Optional[int] = None,
  ):
    """Exports from the checkpoints of a folder.

    Args:
      export_fn: called with the prefix of a checkpoint.
      model_dir: folder of the checkpoints.
      every_n_steps: global steps between exports.
      last_step: last step of the training. When training pauses earlier, for
        evaluation or at a signal, it exports nothing. None if it never pauses.

    Raises:
      ValueError: `every_n_steps` is not positive.
    """
    checks.positive('every_n_steps', every_n_steps)
    self._export_fn = export_fn
    self._model_dir = model_dir
    self._every_n_steps = every_n_steps
    self._last_step = last_step
    self._n_periods: Optional[int] = None
    self._is_exported = False

  def after_save(self, session: Any, global_step_value: int) -> None:
    del session
    n_periods = global_step_value // self._every_n_steps
    # Not for the first checkpoint, from which training starts.
    is_due = self._n_periods is not None and n_periods > self._n_periods
    self._n_periods = n_periods
    self._is_exported = False
    if is_due:
      self._export()

  def end(self, session: Any, global_step_value: int) -> None:
    del session
    is_last = self._last_step is None or global_step_value >= self._last_step
    if is_last and not self._is_exported:
      self._export()

  def _export(self) -> None:
    path = self._export_fn(checkpoint_files.resolve(self._model_dir))
    logging.info('Exported %s.', path)
    self._is_exported = True
