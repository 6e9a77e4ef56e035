"""What happened: result files in and out, the cache beside them, and where published ones come from."""
