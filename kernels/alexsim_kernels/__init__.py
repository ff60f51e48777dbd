"""Triton kernels of alexsim; this package imports nothing of ``alexsim``."""
