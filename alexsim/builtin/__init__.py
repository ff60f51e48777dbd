"""Data sets that are drawn, not downloaded: textures in colour, and digits in grey."""
