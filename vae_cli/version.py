"""The one place of the version number: read by the build, by `--version` and by run folders."""

__version__ = "0.1.0"
