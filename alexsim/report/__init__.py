"""Records as text: tables for people, JSON for scripts."""
