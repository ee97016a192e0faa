"""What commands print on terminals of other encodings than UTF-8."""

from __future__ import annotations

import keras
import pytest

import rigl.keras
from rigl import console
from tests import terminals


@pytest.mark.parametrize(
  'encoding, expected', [('ascii', '1 ? 2 ? ?'), ('latin-1', '1 ± 2 ? é'), ('utf-8', '1 ± 2 ─ é')]
)
def test_a_character_that_the_terminal_lacks(monkeypatch, encoding, expected):
  shown = terminals.printed(monkeypatch, encoding, lambda: console.show('1 ± 2 ─ é'))
  assert shown == f'{expected}\n'


def test_a_name_that_is_not_text(monkeypatch):
  name = b'\xff.jpg'.decode('utf-8', 'surrogateescape')
  assert terminals.printed(monkeypatch, 'utf-8', lambda: console.show(name)) == '?.jpg\n'


def test_a_command(monkeypatch):
  def command():
    console.run(console.Parser(), [], lambda arguments: '1 \u00b1 2\n')

  assert terminals.printed(monkeypatch, 'ascii', command) == '1 ? 2\n'


def test_the_summary_of_a_model(monkeypatch):
  model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name='fc')])
  shown = terminals.printed(monkeypatch, 'ascii', lambda: rigl.keras.summary(model))
  assert 'fc' in shown
  assert '?' * 10 in shown
