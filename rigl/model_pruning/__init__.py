"""Masked layers, their registry, and gradual magnitude pruning."""
