"""Pictures that are larger than memory: read in bands, written while they grow."""
