"""Errors of TensorFlow in one line."""

from __future__ import annotations

import re

import pytest

from rigl.compat import tf
from rigl.core import messages


def test_an_error_of_a_graph(graph):
  picture = tf.io.decode_png(tf.constant(b'rubbish'))
  with pytest.raises(tf.errors.InvalidArgumentError) as error:
    with tf.Session() as session:
      session.run(picture)
  # Newer releases know more formats.
  assert re.fullmatch(
    r'Unknown image file format\. One of JPEG, [\w ,]+ required\.', messages.reason(error.value)
  )


@pytest.mark.parametrize(
  'error, expected',
  [
    (tf.errors.NotFoundError(None, None, 'a\n  file'), 'a file'),
    (ValueError('some text'), 'some text'),
    (ValueError(), 'ValueError'),
    (OSError('a\nb: c\n\t [[{{node x}}]]\nd'), 'b: c'),
  ],
)
def test_other_errors(error, expected):
  assert messages.reason(error) == expected
