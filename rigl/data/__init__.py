"""Shared helpers for finding and synthesizing data sets."""
