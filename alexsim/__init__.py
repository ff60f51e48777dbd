"""Faithful performance simulation and profiling of how deep networks were, and are, trained."""
