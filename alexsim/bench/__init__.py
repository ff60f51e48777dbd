"""Measured and counted figures against stored figures: gates that hold on noisy machines."""
