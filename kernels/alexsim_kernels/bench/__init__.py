"""Scripts that check kernels against float64, and then time them beside PyTorch's.

``python -m alexsim_kernels.bench`` takes the one for what is here; ``.layers`` is for Triton's
kernels and a CUDA card, ``.cpu`` for the C++ ones.
"""
