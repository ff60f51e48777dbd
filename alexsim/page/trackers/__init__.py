"""A run's metrics for experiment trackers: TensorBoard, and Weights & Biases."""
