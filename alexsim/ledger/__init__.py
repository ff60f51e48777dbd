"""What a plan adds up to: FLOPs per layer, and bytes per device, category and moment."""
