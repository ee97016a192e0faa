"""Plans, tables, figures and errors of comparisons."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pathlib
import statistics

import pytest

from rigl.compare import cli, figures, plan, results

MNIST = plan.SCRIPTS['mnist']


def make_runs(folder, methods=('rigl', 'snfs', 'dense'), n_seeds=3):
  return plan.make_runs(MNIST, methods, [0.9, 0.98], n_seeds, folder, ['--a=1'])


# --- Plan --------------------------------------------------------------------


def test_a_dense_network_has_one_run_a_seed(tmp_path):
  runs = make_runs(tmp_path, n_seeds=2)
  assert [(run.method, run.sparsity, run.seed) for run in runs] == [
    (method, sparsity, seed)
    for seed in (0, 1)
    for method, sparsity in (
      ('rigl', 0.9),
      ('rigl', 0.98),
      ('snfs', 0.9),
      ('snfs', 0.98),
      ('dense', None),
    )
  ]
  assert len({run.folder for run in runs}) == len(runs)
  assert runs[1].argv == [
    '--a=1',
    '--training_method=rigl',
    '--seed=0',
    '--end_sparsity=0.98',
    f'--save_path={tmp_path}/rigl_sparsity0.98_seed0',
  ]


def test_finished_by_the_same_flags_wherever_the_folder_is(tmp_path):
  (run, *_) = make_runs(tmp_path / 'here')
  assert not run.is_finished
  run.folder.mkdir(parents=True)
  run.note_finished()
  assert run.is_finished
  (tmp_path / 'here').rename(tmp_path / 'there')
  assert make_runs(tmp_path / 'there')[0].is_finished
  other = plan.make_runs(MNIST, ['rigl'], [0.9], 1, tmp_path / 'there', [])
  assert not other[0].is_finished


def test_rows_are_those_of_the_last_training_in_the_folder(tmp_path):
  (run, *_) = make_runs(tmp_path)
  for name, time in (('b', 1), ('a', 3), ('c', 2), ('a/eval', 4)):
    (run.folder / name).mkdir(parents=True)
    path = run.folder / name / 'metrics.jsonl'
    path.write_text(json.dumps({'name': name}) + '\n')
    os.utime(path, (time, time))
  assert run.rows() == [{'name': 'a'}]


# --- Table -------------------------------------------------------------------


@pytest.fixture
def outcomes(tmp_path):
  """Of runs whose final errors are 0.1, 0.11, 0.12, ..."""
  found = []
  for i, run in enumerate(make_runs(tmp_path)):
    run.folder.mkdir(parents=True)
    size = {} if run.sparsity is None else {'bytes': 1000 + i}
    rows = [
      {
        'step': step,
        'epoch': epoch,
        'split': split,
        'seconds': 3.0,
        'accuracy': 0.9 - 0.01 * i - 0.1 * (epoch == 1),
        'sparsity': run.sparsity or 0.0,
        **size,
      }
      for step, epoch in ((5, 1), (10, 2))
      for split in ('train', 'test')
    ]
    (run.folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    found.append(results.outcome_of(run))
  return found


def test_markdown_by_hand(outcomes):
  # The seeds of a method are 5 runs apart: errors e, e + 0.05, e + 0.1, whose
  # standard deviation is 0.05.
  assert results.markdown(results.grouped(outcomes)) == (
    '| error in % | dense | 90 % | 98 % |\n'
    '| --- | --: | --: | --: |\n'
    '| rigl |  | 15.00 ± 5.00 | 16.00 ± 5.00 |\n'
    '| snfs |  | 17.00 ± 5.00 | 18.00 ± 5.00 |\n'
    '| dense | 19.00 ± 5.00 |  |  |\n'
  )


def test_a_single_seed_has_no_deviation_and_no_dense_no_column(outcomes):
  some = [o for o in outcomes if o.run.seed == 0 and o.run.method == 'rigl']
  assert results.markdown(results.grouped(some)) == (
    '| error in % | 90 % | 98 % |\n| --- | --: | --: |\n| rigl | 10.00 | 11.00 |\n'
  )


def test_csv_by_hand(outcomes):
  text = results.csv(results.grouped(outcomes))
  rows = list(csv.DictReader(text.splitlines()))
  assert [row['method'] for row in rows] == ['rigl'] * 2 + ['snfs'] * 2 + ['dense']
  row = rows[1]
  assert float(row['error']) == pytest.approx(statistics.fmean([0.11, 0.16, 0.21]))
  assert float(row['error_deviation']) == pytest.approx(0.05)
  assert (row['runs'], float(row['bytes'])) == ('3', 1006.0)
  assert rows[-1]['bytes'] == ''


def test_a_run_that_was_not_evaluated_has_no_outcome(tmp_path):
  (run, *_) = make_runs(tmp_path)
  assert results.outcome_of(run) is None


def test_networks_that_are_not_as_sparse_are_named(outcomes):
  assert results.warnings(results.grouped(outcomes)) == []
  # Of three seeds one ends dense: a density of (0.02 + 0.02 + 1) / 3.
  outcomes[1] = dataclasses.replace(outcomes[1], sparsity=0.0)
  (warning,) = results.warnings(results.grouped(outcomes))
  assert warning == (
    'rigl at 98 % is not comparable: it ended at a sparsity of 0.6533, others at 0.9800.'
  )


@pytest.mark.parametrize(
  'keep',
  [
    lambda o: True,
    lambda o: o.run.method == 'dense',
    lambda o: o.run.method == 'rigl' and o.run.seed == 0,
    lambda o: o.run.sparsity == 0.9,
  ],
)
def test_figure_of_any_part_of_the_outcomes(keep, outcomes, tmp_path):
  figures.write(results.grouped(list(filter(keep, outcomes))), tmp_path / 'figure.png')
  assert (tmp_path / 'figure.png').read_bytes().startswith(b'\x89PNG')


# --- Mistakes ----------------------------------------------------------------


@pytest.mark.parametrize(
  'arguments, words',
  [
    (['--methods=rgil'], ['rgil', 'Did you mean rigl?']),
    (['--methods='], ['--methods is empty']),
    (['--methods=rigl,rigl'], ['twice']),
    (['--sparsities=much'], ['--sparsities', 'much']),
    (['--sparsities=1'], ['--sparsities', '[0, 1)']),
    (['--seeds=0'], ['--seeds', '0']),
    (['--jobs=-1'], ['--jobs', '-1']),
    (['--', '--num_epoch=3'], ['num_epoch']),
    (['--', '--l2_scale=-3'], ['l2_scale', '-3']),
    (['--', 'num_epochs=3'], ['num_epochs=3', '--']),
  ],
)
def test_mistakes_are_named_before_anything_is_made(arguments, words, tmp_path, capsys):
  output = tmp_path / 'new'
  with pytest.raises(SystemExit) as stop:
    cli.main([f'--output={output}', *arguments])
  assert stop.value.code == 2
  message = capsys.readouterr().err
  assert message.startswith('Error: ') and message.count('\n') == 1
  for word in words:
    assert word in message
  assert not pathlib.Path(output).exists()
