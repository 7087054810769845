"""The runner: a small fork server that imports dag files, runs attempts, and outlives the daemon."""
