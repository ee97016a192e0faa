"""Mask records: saving and loading, and refused files."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

from rigl.mnist import mask_records

SHAPES = {'layer1': (7, 5), 'block/conv': (3, 3, 2, 4), 'vector': (13,)}


def random_masks(seed: int) -> dict[str, np.ndarray]:
  random_state = np.random.RandomState(seed)
  return {
    name: (random_state.rand(*shape) < 0.4).astype(np.float32) for name, shape in SHAPES.items()
  }


def make_records(iterations=(0, 10, 30)) -> mask_records.MaskRecords:
  records = mask_records.MaskRecords()
  for iteration in iterations:
    records.append(iteration, random_masks(iteration))
  return records


def assert_records(records, iterations):
  assert records.iterations.tolist() == list(iterations)
  assert len(records) == len(iterations)
  for index, iteration in enumerate(iterations):
    for name, mask in random_masks(iteration).items():
      recorded = records.mask(name, index)
      assert recorded.dtype == np.uint8
      np.testing.assert_array_equal(recorded, mask)


def test_saved_records_come_back(tmp_path):
  path = tmp_path / 'masks.npz'
  make_records().save(path)
  records = mask_records.MaskRecords.load(path)
  assert records.shapes == SHAPES
  assert_records(records, [0, 10, 30])
  np.testing.assert_array_equal(records.mask('layer1', -1), random_masks(30)['layer1'])


def test_file_is_read_by_numpy_alone_as_the_docstring_says(tmp_path):
  path = tmp_path / 'masks.npz'
  make_records().save(path)
  with np.load(path, allow_pickle=False) as file:
    assert sorted(file.files) == sorted(
      ['version', 'iterations']
      + [f'{name}/{kind}' for name in SHAPES for kind in ('mask', 'shape')]
    )
    assert file['iterations'].tolist() == [0, 10, 30]
    for name, shape in SHAPES.items():
      assert tuple(file[f'{name}/shape']) == shape
      flat = np.unpackbits(file[f'{name}/mask'], axis=1, count=math.prod(shape))
      expected = [random_masks(k)[name] for k in (0, 10, 30)]
      np.testing.assert_array_equal(flat.reshape(3, *shape), expected)


def test_bits_are_packed_as_worked_out_by_hand(tmp_path):
  records = mask_records.MaskRecords()
  records.append(5, {'layer': np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]])})
  records.save(tmp_path / 'masks.npz')
  with np.load(tmp_path / 'masks.npz') as file:
    assert file['layer/mask'].tolist() == [[0b10001100, 0b10000000]]


KEPT = np.arange(12) % 12 < 7


def test_kept_pixels_come_back(tmp_path):
  path = tmp_path / 'masks.npz'
  records = mask_records.MaskRecords(KEPT)
  records.append(0, random_masks(0))
  records.save(path)
  loaded = mask_records.MaskRecords.load(path)
  assert_records(loaded, [0])
  np.testing.assert_array_equal(loaded.kept_pixels, KEPT)
  assert loaded.kept_pixels.dtype == bool
  with np.load(path, allow_pickle=False) as file:
    np.testing.assert_array_equal(file['kept_pixels'], KEPT)


def test_records_of_all_pixels_have_no_kept_pixels(tmp_path):
  path = tmp_path / 'masks.npz'
  make_records().save(path)
  assert mask_records.MaskRecords.load(path).kept_pixels is None


def test_resumed_run_adds_its_kept_pixels_to_an_older_file(tmp_path):
  path = tmp_path / 'masks.npz'
  for former in (path, tmp_path / 'none.npz'):
    make_records([0]).save(path)
    records = mask_records.resume_mask_records(former, 5, KEPT)
    records.append(10, random_masks(10))
    records.save(path)
    np.testing.assert_array_equal(mask_records.MaskRecords.load(path).kept_pixels, KEPT)


def test_masks_need_a_row_for_each_kept_pixel():
  records = mask_records.MaskRecords(KEPT[:-5])
  records.append(0, random_masks(0))
  records = mask_records.MaskRecords(KEPT[1:])
  with pytest.raises(ValueError, match=r'layer1 to have 6 rows.*\(7, 5\)'):
    records.append(0, random_masks(0))
  assert len(records) == 0


def test_later_changes_of_a_mask_do_not_reach_its_record():
  mask = np.ones((2, 2))
  records = mask_records.MaskRecords()
  records.append(0, {'layer': mask})
  mask[:] = 0
  assert records.mask('layer', 0).sum() == 4


def test_resumed_run_continues_its_records(tmp_path):
  path = tmp_path / 'masks.npz'
  make_records([0, 10, 20, 30]).save(path)
  # The checkpoint is of iteration 20: the run does 30 again.
  records = mask_records.resume_mask_records(path, 20)
  assert_records(records, [0, 10, 20])
  records.append(30, random_masks(30))
  records.append(40, random_masks(40))
  records.save(path)
  whole = make_records([0, 10, 20, 30, 40])
  whole.save(tmp_path / 'whole.npz')
  with np.load(path) as file, np.load(tmp_path / 'whole.npz') as expected:
    assert file.files == expected.files
    for key in file.files:
      np.testing.assert_array_equal(file[key], expected[key])


def test_new_run_starts_without_records(tmp_path):
  records = mask_records.resume_mask_records(tmp_path / 'none.npz', 0)
  assert len(records) == 0
  records.append(0, random_masks(0))
  assert_records(records, [0])


@pytest.mark.parametrize(
  'iteration, kept', [(-1, []), (0, [0]), (9, [0]), (10, [0, 10]), (99, [0, 10, 30])]
)
def test_drop_after(iteration, kept):
  records = make_records()
  records.drop_after(iteration)
  assert_records(records, kept)


def test_records_without_content_survive(tmp_path):
  path = tmp_path / 'masks.npz'
  mask_records.MaskRecords().save(path)
  assert len(mask_records.MaskRecords.load(path)) == 0
  emptied = make_records()
  emptied.drop_after(-1)
  emptied.save(path)
  records = mask_records.MaskRecords.load(path)
  assert records.shapes == SHAPES
  records.append(3, random_masks(3))
  assert_records(records, [3])


def test_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
  path = tmp_path / 'masks.npz'
  make_records([0]).save(path)

  def fail(file, **arrays):
    file.write(b'half of it')
    raise OSError('disk full')

  monkeypatch.setattr(np, 'savez_compressed', fail)
  with pytest.raises(OSError, match='disk full'):
    make_records([0, 10]).save(path)
  assert os.listdir(tmp_path) == ['masks.npz']
  assert_records(mask_records.MaskRecords.load(path), [0])


@pytest.mark.parametrize(
  'iteration, masks, message',
  [
    (30, random_masks(0), 'iteration after 30, found 30'),
    (7, random_masks(0), 'iteration after 30, found 7'),
    (40, {}, 'at least one layer'),
    (40, {'layer1': np.ones((7, 5))}, 'Expected masks of the shapes'),
    (
      40,
      {**random_masks(0), 'layer1': np.ones((5, 7))},
      r'Expected masks of the shapes .*\(7, 5\).* found .*\(5, 7\)',
    ),
    (
      40,
      {**random_masks(0), 'layer1': np.full((7, 5), 0.5)},
      'mask of layer1 holds more than 0 and 1',
    ),
  ],
)
def test_bad_record_is_refused_and_changes_nothing(iteration, masks, message):
  records = make_records()
  with pytest.raises(ValueError, match=message):
    records.append(iteration, masks)
  assert_records(records, [0, 10, 30])


def test_unknown_layer_is_named_with_the_known_ones():
  with pytest.raises(ValueError, match='named layer9; .* layer1, block/conv'):
    make_records().mask('layer9', 0)
  with pytest.raises(ValueError, match='records of no layer'):
    mask_records.MaskRecords().mask('layer9', 0)


def test_missing_file(tmp_path):
  with pytest.raises(FileNotFoundError, match='none.npz'):
    mask_records.MaskRecords.load(tmp_path / 'none.npz')


def assert_refused(path, message):
  for read in (
    mask_records.MaskRecords.load,
    lambda path: mask_records.resume_mask_records(path, 5),
  ):
    with pytest.raises(ValueError, match=message) as error:
      read(path)
    assert str(path) in str(error.value)


def test_truncated_file_is_refused_wherever_it_ends(tmp_path):
  path = tmp_path / 'masks.npz'
  make_records().save(path)
  content = path.read_bytes()
  for size in (0, 1, 30, len(content) // 2, len(content) - 1):
    path.write_bytes(content[:size])
    assert_refused(path, 'truncated or of another format|damaged or foreign')


def test_damaged_file_is_refused(tmp_path):
  path = tmp_path / 'masks.npz'
  make_records().save(path)
  content = bytearray(path.read_bytes())
  content[80:120] = bytes(40)
  path.write_bytes(bytes(content))
  assert_refused(path, 'damaged or foreign')


def test_pickled_records_are_refused_and_not_loaded(tmp_path):
  path = tmp_path / 'records.npy'
  np.save(path, {'layer1': [np.ones((2, 2))]}, allow_pickle=True)
  assert_refused(path, 'of another format')
  path = tmp_path / 'objects.npz'
  np.savez(path, iterations=np.array([{}], dtype=object))
  assert_refused(path, 'damaged or foreign file .*allow_pickle')


MASK = np.zeros((2, 4), np.uint8)
GOOD = {
  'version': np.array(1),
  'iterations': np.array([0, 5]),
  'layer1/mask': MASK,
  'layer1/shape': np.array([8, 4]),
}


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'version': None}, 'an array named version'),
    ({'iterations': None}, 'an array named iterations'),
    ({'version': np.array(2)}, 'expected version 1, found 2'),
    ({'version': np.array([1, 1])}, 'not a file of mask records'),
    ({'iterations': np.array([5, 5])}, 'list of ascending iterations'),
    ({'iterations': np.array(5)}, 'list of ascending iterations'),
    ({'iterations': np.array(['a', 'b'])}, 'not a file of mask records'),
    ({'iterations': np.array([0.5, 1.5])}, 'list of ascending iterations'),
    ({'layer1/shape': None}, 'expected layer1/shape beside layer1/mask'),
    ({'layer1/shape': np.array([9, 4])}, r'uint8 of shape \(2, 5\)'),
    ({'layer1/shape': np.array([8.5])}, 'layer1/shape to be a list of sizes'),
    ({'layer1/shape': np.array(32)}, 'layer1/shape to be a list of sizes'),
    ({'iterations': np.array([0])}, r'uint8 of shape \(1, 4\)'),
    ({'layer1/mask': MASK.astype(float)}, 'found float64 of shape'),
    ({'kept_pixels': np.ones(8)}, 'kept_pixels to be a list of bool.*float64'),
    ({'kept_pixels': np.ones((8, 1), bool)}, r'list of bool.* \(8, 1\)'),
    ({'kept_pixels': np.ones(9, bool)}, r'have 9 rows.*shape \(8, 4\)'),
  ],
)
def test_other_npz_files_are_refused(tmp_path, changes, message):
  path = tmp_path / 'file.npz'
  np.savez(path, **GOOD)
  assert len(mask_records.MaskRecords.load(path)) == 2
  arrays = {**GOOD, **changes}
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
  assert_refused(path, message)
