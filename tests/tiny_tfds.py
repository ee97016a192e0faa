"""Tiny data sets that TensorFlow Datasets itself prepares."""

from __future__ import annotations

import json
import pathlib
from typing import Any, Iterable, Mapping


def write(
  data_dir: pathlib.Path,
  name: str,
  version: str,
  shape: tuple[int | None, ...],
  encoding: str,
  n_classes: int,
  splits: Mapping[str, Iterable[tuple[Any, int]]],
  shard_length: int,
) -> pathlib.Path:
  """Prepares pictures and labels.

  Args:
    data_dir: where data sets are kept.
    name: of the data set.
    version: of the data set.
    shape: of each picture; None for sizes that differ.
    encoding: 'png' or 'jpeg'.
    n_classes: number of classes.
    splits: {name: (picture, label) of each example}; a picture is an array or a
      file of the encoding.
    shard_length: the most examples in a file.

  Returns:
    The folder of the version.
  """
  import tensorflow_datasets as tfds

  folder = data_dir / name / version
  folder.mkdir(parents=True)
  features = tfds.features.FeaturesDict(
    {
      'id': tfds.features.Text(),
      'image': tfds.features.Image(shape=shape, encoding_format=encoding),
      'label': tfds.features.ClassLabel(num_classes=n_classes),
    }
  )
  identity = tfds.core.DatasetIdentity(
    name=name, version=version, data_dir=str(folder), module_name=''
  )
  writer = tfds.core.SequentialWriter(
    tfds.core.DatasetInfo(builder=identity, features=features), max_examples_per_shard=shard_length
  )
  writer.initialize_splits(list(splits))
  for split, examples in splits.items():
    writer.add_examples(
      {
        split: [
          {'id': f'{split}_{i}', 'image': image, 'label': int(label)}
          for i, (image, label) in enumerate(examples)
        ]
      }
    )
  writer.close_all()
  return folder


def name_a_module(folder: pathlib.Path, module: str) -> None:
  """Has the description of prepared pictures name a class of a module.

  TensorFlow Datasets would import the module to read them.
  """
  path = folder / 'features.json'
  features = json.loads(path.read_text())
  image = features['featuresDict']['features']['image']
  image['pythonClassName'] = f'{module}.Image'
  path.write_text(json.dumps(features))
