"""Tests of the shared fixtures themselves."""

import pathlib
import subprocess
import sys

import pytest
from absl import flags

from tests import conftest

ROOT = pathlib.Path(__file__).parents[1]

flags.DEFINE_integer('conftest_number', 1, 'For the tests below.')


def test_flags_are_restored():
  with conftest.restored_flags():
    flags.FLAGS.conftest_number = 7
    flags.FLAGS.set_default('conftest_number', 8)
  assert flags.FLAGS.conftest_number == 1
  assert flags.FLAGS['conftest_number'].using_default_value


def test_flags_defined_in_a_test_stay_with_their_defaults():
  with conftest.restored_flags():
    flags.DEFINE_string('conftest_late', 'default', 'Defined in a test.')
    flags.FLAGS.conftest_late = 'changed'
  assert flags.FLAGS.conftest_late == 'default'


@pytest.mark.parametrize('attempt', range(2))
def test_every_test_has_its_flags_restored(attempt):
  assert flags.FLAGS.conftest_number == 1
  flags.FLAGS.conftest_number = 7


def test_graph_is_new_and_seeded(graph):
  from rigl.compat import tf

  def draw():
    value = tf.random.uniform([4])
    with tf.Session() as session:
      return session.run(value).tolist()

  assert tf.get_default_graph() is graph
  assert not graph.get_operations()
  with tf.Graph().as_default():
    tf.set_random_seed(0)
    expected = draw()
  assert draw() == expected


def test_goldens_reads_a_new_copy(goldens):
  goldens('schedules').clear()
  assert goldens('schedules')


def test_goldens_names_what_there_is(goldens):
  with pytest.raises(ValueError, match="'no_such'.*'schedules'"):
    goldens('no_such')


def test_fixtures_do_not_import_tensorflow():
  code = "import sys, tests.conftest; sys.exit('tensorflow' in sys.modules)"
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
