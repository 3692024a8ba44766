"""The one limit for all that a test waits for."""

# Seconds. It ends what hangs, and nothing that is merely slow: the slowest single wait takes less than three minutes where every
# core is busy, so that a machine may be ten times slower than that.
HANGS_AFTER = 1800.0
