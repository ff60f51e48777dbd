"""Kernels for CPUs: C++ in vector types, compiled for this machine at first use."""
