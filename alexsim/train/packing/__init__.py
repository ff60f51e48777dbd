"""Packing images into shards: sources, squares, shards, index, and what lies in a folder."""
