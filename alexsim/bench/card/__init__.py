"""Parts of ``python -m alexsim_kernels.bench.card`` that need the planner and the executor.

A part is a module with ``rows(job)``; what it needs beside Python stands in its ``NEEDS``.
"""
