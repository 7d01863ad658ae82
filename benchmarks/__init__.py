"""What is measured, how, and dated results with hardware and versions. See README.md."""
