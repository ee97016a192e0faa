"""ResNet, MobileNet and VGG on ImageNet."""
