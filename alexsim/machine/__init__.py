"""Devices as frozen records, read from the spec sheets in ``alexsim_profiles``."""
