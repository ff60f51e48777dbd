"""What all commands share: options as fields of records, their completion, and output."""
