"""Summaries of training for TensorBoard."""

from __future__ import annotations

import types
from typing import Any, Mapping, Optional, Sequence

from rigl import replicas, sparse_utils
from rigl.compat import tf, tf2
from rigl.core import layer_names
from rigl.model_pruning import pruning

# Largest width and height of an image of a mask.
MAX_PIXELS = 1024


def picture_of(mask: tf.Tensor) -> tf.Tensor:
  """An image of a mask [..., units], 1 (white) at active connections.

  float32 [1, incoming connections, units, 1], at most 1,024 of each.
  """
  n_units = mask.shape.as_list()[-1]
  rows = tf.reshape(tf.cast(mask, tf.float32), [1, -1, n_units, 1])
  return rows[:, :MAX_PIXELS, :MAX_PIXELS]


def layers_of(masks: Sequence[tf.Variable]) -> dict[str, tf.Variable]:
  """{name of the layer: mask}, in their order."""
  names = [replicas.name_of(mask) for mask in masks]
  return {layer_names.layer_of_mask(name) or name: mask for name, mask in zip(names, masks)}


def mask_summaries(masks: Sequence[tf.Variable], with_img: bool = False) -> dict[str, tf.Tensor]:
  """The density and an image of each mask, and the overall sparsity.

  For a TPU; elsewhere hooks write them, see `mask_watch`. Images are those of
  all masks `with_img`, else only that of the first.

  Returns:
    {'density/<layer>': scalar, 'mask/<layer>': see `picture_of`,
     'global_sparsity': scalar}; empty without masks.
  """
  found: dict[str, tf.Tensor] = {}
  for layer, mask in layers_of(masks).items():
    if with_img or not found:
      found[f'mask/{layer}'] = picture_of(mask)
    found[f'density/{layer}'] = tf.reduce_mean(tf.cast(mask, tf.float32))
  if masks:
    found['global_sparsity'] = sparse_utils.calculate_sparsity(masks)
  return found


def begin(folder: str, done: int) -> None:
  """Makes TensorBoard drop the events after the step at which the training resumes."""
  tf.summary.FileWriterCache.get(folder).add_session_log(
    tf.SessionLog(status=tf.SessionLog.START), done + 1
  )


def write(
  folder: str,
  step: int,
  values: Mapping[str, float],
  pictures: Mapping[str, bytes] = types.MappingProxyType({}),
) -> None:
  """Writes an event from the host, at once; pictures are results of tf.summary.image."""
  summary = tf.Summary(
    value=[tf.Summary.Value(tag=tag, simple_value=float(value)) for tag, value in values.items()]
  )
  for tag, picture in pictures.items():
    summary.value.add(tag=tag, image=tf.Summary.FromString(picture).value[0].image)
  writer = tf.summary.FileWriterCache.get(folder)
  writer.add_summary(summary, step)
  # A kill loses queued events, and after a later checkpoint they would not be
  # written again.
  writer.flush()


def norm_summaries(
  gradients: Sequence[tuple[Optional[tf.Tensor], tf.Variable]],
) -> dict[str, tf.Tensor]:
  """Sizes of all gradients, variables and of the weights in use, float32 scalars.

  grad_norm and var_norm, Euclidean; active_connections and nonzero_weights, the
  numbers of non-zero entries of the masks and of mask * weights; l1_norm, the
  sum of |mask * weights|. All count all layers together. In 2020, fw_nz_mask,
  fw_nz_weight and fw_l1_weight were those of the first masked layer, with its
  weights unmasked.
  """
  masks, masked = pruning.get_masks(), pruning.get_masked_weights()

  def total(terms: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.add_n([tf.cast(term, tf.float32) for term in terms])

  found = {
    'grad_norm': tf.linalg.global_norm(
      [tf.cast(g, tf.float32) for g, _ in gradients if g is not None]
    ),
    'var_norm': tf.linalg.global_norm([v for _, v in gradients]),
  }
  if masks:
    found |= {
      'active_connections': total([tf.math.count_nonzero(m) for m in masks]),
      'nonzero_weights': total([tf.math.count_nonzero(w) for w in masked]),
      'l1_norm': total([tf.reduce_sum(tf.abs(w)) for w in masked]),
    }
  return found


def format_tensors(*values: Mapping[str, Any]) -> dict[str, tf.Tensor]:
  """Merges {tag: tensor or number} into what a host_call can take, without Nones.

  A TPU concatenates the tensors of its replicas along the first dimension, so
  scalars get one.
  """
  merged = {}
  for tags in values:
    for tag, value in tags.items():
      if value is not None:
        tensor = tf.convert_to_tensor(value)
        merged[tag] = tf.reshape(tensor, [1]) if tensor.shape.rank == 0 else tensor
  return merged


def host_call_fn(
  model_dir: str,
  global_step: tf.Tensor,
  steps_per_summary: int = 1,
  trained: Optional[tf.Tensor] = None,
  **tensors: tf.Tensor,
) -> list[tf.Operation]:
  """Writes summaries from the host, away from the accelerator.

  Args:
    model_dir: folder of the event files.
    global_step: int64 [n_replicas], all the same.
    steps_per_summary: steps between summaries.
    trained: bool [n_replicas], all the same: whether this iteration made a step.
      One that moved masks instead writes nothing, since the next step has the
      same number. All write if None.
    **tensors: from `format_tensors`: vectors are written as the mean over the
      replicas, tensors of four dimensions as the picture of the first.

  Returns:
    The ops that write.
  """
  step = tf.cast(global_step[0], tf.int64)
  # Without a queue, see `write`.
  writer = tf2.summary.create_file_writer(model_dir, max_queue=0)
  # So that a new session opens it.
  tf.add_to_collection(tf.GraphKeys.TABLE_INITIALIZERS, writer.init())
  is_due = tf.equal(step % steps_per_summary, 0)
  if trained is not None:
    is_due = tf.logical_and(is_due, trained[0])
  with tf.name_scope(None), writer.as_default(), tf2.summary.record_if(is_due):
    for tag, tensor in tensors.items():
      if tensor.shape.rank == 4:
        tf2.summary.image(tag, tensor[:1], step=step)
      else:
        tf2.summary.scalar(tag, tf.reduce_mean(tf.cast(tensor, tf.float32)), step=step)
  return tf.summary.all_v2_summary_ops()
