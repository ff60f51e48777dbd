"""Who does what, when, in which buffer: the plan of a training step."""
