"""How well predictions hold: published rows, fits to them, errors on what was left out."""
