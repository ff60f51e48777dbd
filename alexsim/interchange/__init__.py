"""Weights and networks in other people's formats."""
