"""How a network is trained: rates by stage, what is drawn, how long."""
