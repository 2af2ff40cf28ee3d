"""Routes, advertisements and seqno requests after RFC 8966, and the records that every node floods."""
