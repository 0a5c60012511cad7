"""Networks for small images that torchvision and timm lack."""
