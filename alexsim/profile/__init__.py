"""Measuring this machine: calibration of the simulator."""
