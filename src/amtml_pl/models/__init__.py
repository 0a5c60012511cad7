"""Networks for small images that torchvision and timm lack; any of their networks works as it is."""
