"""WideResNet on CIFAR-10."""
