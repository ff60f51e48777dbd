"""Many steps compared: sweeps, what-ifs, sensitivities, recommendations. No torch in here."""
