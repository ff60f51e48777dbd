"""Every form that images come in: class folders, tars, parquet files."""
