"""Batches of ImageNet."""

from __future__ import annotations

import io
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from rigl.compat import tf
from rigl.imagenet_resnet import imagenet_input, preprocessing
from tests import combinations, quick_sessions, tiny_imagenet
from tests.tiny_imagenet import find

N_TRAIN, N_EVAL, SIZE = 23, 9, 16


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  return find(tiny_imagenet.write_folder(tmp_path_factory.mktemp('imagenet')))


@pytest.fixture(scope='module')
def synthetic():
  return find('', use_synthetic_data=True)


def batches(data, n=100, **params):
  """The first n batches, or all."""
  with tf.Graph().as_default(), tf.Session(config=quick_sessions.unoptimized()) as session:
    batch = tf.data.make_one_shot_iterator(
      imagenet_input.Pipeline(
        **{'data': data, 'batch_size': 4, 'image_size': SIZE, **params}
      ).batches()
    ).get_next()
    found = []
    try:
      for _ in range(n):
        found.append(session.run(batch))
    except tf.errors.OutOfRangeError:
      pass
    return found


def assert_same(found, expected):
  assert len(found) == len(expected)
  for pair in zip(found, expected):
    np.testing.assert_array_equal(pair[0][0], pair[1][0])
    np.testing.assert_array_equal(pair[0][1], pair[1][1])


def expected_eval(first, n):
  """Images and labels of pictures first, first + 1, ..., one by one."""
  with tf.Graph().as_default(), tf.Session() as session:
    encoded = tf.placeholder(tf.string, [])
    image = preprocessing.preprocess_eval(encoded, SIZE)
    return np.array(
      [
        session.run(image, {encoded: tiny_imagenet.encode(tiny_imagenet.make_pixels(i))})
        for i in range(first, first + n)
      ]
    ), [i % 5 for i in range(first, first + n)]


@pytest.mark.parametrize(
  'layout, on_train', combinations.thinned(['TFRecords', 'TFDS'], [False, True])
)
def test_evaluation_visits_every_image_once_in_order(tmp_path, layout, on_train):
  write = {'TFRecords': tiny_imagenet.write_folder, 'TFDS': tiny_imagenet.write_tfds}[layout]
  write(tmp_path)
  found = batches(find(tmp_path), mode='eval', eval_on_train=on_train)
  n = N_TRAIN if on_train else N_EVAL
  assert [len(labels) for _, labels in found] == [4] * (n // 4) + [n % 4]
  images, labels = map(np.concatenate, zip(*found))
  assert images.dtype == np.float32
  assert labels.dtype == np.int32
  expected_images, expected_labels = expected_eval(0 if on_train else 1000, n)
  assert labels.tolist() == expected_labels
  np.testing.assert_array_equal(images, expected_images)


def test_training_resumes_anywhere(data):
  expected = batches(data, 16, mode='train', seed=1)
  for first in (1, 5, 6, 12):
    assert_same(
      batches(data, 4, mode='train', seed=1, first_iteration=first), expected[first : first + 4]
    )


def test_training_depends_on_the_seed_alone(data):
  expected = batches(data, 8, mode='train', seed=1, num_parallel_calls=1)
  assert_same(batches(data, 8, mode='train', seed=1), expected)
  other = batches(data, 8, mode='train', seed=2)
  assert any((a[1] != b[1]).any() for a, b in zip(other, expected))


def examples_in(path):
  return [tf.train.Example.FromString(record) for record in tf.io.tf_record_iterator(str(path))]


@pytest.mark.parametrize(
  'params',
  [
    {'mode': 'train', 'seed': 1},
    {'mode': 'train', 'first_iteration': 7},
    {'mode': 'train', 'n_hosts': 2, 'host_index': 1},
    {'mode': 'eval'},
  ],
)
def test_the_format_does_not_matter(tmp_path, params):
  prepared = find(tiny_imagenet.write_tfds(tmp_path / 'tfds'))
  for part in (prepared.train, prepared.validation):
    for i, path in enumerate(part.files):
      features = [example.features.feature for example in examples_in(path)]
      (shard,) = tiny_imagenet.write_part(
        tmp_path / 'one',
        part.name,
        [
          tiny_imagenet.make_record(
            feature['image'].bytes_list.value[0], feature['label'].int64_list.value[0] + 1
          )
          for feature in features
        ],
        1,
      )
      shard.rename(tmp_path / f'{part.name}-{i:05d}-of-{len(part.files):05d}')
  assert_same(batches(prepared, 12, **params), batches(find(tmp_path), 12, **params))


def test_an_image_differs_from_epoch_to_epoch(tmp_path):
  tiny_imagenet.write_folder(tmp_path, 1, 1)
  found = batches(find(tmp_path, 1, 1), 1, mode='train', batch_size=8)
  assert found[0][1].tolist() == [0] * 8
  assert len({image.tobytes() for image in found[0][0]}) == 8


def test_an_epoch_has_each_label_as_often_as_the_data(data):
  labels = np.concatenate(
    [labels for _, labels in batches(data, N_TRAIN, mode='train', batch_size=2)]
  )
  for epoch in (labels[:N_TRAIN], labels[N_TRAIN : 2 * N_TRAIN]):
    assert sorted(epoch) == sorted(i % 5 for i in range(N_TRAIN))


@pytest.mark.parametrize(
  'hosts, kind', combinations.thinned([(4, 1), (2, 0), (2, 3)], ['synthetic', 'data'])
)
def test_hosts_share_one_sequence(request, hosts, kind):
  n_hosts, first = hosts
  data = request.getfixturevalue(kind)
  expected = batches(data, 6, mode='train', first_iteration=first, batch_size=4)
  hosts = [
    batches(
      data,
      6,
      mode='train',
      first_iteration=first,
      host_index=i,
      n_hosts=n_hosts,
      batch_size=4 // n_hosts,
    )
    for i in range(n_hosts)
  ]
  together = [
    tuple(
      np.stack(parts, 1).reshape(whole.shape) for parts, whole in zip(zip(*parts_of_hosts), wholes)
    )
    for wholes, *parts_of_hosts in zip(expected, *hosts)
  ]
  assert_same(together, expected)


@pytest.mark.parametrize('n_hosts', [1, 2, 5])
def test_hosts_evaluate_each_image_once_in_as_many_batches(data, n_hosts):
  _, expected = expected_eval(1000, N_EVAL)
  found, lengths = [None] * N_EVAL, set()
  for i in range(n_hosts):
    parts = batches(
      data, mode='eval', pad_last_batch=True, host_index=i, n_hosts=n_hosts, batch_size=3
    )
    lengths.add(len(parts))
    images, labels = map(np.concatenate, zip(*parts))
    n = len(range(i, N_EVAL, n_hosts))
    found[i::n_hosts] = labels[:n].tolist()
    assert (labels[n:] == -1).all()
    assert not images[n:].any()
  assert found == expected
  assert len(lengths) == 1


def test_static_shapes(data):
  def shapes(**params):
    with tf.Graph().as_default():
      dataset = imagenet_input.Pipeline(data, 4, **params).batches()
      return [shape.as_list() for shape in tf.data.get_output_shapes(dataset)]

  assert shapes(mode='train') == [[4, 224, 224, 3], [4]]
  assert shapes(mode='eval') == [[None, 224, 224, 3], [None]]
  assert shapes(mode='eval', pad_last_batch=True) == [[4, 224, 224, 3], [4]]
  assert shapes(mode='train', transpose_input=True) == [[224, 224, 3, 4], [4]]


def test_transposed_and_in_bfloat16(data):
  ((images, labels),) = batches(data, 1, mode='train')
  ((transposed, same_labels),) = batches(data, 1, mode='train', transpose_input=True)
  np.testing.assert_array_equal(transposed, images.transpose(1, 2, 3, 0))
  np.testing.assert_array_equal(same_labels, labels)
  ((rounded, _),) = batches(data, 1, mode='train', dtype=tf.bfloat16)
  assert rounded.dtype == tf.bfloat16.as_numpy_dtype
  np.testing.assert_allclose(rounded.astype(np.float32), images, rtol=2**-8)


@pytest.mark.parametrize(
  'params, text',
  [
    ({'mode': 'predict'}, "mode 'predict'"),
    ({'batch_size': 0}, 'batch_size must be > 0, got 0'),
    ({'first_iteration': -1}, 'first_iteration'),
    ({'host_index': 2, 'n_hosts': 2}, 'host_index'),
    ({'dtype': tf.float16}, 'float16'),
  ],
)
def test_rejects_wrong_params(data, params, text):
  with pytest.raises(ValueError, match=text):
    imagenet_input.Pipeline(**{'data': data, 'mode': 'train', 'batch_size': 4, **params})


def test_a_missing_part(tmp_path):
  tiny_imagenet.write_part(tmp_path, 'validation', tiny_imagenet.make_records(N_EVAL), 1)
  data = find(tmp_path)
  assert len(batches(data, mode='eval')) == 3
  with pytest.raises(ValueError, match='no train images'):
    imagenet_input.Pipeline(data, 4, 'train')


# Damage that shows only when the record is used.

PICTURE = tiny_imagenet.encode(tiny_imagenet.make_pixels(0))


def broken_inside():
  """A JPEG whose start and end are those of a good one."""
  return PICTURE[:20] + b'\xff\xd8\xff\xc0' * 20 + PICTURE[-40:]


BAD_RECORDS = {
  'no picture': lambda: tiny_imagenet.make_record(None, 1),
  'text': lambda: tiny_imagenet.make_record(b'text', 1),
  'truncated JPEG': lambda: tiny_imagenet.make_record(PICTURE[:300], 1),
  'truncated PNG': lambda: tiny_imagenet.make_record(
    tiny_imagenet.encode(tiny_imagenet.make_pixels(0), 'PNG')[:-60], 1
  ),
  'broken inside': lambda: tiny_imagenet.make_record(broken_inside(), 1),
  'no label': lambda: tiny_imagenet.make_record(PICTURE, None),
  'label 0': lambda: tiny_imagenet.make_record(PICTURE, 0),
  'label 6': lambda: tiny_imagenet.make_record(PICTURE, 6),
  'no example': lambda: b'\xff' * 50,
}


def with_bad_record(folder: pathlib.Path, bad: bytes):
  """Data whose record 4 of the second file of training is bad."""
  records = tiny_imagenet.make_records(N_TRAIN)
  # Of 23 records, 7 are in the first file.
  records[7 + 4] = bad
  tiny_imagenet.write_folder(folder, train_records=records)
  return find(folder), f'{folder / "train-00001-of-00003"}: record 4 '


@pytest.mark.parametrize(
  'mode, name',
  [
    *(('eval', name) for name in BAD_RECORDS),
    ('train', 'truncated JPEG'),
    ('train', 'broken inside'),
  ],
)
def test_a_bad_record_is_named(tmp_path, mode, name):
  data, place = with_bad_record(tmp_path, BAD_RECORDS[name]())
  with pytest.raises(ValueError, match=re.escape(place)):
    with imagenet_input.explained_errors(data):
      batches(data, 6, mode=mode, eval_on_train=True)


@pytest.mark.parametrize(
  'change, skips',
  combinations.thinned(
    [
      lambda feature: feature.pop('image'),
      lambda feature: feature.pop('label'),
      lambda feature: feature['label'].int64_list.value.append(1),
      lambda feature: feature['label'].int64_list.value.__setitem__(0, 5),
      lambda feature: feature['image'].bytes_list.value.__setitem__(0, b'text'),
      lambda feature: feature['image'].bytes_list.value.__setitem__(0, PICTURE[:300]),
    ],
    [False, True],
  ),
)
def test_a_bad_record_of_tensorflow_datasets(tmp_path, capfd, change, skips):
  data = find(tiny_imagenet.write_tfds(tmp_path))
  path = data.train.files[1]
  examples = examples_in(path)
  change(examples[4].features.feature)
  with tf.io.TFRecordWriter(path) as writer:
    for example in examples:
      writer.write(example.SerializeToString())
  data = find(tmp_path)
  place = f'{path}: record 4 '
  if skips:
    labels = np.concatenate(
      [
        labels
        for _, labels in batches(data, mode='eval', eval_on_train=True, skip_corrupt_records=True)
      ]
    )
    # The first file has 8 records.
    assert np.flatnonzero(labels == -1).tolist() == [8 + 4]
    assert f'Warning: {place}' in capfd.readouterr().err
  else:
    with pytest.raises(ValueError, match=re.escape(place)):
      with imagenet_input.explained_errors(data):
        batches(data, 6, mode='eval', eval_on_train=True)


@pytest.mark.parametrize('name', ['truncated PNG', 'broken inside', 'label 6', 'no example'])
def test_a_bad_record_is_skipped_in_evaluation(tmp_path, capfd, name):
  data, place = with_bad_record(tmp_path, BAD_RECORDS[name]())
  images, labels = map(
    np.concatenate, zip(*batches(data, mode='eval', eval_on_train=True, skip_corrupt_records=True))
  )
  expected_images, expected_labels = expected_eval(0, N_TRAIN)
  expected_images[11], expected_labels[11] = 0, -1
  assert labels.tolist() == expected_labels
  np.testing.assert_array_equal(images, expected_images)
  assert f'Warning: {place}' in capfd.readouterr().err


@pytest.mark.parametrize('n_hosts', [1, 2])
def test_records_that_are_lost_do_not_change_the_number_of_batches(tmp_path, n_hosts):
  data = find(tiny_imagenet.write_folder(tmp_path))
  path = tmp_path / 'validation-00001-of-00002'
  path.write_bytes(path.read_bytes()[:-10])
  _, expected = expected_eval(1000, N_EVAL - 1)
  for i in range(n_hosts):
    parts = batches(
      data,
      mode='eval',
      pad_last_batch=True,
      skip_corrupt_records=True,
      host_index=i,
      n_hosts=n_hosts,
      batch_size=4 // n_hosts,
    )
    assert len(parts) == 3
    images, labels = map(np.concatenate, zip(*parts))
    n = len(expected[i::n_hosts])
    assert labels[:n].tolist() == expected[i::n_hosts]
    assert (labels[n:] == -1).all()
    assert images[:n].any(axis=(1, 2, 3)).all() and not images[n:].any()


def test_a_bad_record_is_replaced_in_training(tmp_path):
  good = find(tiny_imagenet.write_folder(tmp_path / 'good'))
  bad, _ = with_bad_record(tmp_path / 'bad', BAD_RECORDS['truncated JPEG']())
  expected = batches(good, 12, mode='train')
  found = batches(bad, 12, mode='train', skip_corrupt_records=True)
  n_replaced = 0
  for (images, labels), (good_images, good_labels) in zip(found, expected):
    differs = np.any(images != good_images, axis=(1, 2, 3))
    if differs.any():
      (i,) = np.flatnonzero(differs)
      first = 1 if i == 0 else 0
      np.testing.assert_array_equal(images[i], good_images[first])
      assert labels[i] == good_labels[first]
      n_replaced += 1
  assert n_replaced == 2


def test_other_errors_pass(data):
  with pytest.raises(tf.errors.InvalidArgumentError, match='another'):
    with imagenet_input.explained_errors(data):
      raise tf.errors.InvalidArgumentError(None, None, 'another')


def test_trailing_bytes_do_not_matter(tmp_path):
  stream = io.BytesIO(PICTURE + b'trailing')
  assert Image.open(stream).size == (24, 20)
  data, _ = with_bad_record(tmp_path, tiny_imagenet.make_record(stream.getvalue(), 2))
  _, labels = map(np.concatenate, zip(*batches(data, mode='eval', eval_on_train=True)))
  assert labels[11] == 1
