"""Data of alexsim: device spec sheets. No code."""
