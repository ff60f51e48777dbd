"""Sets that ``alexsim data pack`` writes and ``train`` reads."""
