"""The models that MATEY is compared with, each of one system: a fitted stencil, a ResNet, a small U, a U-Net and an FNO."""
