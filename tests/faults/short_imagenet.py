"""The ImageNet script on a network of few blocks, for processes of their own."""

from __future__ import annotations

import pytest

from rigl.imagenet_resnet import imagenet_train_eval
from tests import imagenet_script

# The process ends with its last run.
imagenet_script.shorten_networks(pytest.MonkeyPatch())

SCHEMA, main = imagenet_train_eval.SCHEMA, imagenet_train_eval.main
