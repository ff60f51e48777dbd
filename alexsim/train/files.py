"""Names of the files in a run directory. No torch in here: reports read them too."""

CONFIG, METRICS, STATISTICS = "config.json", "metrics.jsonl", "statistics.npz"
TELEMETRY = "telemetry.jsonl"
PROFILE, TRACE = "profile.json", "trace.json.gz"
CHECKPOINTS = f"checkpoint-{8 * '[0-9]'}.safetensors"
"""Pattern of all checkpoints; by name, the last has most steps."""
