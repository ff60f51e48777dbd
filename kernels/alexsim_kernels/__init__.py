"""Kernels of alexsim, in Triton and for CPUs; this package imports nothing of ``alexsim``."""
