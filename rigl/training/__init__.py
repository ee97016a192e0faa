"""What the training scripts share: config, flags, masks, runner."""
