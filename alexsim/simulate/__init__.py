"""The virtual clock: a plan on a machine's spec sheet."""
