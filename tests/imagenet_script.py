"""Runs the ImageNet script in this process, on a few images."""

from __future__ import annotations

import numpy as np
from absl import flags

from rigl import networks
from rigl.compat import tf
from rigl.imagenet_resnet import imagenet_train_eval as script
from tests import quick_sessions

FLAGS = flags.FLAGS

# A network and data that are small, whose masks move on steps 0, 2 and 4.
SMALL = {
  'end_sparsity': 0.8,
  'eval_batch_size': 8,
  'export_model_freq': 0,
  'image_size': 32,
  'mask_init_method': 'erdos_renyi_kernel',
  'maskupdate_end_step': 5,
  'maskupdate_frequency': 2,
  'num_eval_images': 20,
  'num_label_classes': 10,
  'num_parallel_calls': 2,
  'num_train_images': 64,
  'resnet_depth': 18,
  'steps_per_summary': 1,
  'train_batch_size': 8,
  'train_steps': 2,
  'use_folder_stub': False,
  'use_synthetic_data': True,
  'width': 0.125,
}


def shorten_networks(monkeypatch) -> None:
  """Leaves each kind of network a few of its blocks, of every kind."""
  monkeypatch.setitem(networks.RESNETS, 18, ('residual', (2,)))
  monkeypatch.setitem(networks.RESNETS, 50, ('bottleneck', (1, 1)))
  monkeypatch.setattr(networks, 'MOBILENET_V1', ((64, 1), (128, 2)))
  monkeypatch.setattr(networks, 'MOBILENET_V2', ((16, 1), (16, 1)))
  monkeypatch.setitem(networks.VGGS, 'vgg_a', (1, 1, 0, 0, 1))


def set_flags(**values) -> None:
  """The flags of the script at their defaults, SMALL and `values`."""
  for name, value in {**SMALL, **values}.items():
    setattr(FLAGS, name, value)
  tf.get_logger().setLevel('ERROR')


def run(folder, **values) -> str:
  """Runs the script to its end; returns the folder of the run."""
  set_flags(output_dir=str(folder), **values)
  with quick_sessions.of_scripts():
    script.main(['imagenet_train_eval.py'])
  return str(folder)


def write(path, values) -> str:
  """Writes a checkpoint of {variable name: value}; returns its prefix."""
  with tf.Graph().as_default(), tf.Session() as session:
    variables = {
      name: tf.get_variable(name, initializer=np.asarray(value)) for name, value in values.items()
    }
    session.run(tf.global_variables_initializer())
    return tf.train.Saver(variables).save(session, str(path), write_meta_graph=False)
