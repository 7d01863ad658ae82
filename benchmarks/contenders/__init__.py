"""The contenders of `vae-train`. Each runs in a process of its own: see `__main__`."""
