"""The programs that write pages of the docs can also only compare them."""

from __future__ import annotations

import pytest

from tools import generated_page


@pytest.mark.parametrize('before', [None, 'old'])
def test_page_is_checked_and_written(before, tmp_path, monkeypatch, capsys):
  page = tmp_path / 'page.md'
  if before is not None:
    page.write_text(before)

  def run(*arguments):
    monkeypatch.setattr('sys.argv', ['make_page.py', *arguments])
    return generated_page.run('Makes a page.', page, 'nëw\n')

  assert run('--check') == 1
  assert f'{page} is out of date' in capsys.readouterr().out
  assert page.exists() == (before is not None)
  assert run() == 0
  assert page.read_text(encoding='utf-8') == 'nëw\n'
  assert run('--check') == 0
