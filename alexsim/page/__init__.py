"""One HTML page on a run, a profile or a plan: records to figures and tables. No torch in here."""
