"""Finding a Cloud TPU, or saying at once why there is none."""

from __future__ import annotations

import dataclasses
import glob
import importlib.util
import os
import socket
from typing import Any, Optional, Sequence

from rigl.compat import tf2
from rigl.core import messages

# Where the environments of Colab, GKE and ctpu put the address or the name.
_VARIABLES = ('TPU_NAME', 'COLAB_TPU_ADDR', 'KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS')
_METADATA_SERVER = ('metadata.google.internal', 80)
_DEVICE_FILES = ('/dev/accel*', '/dev/vfio/[0-9]*')
_TIMEOUT_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class TpuSetup:
  """How to train on a TPU.

  Attributes:
    resolver: a TPUClusterResolver.
    train_batch_size: examples in a training batch of all cores.
    eval_batch_size: likewise in an evaluation batch.
    n_cores: replicas that share a batch.
    iterations_per_loop: training steps between two looks of the host.
    job_name: job name of the TPU's workers; None lets TensorFlow find it.
    batch_axis: dimensions of images and labels that replicas split.
  """

  resolver: Any
  train_batch_size: int
  eval_batch_size: int
  n_cores: int = 8
  iterations_per_loop: int = 1251
  job_name: Optional[str] = None
  batch_axis: Sequence[int] = (0, 0)


def _answers(address: tuple[str, int], timeout: float) -> bool:
  try:
    with socket.create_connection(address, timeout):
      return True
  except OSError:
    return False


def _check_address(address: str) -> None:
  """Raises ValueError unless something listens at grpc://<host>:<port>."""
  host, _, port = address[len('grpc://') :].rpartition(':')
  if not host or not port.isdigit():
    raise ValueError(f'The TPU address {address!r} is not of the form grpc://<host>:<port>.')
  if not _answers((host, int(port)), _TIMEOUT_SECONDS):
    raise ValueError(f'No TPU answers at {address}.')


def _check_name(name: str, zone: str, project: str) -> None:
  """Raises ValueError unless a name can be looked up from this machine."""
  if importlib.util.find_spec('cloud_tpu_client') is None:
    raise ValueError(
      f'Looking up the TPU {name!r} by its name needs a package. To install it, run: pip install '
      'cloud-tpu-client. Or give the address: --tpu=grpc://<host>:<port>.'
    )
  if (not zone or not project) and not _answers(_METADATA_SERVER, 2.0):
    raise ValueError(
      f'Cannot look up the TPU {name!r}: this machine is not on Google Cloud, so --tpu_zone and '
      '--gcp_project are needed.'
    )


def find(tpu: str, zone: str = '', project: str = '', master: str = '') -> Any:
  """The TPUClusterResolver of a TPU.

  Args:
    tpu: its name in Google Cloud, grpc://<host>:<port>, or 'local' on a TPU VM;
      when '' it is taken from `master`, then from the environment.
    zone: zone of a TPU that is given by its name; found out on Google Cloud
      when ''.
    project: project of a TPU that is given by its name, likewise.
    master: another way to give the address.

  Raises:
    ValueError: no TPU is named, none answers, or it cannot be looked up; says
      what is missing. Nothing waits for long before.
  """
  tpu = tpu or master or next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), '')
  if not tpu:
    raise ValueError(
      '--use_tpu needs --tpu=<name>, --tpu=grpc://<host>:<port> or --tpu=local; none is given and '
      f'none of {", ".join(_VARIABLES)} is set.'
    )
  if tpu == 'local':
    if not any(glob.glob(pattern) for pattern in _DEVICE_FILES):
      raise ValueError('--tpu=local, but this machine has no TPU.')
  elif tpu.startswith('grpc://'):
    _check_address(tpu)
  else:
    _check_name(tpu, zone, project)
  try:
    return tf2.distribute.cluster_resolver.TPUClusterResolver(
      tpu, zone=zone or None, project=project or None
    )
  except Exception as error:  # Libraries for credentials raise their own.
    raise ValueError(f'Cannot use the TPU {tpu!r}: {messages.reason(error)}') from error
