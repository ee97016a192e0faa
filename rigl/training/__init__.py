"""Shared by the training scripts: config, flags, masks, runner."""
