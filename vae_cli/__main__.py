"""`python -m vae_cli` is `vae-train`."""

from vae_cli.cli import main

if __name__ == "__main__":
    main()
