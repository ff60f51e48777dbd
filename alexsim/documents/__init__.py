"""What ``--json`` prints, as types: keys may be added, never renamed (docs/json.md)."""
