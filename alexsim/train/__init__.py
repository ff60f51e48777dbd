"""Real training: recipe, data, loop, checkpoints."""
