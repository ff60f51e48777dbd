"""Whether a plan fits its devices' memory, and what would."""
