"""Reports of a training: terminal, text file, TensorBoard, mask records."""

from __future__ import annotations

import numpy as np
import pytest

from rigl.compat import tf
from rigl.mnist import compression, epoch_log, mask_records
from rigl.training import history, hooks, iterations, progress

N_BATCHES = 3
MASKS = {
  'layer1': np.array([[1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 0]]),
  'layer2': np.array([[1, 0], [1, 1], [0, 0]]),
  'layer3': np.array([[1, 1], [1, 1]]),
}
SPARSITIES = [9 / 12, 3 / 6, 0.0]
GLOBAL_SPARSITY = 12 / 22


class Training:
  """A graph whose losses, accuracies and masks a test sets."""

  def __init__(
    self,
    folder,
    first_iteration=0,
    record_frequency=0,
    n_epochs=4,
    masks=MASKS,
    is_dynamic=True,
    digits=(1.0, 2.0, 6.0),
  ):
    self.folder = folder
    scalars = {
      name: tf.placeholder(tf.float32, []) for name in ('loss', 'accuracy', 'drop_fraction')
    }
    self._scalars = scalars
    digits_fed = tf.placeholder(tf.float32, [None])
    self.test_accuracy = tf.get_variable('accuracy', [], tf.float32)
    self.masks = [
      tf.get_variable(f'{layer}/mask', mask.shape, tf.float32, tf.constant_initializer(mask))
      for layer, mask in masks.items()
    ]
    # A method would count its updates in it.
    self._n_updates = tf.get_variable('last_mask_update_step', [], tf.int64, tf.zeros_initializer())
    self._train_op = iterations.counted(
      tf.no_op, tf.train.get_or_create_global_step(), first_iteration
    )
    self.log = epoch_log.EpochLog(
      {
        'loss': scalars['loss'],
        'accuracy': scalars['accuracy'],
        'learning_rate': scalars['loss'] / 100.0,
        'drop_fraction': scalars['drop_fraction'] if is_dynamic else None,
      },
      {'loss': tf.reduce_mean(digits_fed), 'accuracy': self.test_accuracy},
      {digits_fed: digits},
      self.masks,
      epoch_log.Schedule(
        n_batches=N_BATCHES,
        n_epochs=n_epochs,
        first_iteration=first_iteration,
        record_frequency=record_frequency,
      ),
      str(folder),
      str(folder / 'log.txt'),
      str(folder / 'masks.npz'),
    )

  def run(
    self, n_iterations, accuracies=None, masks_at=None, drop_fractions=(), begin=0, saves_at=()
  ):
    """Iteration i (from 0) has loss i, accuracy i / 100.

    Args:
      n_iterations: iterations in all, those before `begin` included.
      accuracies: test accuracies of the epochs, 0.1, 0.2, ... if not given.
      masks_at: {iteration: mask of layer1}, set before it.
      drop_fractions: of the iterations, 0 afterwards.
      begin: the first iteration, before which the masks are those of it.
      saves_at: iterations after which there is a checkpoint.
    """
    accuracies = accuracies or [0.1 * k for k in range(1, 9)]
    with tf.train.MonitoredSession(hooks=[self.log]) as session:
      raw = session._tf_sess()
      for i in range(begin, n_iterations):
        if masks_at and i in masks_at:
          self.masks[0].load(masks_at[i], raw)
          self._n_updates.load(i, raw)
        self.test_accuracy.load(accuracies[i // N_BATCHES], raw)
        drop = drop_fractions[i] if i < len(drop_fractions) else 0.0
        session.run(
          self._train_op,
          {
            self._scalars['loss']: i,
            self._scalars['accuracy']: i / 100,
            self._scalars['drop_fraction']: drop,
          },
        )
        if i + 1 in saves_at:
          self.log.save()

  def text(self):
    return (self.folder / 'log.txt').read_text()

  def rows(self):
    """Those of metrics.jsonl, without the seconds, which differ."""
    rows = history.read(str(self.folder))
    for row in rows:
      assert row.pop('seconds') >= 0.0
    return rows

  def records(self):
    return mask_records.MaskRecords.load(self.folder / 'masks.npz')


pytestmark = pytest.mark.usefixtures('graph')


def scalars(folder):
  """{tag: {step: value}} as TensorBoard shows it; a value is there once."""
  result = {}
  for path in sorted(folder.glob('events.*')):
    for event in tf.train.summary_iterator(str(path)):
      if event.session_log.status == tf.SessionLog.START:
        result = {
          tag: {step: value for step, value in by_step.items() if step < event.step}
          for tag, by_step in result.items()
        }
      for value in event.summary.value:
        by_step = result.setdefault(value.tag, {})
        assert event.step not in by_step
        by_step[event.step] = value.simple_value
  return result


# --- Text --------------------------------------------------------------------


def test_one_line_an_epoch_and_one_of_the_compressed_network(tmp_path):
  training = Training(tmp_path)
  training.run(7)
  sparsities, sizes = compression.get_compressed_fc(list(MASKS.values()))
  compressed = (
    f'compressed {"-".join(map(str, sizes))}, sparsity '
    f'{" ".join(f"{s:.4f}" for s in sparsities)}, '
    f'{compression.compressed_size_bytes(list(MASKS.values()))} bytes'
  )
  assert training.text().splitlines() == [
    'epoch=1 iteration=3, test loss 3.000000, test accuracy 0.100000, '
    'sparsity 0.545455, layers 0.7500 0.5000 0.0000',
    compressed,
    'epoch=2 iteration=6, test loss 3.000000, test accuracy 0.200000, '
    'sparsity 0.545455, layers 0.7500 0.5000 0.0000',
    compressed,
  ]


def test_dense_network_has_nothing_to_compress(tmp_path):
  training = Training(tmp_path, masks={}, is_dynamic=False)
  training.run(3)
  assert training.text() == (
    'epoch=1 iteration=3, test loss 3.000000, test accuracy 0.100000, '
    'sparsity 0.000000, layers dense\n'
  )


def test_a_loss_that_is_not_finite(tmp_path, capsys):
  with tf.Graph().as_default():
    training = Training(tmp_path, digits=[1.0, float('nan')])
    training.run(3)
  assert 'test loss nan' in training.text()
  assert 'test loss nan' in capsys.readouterr().out
  assert training.rows()[-1]['loss'] is None
  # And once more, from the row.
  assert 'test loss nan' in resume(tmp_path, 3).text()


def test_size_of_the_network_by_hand():
  # layer1 connects the pixels 0 and 2 to the neurons 0 and 2; layer2 leads
  # from neuron 0 to unit 0 alone, whence layer3 reaches both outputs. So 2
  # pixels, neuron 0, unit 0 and 2 outputs stay, with 2 + 1 + 2 weights,
  # 1 + 1 + 2 biases and a byte of bits for each layer.
  values = epoch_log.network_values(MASKS)
  assert (values['units'], values['unit_sparsities'], values['bytes']) == (
    [2, 1, 1, 2],
    [0.0, 0.0, 0.0],
    39,
  )
  assert epoch_log.text_of(
    {**values, 'epoch': 1, 'iteration': 2, 'loss': 3.0, 'accuracy': 0.4}
  ).splitlines()[1] == ('compressed 2-1-1-2, sparsity 0.0000 0.0000 0.0000, 39 bytes')


# --- metrics.jsonl -----------------------------------------------------------


def test_rows_by_hand(tmp_path):
  training = Training(tmp_path)
  # One of the 10 active connections is another at the end of epoch 2.
  other = MASKS['layer1'].copy()
  other[0, 0], other[1, 1] = 0, 1
  training.run(6, masks_at={4: other}, drop_fractions=[0.9, 0.5, 0.3, 0.9, 0.4, 0.2])
  place = [{'step': 0, 'iteration': 3 * epoch, 'epoch': epoch} for epoch in (1, 2)]
  network = {'sparsity': pytest.approx(GLOBAL_SPARSITY)}
  rows = training.rows()
  assert [row.pop('itop_rate') for row in rows[::2]] == [10 / 22, 11 / 22]
  assert rows[::2] == [
    # Means over an epoch of the loss and the accuracy.
    {
      **place[0],
      'split': 'train',
      'loss': 1.0,
      'accuracy': pytest.approx(0.01),
      'learning_rate': pytest.approx(0.02),
      'drop_fraction': 0.3,
      'moved': 0.0,
      'dead_units': 1,
      **network,
    },
    {
      **place[1],
      'split': 'train',
      'loss': 4.0,
      'accuracy': pytest.approx(0.04),
      'learning_rate': pytest.approx(0.05),
      'drop_fraction': 0.2,
      'moved': pytest.approx(0.1),
      'dead_units': 0,
      **network,
    },
  ]
  assert rows[1] == {
    **place[0],
    'split': 'test',
    'loss': 3.0,
    'accuracy': 0.1,
    **network,
    'layer_sparsities': pytest.approx(dict(zip(MASKS, SPARSITIES))),
    'units': [2, 1, 1, 2],
    'unit_sparsities': [0.0, 0.0, 0.0],
    'bytes': 39,
  }
  assert rows[3]['accuracy'] == 0.2


def test_rows_of_a_dense_network(tmp_path):
  training = Training(tmp_path, masks={}, is_dynamic=False)
  training.run(3)
  train, test = training.rows()
  assert train['sparsity'] == train['moved'] == train['drop_fraction'] == 0.0
  assert (train['itop_rate'], train['dead_units']) == (1.0, 0)
  assert set(test) == {'step', 'iteration', 'epoch', 'split', 'loss', 'accuracy', 'sparsity'}


# --- Terminal ----------------------------------------------------------------


def test_progress_on_the_terminal(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(progress.StepClock, 'steps_per_second', lambda self: 1.0)
  Training(tmp_path).run(7)
  lines = capsys.readouterr().out.splitlines()
  assert lines == [
    f'epoch   {n}/4  loss {3.0 * n - 2:.4f}  test loss 3.0000  '
    f'test accuracy  {n}0.00%  sparsity 0.5455  39 bytes     1 steps/s  '
    f'{(4 - n) * N_BATCHES}s left'
    for n in (1, 2)
  ]


# --- TensorBoard -------------------------------------------------------------


def test_summaries(tmp_path):
  Training(tmp_path).run(6, drop_fractions=[0.9, 0.5, 0.3, 0.9, 0.4, 0.2])
  values = scalars(tmp_path)
  # The picture has no scalar.
  assert set(values.pop('mask/layer1')) == {3, 6}
  expected = {
    # Means over the iterations of the epoch.
    'loss': [1.0, 4.0],
    'accuracy': [0.01, 0.04],
    # Those of the last iteration.
    'drop_fraction': [0.3, 0.2],
    'learning_rate': [0.02, 0.05],
    'global_sparsity': [GLOBAL_SPARSITY] * 2,
    'moved': [0.0, 0.0],
    'itop_rate': [1.0 - GLOBAL_SPARSITY] * 2,
    # Column 1 of layer1 has no connection.
    'dead_units': [1.0, 1.0],
    **{f'density/{layer}': [1.0 - sparsity] * 2 for layer, sparsity in zip(MASKS, SPARSITIES)},
  }
  tests = {'loss': [3.0, 3.0], 'accuracy': [0.1, 0.2]}
  for found, wanted in ((values, expected), (scalars(tmp_path / 'eval'), tests)):
    assert set(found) == set(wanted)
    for tag, by_step in found.items():
      assert list(by_step) == [3, 6], tag
      np.testing.assert_allclose(list(by_step.values()), wanted[tag], rtol=1e-6, err_msg=tag)


# --- Accuracies --------------------------------------------------------------


def test_best_and_last_accuracy(tmp_path):
  training = Training(tmp_path)
  assert training.log.best is None
  assert training.log.last_accuracy is None
  training.run(9, accuracies=[0.5, 0.75, 0.25])
  assert training.log.best['accuracy'] == 0.75
  assert training.log.best['epoch'] == 2
  assert training.log.last_accuracy == 0.25


def test_no_accuracy_before_the_first_epoch_ends(tmp_path):
  training = Training(tmp_path)
  training.run(2)
  assert training.log.last_accuracy is None
  assert training.text() == ''


# --- Mask records ------------------------------------------------------------


def test_masks_are_recorded_at_the_start_and_every_so_often(tmp_path):
  training = Training(tmp_path, record_frequency=2)
  other = 1 - MASKS['layer1']
  training.run(5, masks_at={2: other, 4: MASKS['layer1']})
  training.log.save_records()
  records = training.records()
  assert records.iterations.tolist() == [0, 2, 4]
  assert records.shapes == {layer: mask.shape for layer, mask in MASKS.items()}
  for index, expected in enumerate([MASKS['layer1'], MASKS['layer1'], other]):
    np.testing.assert_array_equal(records.mask('layer1', index), expected)
    np.testing.assert_array_equal(records.mask('layer2', index), MASKS['layer2'])


@pytest.mark.parametrize(
  'arguments', [{'record_frequency': 0}, {'record_frequency': 1, 'masks': {}}]
)
def test_no_records_unless_asked_for_and_there(tmp_path, arguments):
  training = Training(tmp_path, **arguments)
  training.run(4)
  training.log.save_records()
  assert not (tmp_path / 'masks.npz').exists()


def test_records_are_written_before_the_checkpoint_of_the_step(tmp_path):
  """A kill between the two leaves surplus rows, which resuming drops."""
  training = Training(tmp_path, record_frequency=1)
  training.run(2)
  assert not (tmp_path / 'masks.npz').exists()
  hooks.SaveState(training.log.save).before_save(None, 7)
  assert training.records().iterations.tolist() == [0, 1, 2]


# --- Resuming ----------------------------------------------------------------


def resume(folder, first_iteration, **arguments):
  with tf.Graph().as_default():
    training = Training(folder, first_iteration, **arguments)
    training.run(0)
    return training


def interrupted(folder, n_iterations=10, **arguments):
  """Files of a training of 3 epochs and an iteration, all saved."""
  with tf.Graph().as_default():
    training = Training(folder, record_frequency=2)
    training.run(n_iterations, **arguments)
    training.log.save()
  return training


@pytest.mark.parametrize(
  'first_iteration, n_lines, n_records',
  [(0, 0, 1), (1, 0, 1), (3, 2, 2), (5, 2, 3), (6, 4, 4), (9, 6, 5), (10, 6, 6), (11, 6, 6)],
)
def test_what_will_be_done_again_is_removed(tmp_path, first_iteration, n_lines, n_records):
  former = interrupted(tmp_path)
  lines = former.text().splitlines()
  rows = former.rows()
  training = resume(tmp_path, first_iteration, record_frequency=2)
  assert training.text().splitlines() == lines[:n_lines]
  assert training.rows() == rows[:n_lines]
  training.log.save_records()
  assert training.records().iterations.tolist() == ([0, 2, 4, 6, 8, 10][:n_records])


@pytest.mark.parametrize('saved_at, killed_at', [(7, 7), (7, 10), (5, 7), (6, 8), (9, 9)])
def test_resumed_files_equal_those_of_an_uninterrupted_training(saved_at, killed_at, tmp_path):
  """Also the means over an epoch, and what moved in it."""
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  whole.mkdir()
  parts.mkdir()
  accuracies = [0.3, 0.9, 0.5, 0.7]
  masks = {i: np.roll(MASKS['layer1'], i, axis=0) for i in range(12)}

  def run(folder, begin, end, saves_at):
    with tf.Graph().as_default():
      training = Training(folder, begin, record_frequency=2)
      training.run(end, accuracies, masks, begin=begin, saves_at=saves_at)
    return training

  former = run(whole, 0, 12, [12])
  run(parts, 0, killed_at, [3, saved_at])
  resumed = run(parts, saved_at, 12, [12])
  assert len(former.rows()) == 8
  assert resumed.rows() == former.rows()
  assert resumed.text() == former.text()
  assert (parts / 'masks.npz').read_bytes() == (whole / 'masks.npz').read_bytes()
  assert resumed.log.best['accuracy'] == 0.9
  moved = [row['moved'] for row in former.rows()[::2]]
  assert 0.0 < min(moved) and len(set(moved)) > 1


def test_tensorboard_forgets_what_is_done_again(tmp_path):
  interrupted(tmp_path, accuracies=[0.1, 0.2, 0.3, 0.4])
  with tf.Graph().as_default():
    Training(tmp_path, 5).run(9, accuracies=[0.1, 0.7, 0.8], begin=5)
  assert scalars(tmp_path / 'eval')['accuracy'] == pytest.approx({3: 0.1, 6: 0.7, 9: 0.8})
  assert list(scalars(tmp_path)['accuracy']) == [3, 6, 9]


def test_tensorboard_keeps_the_iteration_that_is_saved(tmp_path):
  interrupted(tmp_path, n_iterations=6)
  resume(tmp_path, 6)
  for folder in (tmp_path, tmp_path / 'eval'):
    assert list(scalars(folder)['accuracy']) == [3, 6]


@pytest.mark.parametrize('line', ['epoch=1', '{"step": 1', '[1, 2]', '3'])
def test_line_that_a_user_changed_is_named(line, tmp_path):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(f'{line}\n')
  with pytest.raises(ValueError, match='metrics.jsonl, line 1') as error:
    resume(tmp_path, 5)
  assert repr(line) in str(error.value)
  assert path.read_text() == f'{line}\n'


def test_best_is_that_of_what_is_kept_whatever_the_file_was_called(tmp_path):
  interrupted(tmp_path, accuracies=[0.2, 0.4, 0.9, 0.9])
  # As after a change of a flag that is a part of its name.
  (tmp_path / 'log.txt').rename(tmp_path / 'other.txt')
  log = resume(tmp_path, 7).log
  assert (log.best['accuracy'], log.best['epoch']) == (0.4, 2)
  assert (tmp_path / 'log.txt').read_text().count('epoch=') == 2
  assert resume(tmp_path, 2).log.best is None


@pytest.mark.parametrize('cut', [1, 20, 70, 130, 150])
def test_half_a_line_of_a_killed_training_is_removed(tmp_path, cut):
  former = interrupted(tmp_path)
  text, rows = former.text(), former.rows()
  for name in ('log.txt', 'metrics.jsonl'):
    path = tmp_path / name
    path.write_text(path.read_text()[:-cut])
  # The checkpoint is older than the lines of epoch 3.
  training = resume(tmp_path, 8)
  assert training.text() == ''.join(text.splitlines(True)[:4])
  assert training.rows() == rows[:4]


def test_no_temporary_files_stay(tmp_path):
  interrupted(tmp_path)
  resume(tmp_path, 4)
  assert not [
    path
    for path in tmp_path.iterdir()
    if not path.name.startswith(('log.txt', 'masks', 'metrics', 'events', 'eval'))
    or path.name.endswith('.tmp')
  ]


def test_progress_of_a_resumed_training(tmp_path, capsys):
  interrupted(tmp_path)
  capsys.readouterr()
  with tf.Graph().as_default():
    Training(tmp_path, 6).run(9, begin=6)
  line, *_ = capsys.readouterr().out.splitlines()
  assert 'epoch   3/4' in line
