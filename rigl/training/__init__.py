"""What the training scripts share: config, flags, methods, masks, runner."""
