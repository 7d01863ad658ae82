"""What `vae-eval` can do with a trained run, a function a task: settings and run in, files out."""
