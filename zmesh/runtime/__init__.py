"""What the event loop, threads, signals and forks need."""
