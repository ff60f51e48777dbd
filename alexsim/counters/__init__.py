"""Other people's FLOP counters beside ours."""
