"""Pretrained weights: their cards, where their files lie, and how each kind of file is read. No TensorFlow."""
