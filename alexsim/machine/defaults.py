"""The machine and the device that are meant unless another is named: those of the 2012 paper."""

MACHINE = "gtx580x2"
DEVICE = "gtx580"
