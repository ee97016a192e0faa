"""The command line: `python -m rigl.inference export` and `benchmark`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rigl import console
from rigl.core import checks
from rigl.inference import benchmarking, exporting, reports
from rigl.micronet import formatting

_EXAMPLES = """examples:
  python -m rigl.inference export /tmp/run --output=model.tflite
  python -m rigl.inference export model.keras --output=model.tflite \\
      --dense_output=dense.tflite
  python -m rigl.inference benchmark model.tflite --against=dense.tflite
"""


def _parser() -> argparse.ArgumentParser:
  parser = console.Parser(
    prog='python -m rigl.inference',
    description='Writes sparse networks as small .tflite files and times them.',
    epilog=_EXAMPLES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
  export = commands.add_parser(
    'export',
    help='write a network as a sparse .tflite file',
    description='Writes a network as a .tflite file with sparse weights and without dead units, '
    'and prints what that saves.',
  )
  export.add_argument(
    'source',
    metavar='SOURCE',
    help='a .keras file, a dense .tflite file, the folder of a SavedModel or '
    'the folder of a run of one of the scripts',
  )
  export.add_argument('--output', metavar='PATH', required=True, help='file to be written')
  export.add_argument(
    '--dense_output', metavar='PATH', help='also write the dense network there, to compare with'
  )
  export.add_argument(
    '--quantize', choices=[q for q in exporting.QUANTIZE if q], help='round weights to 8 bits'
  )
  benchmark = commands.add_parser(
    'benchmark',
    help='time a .tflite file',
    description='Times LiteRT and the engine of rigl on a .tflite file, in turn, in one process.',
  )
  benchmark.add_argument('model', metavar='MODEL', help='a .tflite file')
  benchmark.add_argument('--against', metavar='PATH', help='the dense .tflite file')
  benchmark.add_argument(
    '--threads',
    metavar='N,...',
    default='1',
    help='numbers of threads to try (default: %(default)s)',
  )
  benchmark.add_argument(
    '--batch', metavar='N', type=int, default=1, help='examples of a call (default: %(default)s)'
  )
  benchmark.add_argument(
    '--seconds',
    metavar='X',
    type=float,
    default=5.0,
    help='how long to measure (default: %(default)g)',
  )
  for command, text_of in ((export, _export), (benchmark, _benchmark)):
    command.set_defaults(text_of=text_of)
    command.add_argument(
      '--format',
      choices=('table', 'json'),
      default='table',
      help='of the output (default: %(default)s)',
    )
  return parser


def _export(args: argparse.Namespace) -> str:
  exported = exporting.export(
    checks.expanded_path('SOURCE', args.source),
    checks.expanded_path('--output', args.output),
    args.quantize,
  )
  if args.dense_output is not None:
    exporting.write_file(checks.expanded_path('--dense_output', args.dense_output), exported.dense)
  if args.format == 'json':
    return formatting.json_text(reports.as_record(exported))
  return reports.render(exported)


def _benchmark(args: argparse.Namespace) -> str:
  try:
    threads = [int(n) for n in args.threads.split(',')]
  except ValueError:
    raise ValueError(
      f'--threads takes numbers separated by commas, got {args.threads!r}.'
    ) from None
  checks.positive('--threads', min(threads))
  checks.positive('--batch', args.batch)
  checks.positive('--seconds', args.seconds)
  records = benchmarking.benchmark(args.model, args.against, threads, args.batch, args.seconds)
  if args.format == 'json':
    return formatting.json_text(records)
  return benchmarking.render(records)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return console.run(_parser(), argv, lambda args: args.text_of(args), (OSError, ValueError))
