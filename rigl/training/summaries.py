"""What training writes for TensorBoard."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence

from rigl import sparse_utils
from rigl.compat import tf, tf2
from rigl.model_pruning import pruning


def add_scalars(scalars: Mapping[str, Optional[tf.Tensor]]) -> None:
  """Adds tf.summary.scalar for each tag whose tensor is not None.

  Args:
    scalars: {tag: scalar tensor or None}.
  """
  with tf.name_scope(None):
    for tag, value in scalars.items():
      if value is not None:
        tf.summary.scalar(tag, value)


def mask_summaries(masks: Sequence[tf.Variable],
                   with_img: bool = False) -> dict[str, tf.Tensor]:
  """The sparsity of each mask, and what it looks like.

  Args:
    masks: mask variables.
    with_img: whether to add pictures: a row for each connection that enters a
      unit, a column for each unit.

  Returns:
    {'pruning/<mask name>/sparsity': scalar,
     'pruning/<mask name>/image': [1, n_in, n_out, 1]}.
  """
  found = {}
  for mask in masks:
    found[f'pruning/{mask.op.name}/sparsity'] = tf.nn.zero_fraction(mask)
    if with_img:
      n_out = mask.shape.as_list()[-1]
      found[f'pruning/{mask.op.name}/image'] = tf.reshape(
          tf.cast(mask, tf.float32), [1, -1, n_out, 1])
  return found


def norm_summaries(
    gradients: Sequence[tuple[Optional[tf.Tensor], tf.Variable]]
) -> dict[str, tf.Tensor]:
  """Sizes of gradients, variables and of the weights in use, float32 scalars.

  Args:
    gradients: (gradient, variable) of all trained variables.

  Returns:
    grad_norm and var_norm, Euclidean; active_connections and nonzero_weights,
    how many entries of the masks and of mask * weights are not zero; l1_norm,
    the sum of |mask * weights|; global_sparsity. All are of all layers
    together, unlike the fw_nz_mask, fw_nz_weight and fw_l1_weight of 2020,
    which were of the first layer with a mask and its weights without it.
  """
  masks, masked = pruning.get_masks(), pruning.get_masked_weights()

  def total(terms: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.add_n([tf.cast(term, tf.float32) for term in terms])

  found = {
      'grad_norm': tf.linalg.global_norm([
          tf.cast(g, tf.float32) for g, _ in gradients if g is not None]),
      'var_norm': tf.linalg.global_norm([v for _, v in gradients]),
  }
  if masks:
    found.update({
        'active_connections': total([tf.math.count_nonzero(m) for m in masks]),
        'nonzero_weights': total([tf.math.count_nonzero(w) for w in masked]),
        'l1_norm': total([tf.reduce_sum(tf.abs(w)) for w in masked]),
        'global_sparsity': sparse_utils.calculate_sparsity(masks),
    })
  return found


def format_tensors(*values: Mapping[str, Any]) -> dict[str, tf.Tensor]:
  """Merges {tag: tensor or number} into what a host_call can take.

  Each replica of a TPU hands over its tensors, which are then put one after
  the other along their first dimension, so that scalars need one.

  Args:
    *values: tags and what they stand for.

  Returns:
    {tag: tensor of at least one dimension}; None values are left out.
  """
  merged = {}
  for tags in values:
    for tag, value in tags.items():
      if value is not None:
        tensor = tf.convert_to_tensor(value)
        merged[tag] = (
            tf.reshape(tensor, [1]) if tensor.shape.rank == 0 else tensor)
  return merged


def host_call_fn(model_dir: str, global_step: tf.Tensor,
                 steps_per_summary: int = 1,
                 trained: Optional[tf.Tensor] = None,
                 **tensors: tf.Tensor) -> list[tf.Operation]:
  """Writes summaries from the host, away from the accelerator.

  Args:
    model_dir: folder of the event files.
    global_step: int64 [n_replicas], all the same.
    steps_per_summary: steps between what is written.
    trained: bool [n_replicas], all the same: whether this iteration makes the
      step. One that moves masks instead, on a batch of its own, has the number
      of the next that does, and writes nothing. All write if None.
    **tensors: from `format_tensors`: vectors are written as the mean over the
      replicas, tensors of four dimensions as the picture of the first.

  Returns:
    The ops that write.
  """
  step = tf.cast(global_step[0], tf.int64)
  # What waits in a queue is lost when training is killed, and not done again
  # if a checkpoint came meanwhile.
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
        tf2.summary.scalar(
            tag, tf.reduce_mean(tf.cast(tensor, tf.float32)), step=step)
  return tf.summary.all_v2_summary_ops()
