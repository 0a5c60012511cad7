"""From pixels to batches: packing, splits, augmentation, and Lightning's data module."""
