"""Counts networks from the command line: `python -m rigl.micronet`.

Without --architecture and --checkpoint it prints the published tables beside
our counts. Otherwise it lists the layers of a network with their shape,
sparsity, weights, FLOPs and bytes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence

from rigl import console
from rigl.core import checks, distributions
from rigl.micronet import (
  architectures,
  checkpoint_networks,
  formatting,
  published_table,
  report,
  training_flops,
)
from rigl.micronet.network import Network, count_network

_EXAMPLES = """examples:
  python -m rigl.micronet
  python -m rigl.micronet --architecture=resnet50 --sparsity=0.9
  python -m rigl.micronet --architecture=wrn_22_2 --sparsity=0.95 --format=csv
  python -m rigl.micronet --checkpoint=/tmp/run
"""


def _parser() -> argparse.ArgumentParser:
  parser = console.Parser(
    prog='python -m rigl.micronet',
    description='Counts FLOPs and bytes by the rules of the MicroNet '
    'Challenge.\nWithout --architecture and --checkpoint: the published '
    'tables of RigL, cell by\ncell, next to what the rules give.',
    epilog=_EXAMPLES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument(
    '--format',
    choices=formatting.FORMATS,
    default='table',
    help='of the output (default: %(default)s)',
  )

  _add_network_arguments(parser.add_argument_group('network'))
  _add_sparsity_arguments(parser.add_argument_group('sparsity'))
  _add_training_arguments(parser.add_argument_group('training cost'))
  return parser


def _add_network_arguments(network: argparse._ArgumentGroup) -> None:
  network.add_argument(
    '--architecture', metavar='NAME', help=f'one of: {", ".join(architectures.ARCHITECTURES)}'
  )
  network.add_argument('--width', type=float, metavar='X', help='factor for the channels')
  network.add_argument('--input_size', type=int, metavar='N', help='rows of the input image')
  network.add_argument('--num_classes', type=int, metavar='N', help='outputs of the network')
  network.add_argument(
    '--all_operations',
    action='store_true',
    help='also count residual additions and the global average, which the '
    'published figures leave out',
  )
  network.add_argument(
    '--param_bits',
    type=int,
    metavar='N',
    default=32,
    help='bits of a stored weight (default: %(default)s)',
  )


def _add_sparsity_arguments(sparsity: argparse._ArgumentGroup) -> None:
  sparsity.add_argument(
    '--sparsity',
    type=float,
    metavar='S',
    default=0.0,
    help='of all layers together that have none of their own (default: %(default)g)',
  )
  sparsity.add_argument(
    '--distribution',
    choices=distributions.DISTRIBUTIONS,
    metavar='NAME',
    default='erdos_renyi_kernel',
    help='how it is spread over layers: '
    f'{", ".join(distributions.DISTRIBUTIONS)}; random is uniform (default: %(default)s)',
  )
  sparsity.add_argument(
    '--erk_power_scale',
    type=float,
    metavar='X',
    default=1.0,
    help='exponent of the raw densities of erdos_renyi_kernel (default: %(default)g)',
  )
  for layer in ('first', 'last'):
    sparsity.add_argument(
      f'--{layer}_layer_sparsity',
      type=float,
      metavar='S',
      help=f'0: the {layer} layer is dense, -1: it follows the distribution. '
      'Unset: as the training script of the network does',
    )
  sparsity.add_argument(
    '--layer_sparsity',
    action='append',
    default=[],
    metavar='LAYER=S',
    help='sparsity of one layer, may be repeated',
  )
  sparsity.add_argument(
    '--checkpoint',
    metavar='PATH',
    help='count the masks of this checkpoint (a prefix or a folder) instead '
    'of a distribution; takes architecture and sizes from the config.gin of '
    'its run, or finds the architecture, if they are not given',
  )


def _add_training_arguments(training: argparse._ArgumentGroup) -> None:
  training.add_argument(
    '--delta_t',
    type=float,
    metavar='N',
    help='steps between mask updates, for the cost of RigL alone; inf for '
    f'none; a run has its own (default: {training_flops.DEFAULT_DELTA_T})',
  )
  training.add_argument(
    '--length',
    type=float,
    metavar='X',
    default=1.0,
    help='training steps, as a multiple of those of the dense network (default: %(default)g)',
  )
  default = training_flops.DEFAULT_PRUNING
  training.add_argument(
    '--pruning_schedule',
    metavar='STEPS,BEGIN,END,FREQUENCY',
    default=f'{default.n_steps},{default.begin_step},{default.end_step},{default.frequency}',
    help='of gradual pruning (default: %(default)s)',
  )


def _custom_sparsities(network: Network, args: argparse.Namespace) -> dict[str, float]:
  """The sparsities of the layers that do not follow the distribution."""
  custom = network.custom_sparsities(args.sparsity)
  for name, value in (
    (network.first_layer, args.first_layer_sparsity),
    (network.last_layer, args.last_layer_sparsity),
  ):
    if value == -1:
      custom.pop(name, None)
    elif value is not None:
      custom[name] = value
  for text in args.layer_sparsity:
    name, _, number_text = text.rpartition('=')
    try:
      number = float(number_text)
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
    raise ValueError(f'--pruning_schedule takes STEPS,BEGIN,END,FREQUENCY, got {text!r}.')
  return training_flops.PruningSchedule(*steps)


def _given(args: argparse.Namespace) -> list[str]:
  """The names of the arguments that do not have their default."""
  defaults = _parser().parse_args([])
  return [name for name, value in vars(args).items() if value != getattr(defaults, name)]


def _title(
  name: str, network: Network, args: argparse.Namespace, custom: Mapping[str, float]
) -> str:
  """Describes the counted network, including its custom sparsities."""
  # A distribution means nothing for a single layer.
  spread = f', {args.distribution}' if len(custom) < len(network.shapes) - 1 else ''
  title = f'{name}{spread} at sparsity {args.sparsity:g}'
  if not custom or not args.sparsity:
    return title
  exceptions = [f'{layer.rpartition("/")[2]} {value:g}' for layer, value in custom.items()]
  if len(exceptions) > 3:
    exceptions = [f'{len(exceptions)} layers have their own']
  return f'{title}; {", ".join(exceptions)}'


def _advice(sizes: Mapping[str, float], of_run: Mapping[str, float]) -> str:
  """A remedy if a checkpoint does not fit the sizes of a network."""
  others = [name for name in sizes if name in of_run and sizes[name] != of_run[name]]
  if not others:
    return 'Sizes can be set with --width, --input_size and --num_classes.'
  found = ', '.join(f'{name}={of_run[name]:g}, not {sizes[name]:g}' for name in others)
  return f'Its config.gin has {found}: leave out {", ".join(f"--{name}" for name in others)}.'


def _network_report(args: argparse.Namespace) -> report.Report:
  """Counts the network of the arguments."""
  sizes = {name: getattr(args, name) for name in ('width', 'input_size', 'num_classes')}
  numbers = {**sizes, 'param_bits': args.param_bits, 'length': args.length}
  for key, value in numbers.items():
    if value is not None:
      checks.positive(f'--{key}', value)
  schedule = _pruning_schedule(args.pruning_schedule)
  name: str | None = args.architecture
  masks, of_run = {}, dict[str, float]()
  if args.checkpoint is not None:
    for given in _given(args):
      if 'sparsity' in given or given in ('distribution', 'erk_power_scale'):
        raise ValueError(
          f'Give --{given} or --checkpoint: the masks of a checkpoint have a sparsity of their own.'
        )
    masks = checkpoint_networks.read_masks(args.checkpoint)
    named, of_run = checkpoint_networks.network_of_run(args.checkpoint)
    name = name or named
  delta_t = of_run.pop('delta_t', training_flops.DEFAULT_DELTA_T)
  if args.delta_t is not None:
    delta_t = args.delta_t
  sizes = {**of_run, **{k: v for k, v in sizes.items() if v is not None}}
  if name is None:
    name = checkpoint_networks.find_architecture(masks, **sizes)
  network = checkpoint_networks.get_network(name, masks, **sizes)
  layers = network.layers if args.all_operations else network.weighted_layers
  if args.checkpoint is not None:
    problem = checkpoint_networks.mismatch(network, masks)
    if problem:
      raise ValueError(
        f'{args.checkpoint!r} is not a checkpoint of {name}: {problem}. {_advice(sizes, of_run)}'
      )
    title = f'{name}, masks of {args.checkpoint}'
    n_zeros = {scope: mask.n_zeros for scope, mask in masks.items()}
    count = count_network(layers, None, args.param_bits, n_zeros)
  else:
    custom = _custom_sparsities(network, args)
    title = _title(name, network, args, custom)
    sparsities = distributions.get_sparsities(
      network.shapes, args.distribution, args.sparsity, custom, args.erk_power_scale
    )
    count = count_network(layers, sparsities, args.param_bits)
  dense = count_network(layers, None, args.param_bits)
  multiples = report.training_multiples(count, dense, delta_t, args.length, schedule)
  return report.Report(title, count, dense, multiples, delta_t, args.length)


def _published(output_format: str) -> str:
  tables = published_table.published_tables()
  records = published_table.as_records(tables)
  if output_format == 'json':
    return formatting.json_text(records)
  if output_format == 'csv':
    return formatting.csv_table(records)
  return published_table.render(tables, is_markdown=output_format == 'markdown')


def _text(args: argparse.Namespace) -> str:
  if args.checkpoint is not None:
    args.checkpoint = checks.expanded_path('--checkpoint', args.checkpoint)
  if args.architecture is None and args.checkpoint is None:
    for name in _given(args):
      if name != 'format':
        raise ValueError(f'--{name} needs --architecture or --checkpoint.')
    return _published(args.format)
  max_width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
  return report.render(_network_report(args), args.format, max_width)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return console.run(_parser(), argv, _text)
