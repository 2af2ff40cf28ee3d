"""Directives in processes of their own: what makes one, the processes as the node sees them, and their other end."""
