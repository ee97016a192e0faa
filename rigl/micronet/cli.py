"""Counts networks from the command line: `python -m rigl.micronet`.

Without --architecture and --checkpoint it prints the published tables next to
what the rules give. With either it lists the layers of a network with their
shape, sparsity, weights, FLOPs and bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence

from rigl.core import distributions
from rigl.micronet import (
    architectures,
    checkpoints,
    formatting,
    published_table,
    report,
    training_flops,
)
from rigl.micronet.model_ops import Network
from rigl.micronet.network import count_network

_EXAMPLES = """examples:
  python -m rigl.micronet
  python -m rigl.micronet --architecture=resnet50 --sparsity=0.9
  python -m rigl.micronet --architecture=wrn_22_2 --sparsity=0.95 --format=csv
  python -m rigl.micronet --checkpoint=/tmp/run/model.ckpt-32000
"""


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
      prog='python -m rigl.micronet',
      description='Counts FLOPs and bytes by the rules of the MicroNet '
      'Challenge. Without --architecture and --checkpoint: the published '
      'tables of RigL, cell by cell.',
      epilog=_EXAMPLES,
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument(
      '--format', choices=formatting.FORMATS, default='table')

  _add_network_arguments(parser.add_argument_group('network'))
  _add_sparsity_arguments(parser.add_argument_group('sparsity'))
  _add_training_arguments(parser.add_argument_group('training cost'))
  return parser


def _add_network_arguments(network: argparse._ArgumentGroup) -> None:
  network.add_argument(
      '--architecture',
      metavar='NAME',
      help=f'one of: {", ".join(architectures.ARCHITECTURES)}')
  network.add_argument(
      '--width', type=float, help='factor for the channels')
  network.add_argument(
      '--input_size', type=int, help='rows of the input image')
  network.add_argument('--num_classes', type=int)
  network.add_argument(
      '--all_operations',
      action='store_true',
      help='also count residual additions and the global average, which the '
      'published figures leave out')
  network.add_argument(
      '--param_bits',
      type=int,
      default=32,
      help='bits of a stored weight (32)')


def _add_sparsity_arguments(sparsity: argparse._ArgumentGroup) -> None:
  sparsity.add_argument(
      '--sparsity', type=float, default=0., help='default sparsity (0)')
  sparsity.add_argument(
      '--distribution',
      choices=distributions.DISTRIBUTIONS,
      default='erdos_renyi_kernel',
      help='random is uniform (erdos_renyi_kernel)')
  sparsity.add_argument('--erk_power_scale', type=float, default=1.)
  for layer in ('first', 'last'):
    sparsity.add_argument(
        f'--{layer}_layer_sparsity',
        type=float,
        metavar='S',
        help=f'0: the {layer} layer is dense, -1: it follows the distribution. '
        'Unset: as the training script of the network does')
  sparsity.add_argument(
      '--layer_sparsity',
      action='append',
      default=[],
      metavar='LAYER=S',
      help='sparsity of one layer, may be repeated')
  sparsity.add_argument(
      '--checkpoint',
      metavar='PATH',
      help='count the masks of this checkpoint (a prefix or a folder) instead '
      'of a distribution; finds the architecture if it is not given')


def _add_training_arguments(training: argparse._ArgumentGroup) -> None:
  training.add_argument(
      '--delta_t',
      type=float,
      default=training_flops.DEFAULT_DELTA_T,
      help='steps between mask updates (100)')
  training.add_argument(
      '--length',
      type=float,
      default=1.,
      help='training steps, as a multiple of those of the dense network (1)')
  default = training_flops.DEFAULT_PRUNING
  training.add_argument(
      '--pruning_schedule',
      metavar='STEPS,BEGIN,END,FREQUENCY',
      default=f'{default.n_steps},{default.begin_step},{default.end_step},'
      f'{default.frequency}',
      help='of gradual pruning (%(default)s)')


def custom_sparsities(
    network: Network,
    sparsity: float,
    first_layer_sparsity: float | None = None,
    last_layer_sparsity: float | None = None,
    layer_sparsities: Sequence[str] = (),
) -> dict[str, float]:
  """Collects the layers that do not follow the distribution.

  Args:
    network: whose own factors hold where nothing else is said.
    sparsity: default sparsity, which those factors multiply.
    first_layer_sparsity: of the first layer; -1 lets it follow the
      distribution.
    last_layer_sparsity: the same for the last layer.
    layer_sparsities: texts of the form 'layer=sparsity', which win.

  Returns:
    layer name -> sparsity.

  Raises:
    ValueError: on a text of another form.
  """
  custom = {
      name: factor * sparsity
      for name, factor in network.sparsity_factors.items()
  }
  for name, value in ((network.first_layer, first_layer_sparsity),
                      (network.last_layer, last_layer_sparsity)):
    if value == -1:
      custom.pop(name, None)
    elif value is not None:
      custom[name] = value
  for text in layer_sparsities:
    name, _, value = text.rpartition('=')
    try:
      number = float(value)
    except ValueError:
      name = ''
    if not name:
      raise ValueError(f'--layer_sparsity takes LAYER=S, got {text!r}.')
    custom[name] = number
  return custom


def _pruning_schedule(text: str) -> training_flops.PruningSchedule:
  try:
    steps = [int(number) for number in text.split(',')]
  except ValueError:
    steps = []
  if len(steps) != 4:
    raise ValueError('--pruning_schedule takes STEPS,BEGIN,END,FREQUENCY, got '
                     f'{text!r}.')
  return training_flops.PruningSchedule(*steps)


def _network_report(args: argparse.Namespace) -> report.Report:
  """Counts what the arguments ask for."""
  masks = {}
  if args.checkpoint:
    if args.sparsity:
      raise ValueError('Give --sparsity or --checkpoint: the masks of a '
                       'checkpoint have a sparsity of their own.')
    # TensorFlow tells about missing GPUs otherwise.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    masks = checkpoints.read_masks(args.checkpoint)
  name = args.architecture or checkpoints.find_architecture(masks, args.width)
  network = architectures.get_network(name, args.width, args.input_size,
                                      args.num_classes)
  layers = network.layers if args.all_operations else network.weighted_layers
  if args.checkpoint:
    problem = checkpoints.mismatch(network, masks)
    if problem:
      raise ValueError(f'{args.checkpoint!r} is not a checkpoint of {name}: '
                       f'{problem}. Sizes can be set with --width, '
                       f'--input_size and --num_classes.')
    title = f'{name}, masks of {args.checkpoint}'
    n_zeros = {scope: mask.n_zeros for scope, mask in masks.items()}
    count = count_network(layers, None, args.param_bits, n_zeros)
  else:
    title = f'{name}, {args.distribution} at sparsity {args.sparsity:g}'
    custom = custom_sparsities(network, args.sparsity,
                               args.first_layer_sparsity,
                               args.last_layer_sparsity, args.layer_sparsity)
    sparsities = distributions.get_sparsities(
        network.shapes, args.distribution, args.sparsity, custom,
        args.erk_power_scale)
    count = count_network(layers, sparsities, args.param_bits)
  dense = count_network(layers, None, args.param_bits)
  multiples = report.training_multiples(
      count, dense, args.delta_t, args.length,
      _pruning_schedule(args.pruning_schedule))
  return report.Report(title, count, dense, multiples, args.delta_t,
                       args.length)


def _published(output_format: str) -> str:
  tables = published_table.published_tables()
  records = published_table.as_records(tables)
  if output_format == 'json':
    return json.dumps(records, indent=2) + '\n'
  if output_format == 'csv':
    return formatting.csv_table(
        list(records[0]), [list(record.values()) for record in records])
  return published_table.render(tables, is_markdown=output_format == 'markdown')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code.

  Args:
    argv: arguments of the command; None for those of the process.
  """
  parser = _parser()
  args = parser.parse_args(argv)
  try:
    if args.architecture or args.checkpoint:
      max_width = None
      if sys.stdout.isatty():
        max_width = shutil.get_terminal_size().columns
      text = report.render(_network_report(args), args.format, max_width)
    else:
      text = _published(args.format)
  except ValueError as error:
    parser.exit(2, f'{parser.prog}: {error}\n')
  sys.stdout.write(text)
  return 0
