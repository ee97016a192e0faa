"""Tests of rigl.core.seeding."""

import os
import pathlib
import subprocess
import sys

import pytest

from rigl.core import seeding

ROOT = pathlib.Path(__file__).parents[2]

# Written down, so that a change of the seeds, which would change every
# published run, does not go unnoticed.
FROZEN = {
  ('layer1/mask', 'drop_noise', 0): 1706142655,
  ('layer1/mask', 'grow', 0): 193347008,
  ('layer1/mask', 'drop_noise', 1): 1102279382,
  ('resnet_model/initial_conv/weights', 'grow_init', 42): 1125029975,
  ('', '', 0): 1769565583,
}


@pytest.mark.parametrize('arguments', FROZEN)
def test_frozen_values(arguments):
  assert seeding.stable_seed(*arguments) == FROZEN[arguments]


def test_two_processes_with_different_hash_seeds_agree():
  code = (
    'from rigl.core import seeding\nprint(seeding.stable_seed("a/weights:0", "grow", 3), hash("a"))'
  )
  outputs = [
    subprocess.run(
      [sys.executable, '-c', code],
      cwd=ROOT,
      check=True,
      capture_output=True,
      text=True,
      env={**os.environ, 'PYTHONHASHSEED': seed},
    ).stdout.split()
    for seed in ('1', '2')
  ]
  (first, first_hash), (second, second_hash) = outputs
  assert first_hash != second_hash
  assert first == second == str(seeding.stable_seed('a/weights:0', 'grow', 3))


@pytest.mark.parametrize(
  'name, expected',
  [
    ('a/mask', 'a/mask'),
    ('a/mask:0', 'a/mask'),
    ('a/mask:12', 'a/mask'),
    ('a/mask/replica_1', 'a/mask'),
    ('a/mask/replica_1:0', 'a/mask'),
    ('a/mask/replica_12:0', 'a/mask'),
    ('replica_1/mask:0', 'replica_1/mask'),
    ('a/replica_1/mask:0', 'a/replica_1/mask'),
    ('a/mask_1:0', 'a/mask_1'),
    ('', ''),
  ],
)
def test_canonical_name(name, expected):
  assert seeding.canonical_name(name) == expected


def test_replicas_and_outputs_share_a_seed():
  seeds = {
    seeding.stable_seed(name, 'grow', 7)
    for name in ('a/mask', 'a/mask:0', 'a/mask/replica_1:0', 'a/mask/replica_2')
  }
  assert len(seeds) == 1


def test_every_argument_matters_and_fits_an_int32():
  arguments = [
    (name, purpose, seed)
    for name in ('a', 'b', 'a/b', 'layer_1', 'layer_11')
    for purpose in ('drop_noise', 'grow', 'grow_init')
    for seed in (-1, 0, 1, 2**31, 2**63)
  ]
  seeds = [seeding.stable_seed(*a) for a in arguments]
  assert len(set(seeds)) == len(seeds)
  assert all(0 <= s < 2**31 for s in seeds)


def test_name_and_purpose_are_not_run_together():
  assert seeding.stable_seed('ab', 'c') != seeding.stable_seed('a', 'bc')


def test_the_user_seed_defaults_to_zero():
  assert seeding.stable_seed('a', 'b') == seeding.stable_seed('a', 'b', 0)
