"""Inside a trainer: each starts `ckptsel watch` in a process of its own, and raises nothing into it."""
