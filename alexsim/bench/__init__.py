"""Measured and counted figures against stored ones: gates that hold on noisy machines."""
