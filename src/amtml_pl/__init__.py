"""Adaptive multi-teacher, multi-level knowledge distillation with PyTorch Lightning and Hydra."""
