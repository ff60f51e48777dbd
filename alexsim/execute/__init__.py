"""Runs a plan with real tensors: capped devices, backends, transports."""
