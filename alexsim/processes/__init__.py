"""The processes that train together: how they meet, and what each tells the others."""
