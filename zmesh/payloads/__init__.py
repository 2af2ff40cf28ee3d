"""Payloads of any size: what can be sent, how it is read, and where it is kept while it arrives."""
