"""The models that MATEY is compared with, each of one system: a fitted stencil, a ResNet, a U-Net and an FNO."""
