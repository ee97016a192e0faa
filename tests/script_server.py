"""Runs a training script as processes of their own, without their start-up.

A server imports TensorFlow and the script once and forks for each run. Every
run is a real process with a command line, an exit code and signals, but starts
in milliseconds.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import traceback


@dataclasses.dataclass(frozen=True)
class Result:
  """How a run ended.

  Attributes:
    code: exit code, or minus the signal that ended it.
    stdout: what it printed.
    stderr: what it printed there.
    cpu_seconds: what it took of the processor, start-up of TensorFlow excluded.
  """

  code: int
  stdout: str
  stderr: str
  cpu_seconds: float


class Run:
  """A running process."""

  def __init__(self, server: ScriptServer, pid: int, stem: pathlib.Path):
    self._server = server
    self._stem = stem
    self.pid = pid

  def output(self) -> str:
    """What it has printed so far."""
    return self._stem.with_suffix('.out').read_text()

  def wait_for(self, text: str, timeout: float = 60.0) -> None:
    """Returns once it has printed `text`."""
    end = time.monotonic() + timeout
    while text not in self.output():
      assert time.monotonic() < end, self.output()
      time.sleep(0.01)

  def kill(self, number: int = signal.SIGKILL) -> None:
    """Sends a signal."""
    os.kill(self.pid, number)

  def wait(self) -> Result:
    """Waits for its end."""
    reply = self._server.request({'wait': self.pid})
    return Result(
      reply['code'], self.output(), self._stem.with_suffix('.err').read_text(), reply['cpu_seconds']
    )


class ScriptServer:
  """A process that forks runs of one script; a context manager."""

  def __init__(self, module: str, folder: pathlib.Path, **environment: str):
    """Starts the server.

    Args:
      module: of the script; it has a `main(argv)`.
      folder: for the output of the runs.
      **environment: more environment variables.
    """
    paths = [str(pathlib.Path(__file__).resolve().parents[1]), *sys.path]
    self._folder = folder
    self._n_runs = 0
    self._process = subprocess.Popen(
      [sys.executable, __file__, module],
      text=True,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths), **environment},
    )

  def __enter__(self) -> ScriptServer:
    return self

  def __exit__(self, *exc_info) -> None:
    self._process.stdin.close()
    self._process.wait()
    self._process.stdout.close()

  def request(self, message: dict) -> dict:
    """Asks the server; for `Run`."""
    self._process.stdin.write(json.dumps(message) + '\n')
    self._process.stdin.flush()
    return json.loads(self._process.stdout.readline())

  def start(self, argv: list[str], cwd: pathlib.Path | None = None) -> Run:
    """Starts the script with a command line."""
    self._n_runs += 1
    stem = self._folder / f'run{self._n_runs}'
    for suffix in ('.out', '.err'):
      stem.with_suffix(suffix).touch()
    reply = self.request({'argv': argv, 'cwd': str(cwd or self._folder), 'stem': str(stem)})
    return Run(self, reply['pid'], stem)

  def run(self, argv: list[str], cwd: pathlib.Path | None = None) -> Result:
    """Runs the script to its end."""
    return self.start(argv, cwd).wait()


def _child(module, message: dict) -> None:
  """Becomes the script; does not return."""
  from rigl.training import script

  code = 1
  try:
    os.chdir(message['cwd'])
    for number, suffix in ((1, '.out'), (2, '.err')):
      file = os.open(message['stem'] + suffix, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
      os.dup2(file, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = [module.__file__, *message['argv']]
    script.run(module.main, module.SCHEMA)
    code = 0
  except SystemExit as stop:
    code = stop.code if isinstance(stop.code, int) else bool(stop.code)
    if isinstance(stop.code, str):
      print(stop.code, file=sys.stderr)
  except BaseException:
    traceback.print_exc()
  finally:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve(module_name: str) -> None:
  from rigl.training import tpu_estimator

  module = importlib.import_module(module_name)
  tpu_estimator.is_available()  # Loads it, where there is one.
  for line in sys.stdin:
    message = json.loads(line)
    if 'wait' in message:
      _, status, usage = os.wait4(message['wait'], 0)
      reply = {
        'code': os.waitstatus_to_exitcode(status),
        'cpu_seconds': usage.ru_utime + usage.ru_stime,
      }
    else:
      pid = os.fork()
      if not pid:
        _child(module, message)
      reply = {'pid': pid}
    print(json.dumps(reply), flush=True)


if __name__ == '__main__':
  _serve(sys.argv[1])
