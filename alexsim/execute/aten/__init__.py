"""The ``aten`` backend's kernels: every layer forward and backward on given output tensors.

No function allocates but scratch, in the chunks that ``alexsim.plan.backends.aten`` states. Images
are ``[N, C, H, W]`` tensors that lie channels-last; windows are sums or maxima of shifted views,
which read contiguous rows of channels.
"""
