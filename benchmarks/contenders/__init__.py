"""What `vae-train` is compared with. Each runs in a process of its own: see `__main__`."""
