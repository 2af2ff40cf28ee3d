"""What a node shows of itself: routes, events, counters and the log."""
