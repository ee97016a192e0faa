"""`python -m rigl`: what there is to run."""

from __future__ import annotations

COMMANDS = {
  'mnist.mnist_train_eval': 'train LeNet-300-100 on MNIST',
  'cifar_resnet.resnet_train_eval': 'train WideResNets on CIFAR-10',
  'imagenet_resnet.imagenet_train_eval': 'train ResNets, MobileNets, VGGs on ImageNet',
  'compare': 'train several methods, and compare them',
  'mnist.visualize_mask_records': 'draw the masks of an MNIST run',
  'micronet': 'count FLOPs and bytes of dense and sparse networks',
  'inference': 'export sparse networks as small files, and time them',
  'imagenet_resnet.sample_data': 'make a small data set to try ImageNet with',
  'imagenet_resnet.convert_images': 'make records of your pictures for the ImageNet script',
}


_TEXT = """\
Sparse training of neural networks. Commands, each with --help:

{commands}

In Python, rigl.keras makes optimizers of Keras 3 sparse, and
rigl.mnist.train(method=..., sparsity=...) trains as the script does;
so do rigl.cifar_resnet.train and rigl.imagenet_resnet.train.
"""


def text() -> str:
  """The commands, one a line."""
  width = max(map(len, COMMANDS))
  lines = [f'  python -m rigl.{name:{width}}  {said}' for name, said in COMMANDS.items()]
  return _TEXT.format(commands='\n'.join(lines))


if __name__ == '__main__':
  print(text(), end='')
