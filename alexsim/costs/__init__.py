"""Cost models: what one op costs on a device, by the library whose kernels run it."""
